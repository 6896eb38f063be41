"""Converts results to JSON. A predict response has one value per example (rows) or per output (columns)."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from model_service.errors import invalid_argument, resource_exhausted
from model_service.models.tensors import Array
from serving_common.tensorflow_protos import regression_pb2

# A value takes about 100 bytes of memory while it is converted to text.
MAX_VALUES = 500_000


def render(results: Mapping[str, Array], is_row_format: bool) -> bytes:
    """Return the body: `predictions` with one value per example, or `outputs` with one value per output.

    Raises ServingError if the outputs have no common batch size, or more than MAX_VALUES values.
    """
    count = sum(array.size for array in results.values())
    if count > MAX_VALUES:
        raise resource_exhausted(f"The outputs have {count} values; an answer in JSON can have {MAX_VALUES}")
    columns = {alias: _to_lists(alias, results[alias]) for alias in sorted(results)}
    if not is_row_format:
        answer: Any = {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    else:
        _check_batch(results)
        names = list(columns)
        rows = zip(*columns.values(), strict=True)
        answer = {"predictions": [dict(zip(names, row, strict=True)) if len(names) > 1 else row[0] for row in rows]}
    return json.dumps(answer).encode()


def render_result(result: Any) -> bytes:
    """Return the body for a ClassificationResult or RegressionResult: a list of `[label, score]`, or a value, each."""
    if isinstance(result, regression_pb2.RegressionResult):
        results: list[Any] = [_shortest(np.float32(one.value)) for one in result.regressions]
    else:
        results = [
            [[one.label, _shortest(np.float32(one.score))] for one in example.classes]
            for example in result.classifications
        ]
    return json.dumps({"results": results}).encode()


def _check_batch(results: Mapping[str, Array]) -> None:
    sizes = {alias: array.shape[:1] for alias, array in results.items()}
    expected = next(iter(sizes.values()))
    for alias, size in sizes.items():
        if not size:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        if size[0] < 1:
            raise invalid_argument(f"Tensor name: {alias} has invalid batch size: {size[0]}")
        if size != expected:
            raise invalid_argument(
                f"Tensor name: {alias} has inconsistent batch size: {size[0]} expecting: {expected[0]}"
            )


def _to_lists(alias: str, array: Array) -> Any:
    if array.dtype.kind == "c":
        raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype.name}")
    if array.dtype.kind == "f":
        leaves = [_shortest(value) for value in array.reshape(-1)]
    elif array.dtype == np.object_:
        leaves = [_text(value, alias.endswith("_bytes")) for value in array.reshape(-1)]
    else:
        return array.tolist()
    boxed = np.empty(len(leaves), np.object_)
    boxed[:] = leaves
    return boxed.reshape(array.shape).tolist()


def _shortest(value: Any) -> float:
    """Return the value with 6 significant digits if that is exact, else with 9 (float32) or 17 (float64).

    Without this, the float32 nearest to 0.2 would be printed as the double 0.20000000298023224.
    """
    text = f"{value:.6g}"
    if value.dtype.type(text) != value:
        text = f"{value:.{9 if value.dtype.itemsize <= 4 else 17}g}"
    return float(text)


def _text(value: bytes, as_bytes: bool) -> Any:
    if as_bytes:
        return {"b64": base64.b64encode(value).decode()}
    # JSON strings hold UTF-8 only. For other bytes an output's name must end in _bytes.
    return value.decode(errors="replace")
