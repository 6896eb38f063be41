"""OpenVINO, imported in a way that its threads and its maker's statistics do no harm; see engines/openvino.py."""

import sys
from typing import Any

import numpy as np


def import_openvino() -> Any:
    """OpenVINO without its conversion tools, which report each import to their maker, and ready for threads."""
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # None forbids an import
    import openvino

    # By one thread: two that bring its bindings their first array at once wait for each other for ever.
    openvino.Tensor(np.zeros(1, np.float32))
    return openvino
