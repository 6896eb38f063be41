"""The same service in BentoML.

bentoml serve bentoml_service:Classifier --port PORT

Measured settings: one to four workers, one to three calls in each, one or two streams. contestants.py has the best.
"""

from typing import Any

import bentoml
import classifier
import numpy as np
from numpy.typing import NDArray

ASKED = classifier.settings()


@bentoml.service(
    workers=ASKED["workers"],
    threads=ASKED["calls"],
    traffic={"timeout": 60},
    # Both cost time and are not needed here.
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classifier:
    """Base64 in, label out. It is a plain function, which BentoML runs in a thread."""

    def __init__(self) -> None:
        self._predict = classifier.load(ASKED)
        self._prepare = classifier.Preparation(ASKED["picture"])

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]  # nor is BentoML
    def predict(self, image_b64: str) -> dict[str, Any]:
        """Classify one photo."""
        pictures: NDArray[np.float32] = self._prepare(image_b64)[None]
        return classifier.answer(self._predict(pictures)[0], ASKED["labels"])
