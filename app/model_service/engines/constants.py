"""Answers a signature whose outputs are constants of the graph, without a runtime.

With such a signature a model returns text that belongs to it, such as a recipe or labels. OpenVINO does not support
strings, and TensorFlow would have to be imported for them. The supported nodes are Const, Identity, and Fill with a
constant value. The size of Fill is a constant or the shape of an input.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from model_service.errors import invalid_argument
from model_service.models.saved_model import SavedModel, Signature
from model_service.models.tensors import KINDS, Array, to_array

# The limit of a constant in memory: the default size of the largest message.
_MAX_BYTES = 16 << 20
# The limit of links between a constant and an output. More links mean a cycle.
_MOST_LINKS = 100

Value = Callable[[Mapping[str, Array]], Array]


class NoConstant(Exception):
    """An output is not a constant."""


class ConstantEngine:
    """An engine with constant outputs. It computes nothing, so a warm-up is not needed."""

    infer_requests = 0

    def __init__(self, outputs: Mapping[str, Value]) -> None:
        self._outputs = outputs

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine."""
        return {alias: self._outputs[alias](inputs) for alias in outputs}


def load(model: SavedModel, signature: Signature) -> ConstantEngine:
    """Read the constants of `signature`. Raises NoConstant if an output is not a constant."""
    if not signature.outputs:
        raise NoConstant
    nodes = {node.name: node for node in model.graph().graph_def.node}
    reader = _Reader(nodes, {spec.name: alias for alias, spec in signature.inputs.items()})
    values: dict[str, Value] = {}
    for alias, spec in signature.outputs.items():
        values[alias], dtype = reader.value(spec.name)
        if dtype != KINDS[spec.dtype].dtype:
            raise NoConstant
    return ConstantEngine(values)


class _Reader:
    def __init__(self, nodes: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._inputs = inputs

    def value(self, tensor: str) -> tuple[Value, np.dtype[Any]]:
        """Return a function that gives a tensor's value, and its dtype."""
        node = self._source(tensor)
        if node.op == "Const":
            array = _constant(node)
            return lambda _: array, array.dtype
        if node.op != "Fill" or len(node.input) != 2:
            raise NoConstant
        filler = _constant(self._source(node.input[1]))
        if filler.size != 1:
            raise NoConstant
        shape = self._shape(node.input[0])
        return lambda inputs: _filled(shape(inputs), filler), filler.dtype

    def _shape(self, tensor: str) -> Callable[[Mapping[str, Array]], tuple[int, ...]]:
        node = self._source(tensor)
        if node.op == "Shape" and len(node.input) == 1:
            alias = self._input(node.input[0])
            return lambda inputs: inputs[alias].shape
        array = _constant(node)
        if array.ndim != 1 or array.dtype.kind != "i" or (array < 0).any():
            raise NoConstant
        sizes = tuple(array.tolist())
        return lambda _: sizes

    def _source(self, tensor: str) -> Any:
        """Return the node that a tensor's value comes from. Identity nodes are skipped."""
        for _ in range(_MOST_LINKS):
            # A signature's input may replace any node.
            if _full_name(tensor) in self._inputs:
                raise NoConstant
            node = self._node(tensor)
            if node.op != "Identity" or not node.input:
                return node
            tensor = node.input[0]
        raise NoConstant

    def _input(self, tensor: str) -> str:
        for _ in range(_MOST_LINKS):
            if alias := self._inputs.get(_full_name(tensor)):
                return alias
            node = self._node(tensor)
            if node.op != "Identity" or not node.input:
                break
            tensor = node.input[0]
        raise NoConstant

    def _node(self, tensor: str) -> Any:
        name, _, port = _full_name(tensor).rpartition(":")
        node = self._nodes.get(name)
        if node is None or port != "0":
            raise NoConstant
        return node


def _full_name(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _constant(node: Any) -> Array:
    if node.op != "Const" or "value" not in node.attr:
        raise NoConstant
    try:
        array = to_array(node.attr["value"].tensor, _MAX_BYTES)
    except ValueError as exc:
        raise NoConstant from exc
    # A copy: an array that is read from a message shares the memory of the whole message, with its weights.
    return array.copy()


def _filled(shape: tuple[int, ...], filler: Array) -> Array:
    try:
        return np.full(shape, filler.reshape(-1)[0], filler.dtype)
    except (MemoryError, ValueError) as exc:
        raise invalid_argument(f"An output of shape {list(shape)} takes too much memory") from exc
