"""Computes a large batch in parts, because a network's memory grows with the number of rows that it computes."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil

import numpy as np

from model_service.models.engine import Engine
from model_service.models.saved_model import Signature
from model_service.models.tensors import Array

# Inside the network a number is a float32, whatever the type of the input.
_BYTES = 4


class SplitEngine:
    """An engine that computes at most `max_bytes` of input at a time, counted as float32. One row is never split.

    It splits only if the first dimension of all inputs and outputs is unknown (-1). Then the rows are independent, as
    in TensorFlow Serving's batching.
    """

    def __init__(self, engine: Engine, signature: Signature, max_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_bytes
        specs = [*signature.inputs.values(), *signature.outputs.values()]
        self._can_split = bool(max_bytes) and all(spec.shape is not None and spec.shape[:1] == (-1,) for spec in specs)

    @property
    def infer_requests(self) -> int:
        """See Engine."""
        return self._engine.infer_requests

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine."""
        size = sum(array.size for array in inputs.values()) * _BYTES
        if size <= self._max_bytes or not self._can_split:
            return self._engine.run(inputs, outputs)
        lengths = {array.shape[:1] for array in inputs.values()}
        if len(lengths) > 1 or () in lengths:
            return self._engine.run(inputs, outputs)
        ((rows,),) = lengths
        count = min(rows, ceil(size / self._max_bytes))
        ends = [rows * number // count for number in range(count + 1)]
        parts: list[dict[str, Array]] = []
        for start, end in pairwise(ends):
            part = self._engine.run({alias: array[start:end] for alias, array in inputs.items()}, outputs)
            if any(len(array) != end - start for array in part.values()):
                # The unknown dimension is not the batch size: compute the whole batch, and do not split later ones.
                self._can_split = False
                return self._engine.run(inputs, outputs)
            parts.append(part)
        return {alias: np.concatenate([part[alias] for part in parts]) for alias in outputs}
