"""The same service in LitServe.

python litserve_server.py PORT

Measured settings: one to four workers, one or two threads, batches, the fast queue, one to three HTTP servers (the
default, one per worker, is not slower). contestants.py has the best.
"""

import os
import sys
from typing import Any

os.environ["LITSERVE_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "1"

import classifier
import litserve
import numpy as np
from numpy.typing import NDArray

Arrays = NDArray[np.float32]


class Api(litserve.LitAPI):  # type: ignore[misc]  # LitServe is not installed where types are checked
    """Base64 in, label out."""

    def setup(self, device: str) -> None:
        """Load the model in each worker."""
        self._asked = classifier.settings()
        self._prepare = classifier.Preparation(self._asked["picture"])
        self._load = classifier.load(self._asked)

    def decode_request(self, request: dict[str, str], **_: Any) -> Arrays:
        """Convert the JSON to the model's input."""
        return self._prepare(request["image_b64"])

    def predict(self, x: Arrays, **_: Any) -> Arrays:
        """Classify one picture or a batch."""
        return self._load(x if x.ndim == 4 else x[None])

    def encode_response(self, output: Arrays, **_: Any) -> dict[str, Any]:
        """Convert the probabilities of one picture to JSON."""
        return classifier.answer(output.reshape(-1), self._asked["labels"])


if __name__ == "__main__":
    options = classifier.settings()
    api = Api(max_batch_size=options["batch"], batch_timeout=options["batch_timeout"])
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=options["workers"],
        fast_queue=options["fast_queue"],
        timeout=60,
    )
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning", access_log=False)
