"""The embedded model server with TensorFlow in place of OpenVINO.

    python tensorflow_server.py --port=8500 ... (all flags of model_server.py)

It stands for TensorFlow Serving, which exists only as a container: the same kernels, in a Python process.
"""

import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "app"))

from model_service import model_server
from model_service.engines import openvino as openvino_engine


def refuse(*_: object) -> NoReturn:
    """Reject every signature, so that TensorFlow computes it."""
    raise openvino_engine.Unsupported("this server is for TensorFlow's runtime")


if __name__ == "__main__":
    openvino_engine.load = openvino_engine.check = refuse  # type: ignore[assignment]  # never returns
    sys.exit(model_server.main(sys.argv[1:]))
