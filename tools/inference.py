"""Imports OpenVINO safely for threads and without its telemetry; see engines/openvino.py of the model server."""

import sys
from typing import Any

import numpy as np


def import_openvino() -> Any:
    """Return the package openvino without its conversion tools, which report each import to Google Analytics."""
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # None forbids an import
    import openvino

    # In one thread: two threads that make the first array at the same time deadlock in OpenVINO's bindings.
    openvino.Tensor(np.zeros(1, np.float32))
    return openvino
