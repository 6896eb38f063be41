"""Finds networks whose integer arithmetic would overflow on this processor.

OpenVINO multiplies the 8-bit numbers of a quantized network as integers. An x86 processor without VNNI adds two
products in 16 bits and limits the sum to 32767, but 255 * 127 * 2 is 64770. The answers are then wrong.
OpenVINO's documentation calls this the saturation issue, and asks for weights that use half of their steps. Those of
CAT-DOG do. Other networks are computed in float32 on such a processor: the answers are right, and come later.
"""

import functools
import platform
from pathlib import Path
from typing import Any

import numpy as np

from model_service.models.tensors import Array

# A weight may be up to 64 of 127 steps from zero: 255 * 64 * 2 = 32640.
_MOST_STEPS = 64
_STEPS_PER_SIDE = 127
_MOST_PART = (_MOST_STEPS + 0.25) / _STEPS_PER_SIDE
# OpenVINO's names of types with 8 bits.
_EIGHT_BITS = frozenset({"i8", "u8"})


@functools.cache
def adds_in_16_bits(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this is an x86 processor without VNNI, or one of which that isn't known."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return True
    return not {"avx512_vnni", "avx_vnni"}.intersection(flags)


def may_overflow(graph: Any) -> bool:
    """Return whether a weight of this OpenVINO model uses more than half of its 8-bit steps."""
    return any(_is_wide(node) for node in graph.get_ops())


def _is_wide(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "Constant" and node.get_element_type().get_type_name() in _EIGHT_BITS:
        weights = node.get_data().astype(np.int16)
        # Vectors are zero points and tables.
        return weights.ndim > 1 and bool(weights.size) and int(np.ptp(weights)) > 2 * _MOST_STEPS
    if kind != "FakeQuantize":
        return False
    weights, _, _, low, high = (_constant(node.input_value(index).get_node()) for index in range(5))
    if weights is None or low is None or high is None:
        return False
    return bool(np.any(np.abs(weights) > _MOST_PART * np.maximum(np.abs(low), np.abs(high))))


def _constant(node: Any) -> Array | None:
    """Return the value of a constant, which may be stored in fewer bits; None for all others."""
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.get_data(), np.float32) if node.get_type_name() == "Constant" else None
