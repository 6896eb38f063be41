"""Converts the JSON of a request to arrays or examples. TensorFlow Serving's two formats of Predict are supported.

The row format (`instances`) has one JSON value per example, the column format (`inputs`) one per input. A dense tensor
is a nested list. Bytes are `{"b64": "..."}`. NaN, Infinity and -Infinity are allowed; Python's parser accepts them.
"""

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc
import numpy as np

from model_service.api.json_limits import quote
from model_service.errors import ServingError, invalid_argument
from model_service.models.saved_model import Signature, TensorSpec
from model_service.models.tensors import KINDS, Array, Kind, shape_text
from model_service.prediction.wire_format import Examples
from serving_common.tensorflow_protos import example_pb2

# numpy's limit; TensorFlow's is higher.
_MAX_RANK = 64
_TYPE_NAMES = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}
# The Python types that a value may have, by numpy's kind of the input. (In Python a bool is an int; in JSON it is not.)
_LEAF_TYPES: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}}
_INT64 = range(-(2**63), 2**63)
_MAX_FLOAT = 2**128


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the document's `signature_name`, or "" if it has none; raises ServingError if it is not a string."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {quote(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def to_inputs(document: Mapping[str, Any], signature: Signature) -> tuple[dict[str, Array], bool]:
    """Return one array per input, and whether the request has the row format; raises ServingError."""
    if "instances" not in document:
        if "inputs" not in document:
            raise invalid_argument("Missing 'inputs' or 'instances' key")
        return _from_columns(document["inputs"], signature), False
    problem = None
    if "inputs" in document:
        problem = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
    elif not isinstance(document["instances"], list):
        problem = "Expecting 'instances' to be an list/array"
    elif not document["instances"]:
        problem = "No values in 'instances' array"
    if problem:
        raise invalid_argument(f"JSON Value: {quote(document)} {problem}")
    return _from_rows(document["instances"], signature), True


def to_examples(document: Mapping[str, Any]) -> Examples:
    """Return the examples of a classify or regress request, with their context; raises ServingError."""
    contexts = [_example(document["context"])] if "context" in document else []
    problem = None
    if "examples" not in document:
        problem = "When method is classify, key 'examples' is expected and was not found"
    elif not isinstance(document["examples"], list):
        problem = "Expecting 'examples' value to be an list/array"
    elif not document["examples"]:
        problem = "'examples' value is an empty array"
    if problem:
        raise invalid_argument(f"JSON Value: {quote(document)} {problem}")
    return Examples([_example(value) for value in document["examples"]], contexts)


def _example(value: Any) -> bytes | memoryview:
    """Return a JSON object of features as a serialized `tf.Example`."""
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_type_of(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for leaf in content if isinstance(content, list) else [content]:
            kind, converted = _feature_value(name, leaf)
            before = feature.WhichOneof("kind")
            if before not in (None, kind):
                kind_before = (before or "").removesuffix("_list")
                raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {kind_before}")
            getattr(feature, kind).value.append(converted)
    serialized: bytes = example.SerializeToString()
    return serialized


def _feature_value(name: str, leaf: Any) -> tuple[str, bytes | int | float]:
    if isinstance(leaf, str) or _is_bytes(leaf):
        return "bytes_list", _bytes(leaf)
    if isinstance(leaf, int) and leaf in _INT64:
        return "int64_list", int(leaf)
    if isinstance(leaf, int) and 0 < leaf < 2**64:
        raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(leaf, (int, float)):
        # A whole number beyond 64 bits is a float in JSON.
        return "float_list", float(leaf) if abs(leaf) < _MAX_FLOAT else math.copysign(math.inf, leaf)
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {_type_of(leaf)}")


def _from_columns(value: Any, signature: Signature) -> dict[str, Array]:
    if isinstance(value, dict) and not _is_bytes(value):
        missing = sorted(signature.inputs.keys() - signature.defaults.keys() - value.keys())
        if missing:
            raise invalid_argument(f"Missing named input: {missing[0]} in 'inputs' object.")
        return {alias: _dense(value[alias], spec) for alias, spec in signature.inputs.items() if alias in value}
    if len(signature.inputs) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    return {alias: _dense(value, spec) for alias, spec in signature.inputs.items()}


def _from_rows(rows: list[Any], signature: Signature) -> dict[str, Array]:
    named = isinstance(rows[0], dict) and not _is_bytes(rows[0])
    if len(signature.inputs) > 1 and not named:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if not named:
        # One conversion for all rows takes a tenth of the time. If it fails, the loop below finds the wrong row.
        with suppress(ServingError):
            return {alias: _dense(rows, spec) for alias, spec in signature.inputs.items()}
    columns: dict[str, _Column] = {}
    for number, row in enumerate(rows):
        for alias, value in _named_row(row, number, named, signature).items():
            if alias not in columns:
                columns[alias] = _Column(signature.inputs[alias], value)
            try:
                columns[alias].append(value)
            except ServingError as exc:
                key = f" key: {alias}" if named else ""
                raise invalid_argument(
                    f"Failed to process element: {number}{key} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {exc.message}"
                ) from exc
    return {alias: column.to_array() for alias, column in columns.items()}


def _named_row(row: Any, number: int, named: bool, signature: Signature) -> Mapping[str, Any]:
    is_object = isinstance(row, dict) and not _is_bytes(row)
    if named and not is_object:
        raise invalid_argument(f"Expecting object but got list at item {number} of input list")
    if not named:
        if is_object:
            raise invalid_argument(f"Expecting value/list but got object at item {number} of input list")
        return {alias: row for alias in signature.inputs}
    if not signature.inputs.keys() - signature.defaults.keys() <= row.keys() <= signature.inputs.keys():
        raise invalid_argument(
            f"Failed to process element: {number} of 'instances' list. JSON object: {quote(row)} "
            f"must only have keys: {','.join(sorted(signature.inputs))}"
        )
    result: Mapping[str, Any] = row
    return result


class _Column:
    """The values of one input, row by row. All rows must have the shape of the first one."""

    def __init__(self, spec: TensorSpec, first: Any) -> None:
        self._kind = KINDS[spec.dtype]
        self._shape = _shape_of(first)
        self._rows = 0
        self._flat: list[Any] = []

    def append(self, value: Any) -> None:
        """Add a row; raises ServingError if it has another shape, or a value that the type can't hold."""
        shape = _shape_of(value)
        flat: list[Any] = []
        _flatten(value, shape, 0, flat)
        flat = _values(flat, self._kind)
        if shape != self._shape:
            raise invalid_argument(f"Expecting shape {shape_text(self._shape)} but got: {shape_text(shape)}")
        self._flat += flat
        self._rows += 1

    def to_array(self) -> Array:
        """Return the rows as one array."""
        return np.array(self._flat, self._kind.dtype).reshape((self._rows, *self._shape))


def _dense(value: Any, spec: TensorSpec) -> Array:
    """Return nested lists as an array."""
    kind, shape = KINDS[spec.dtype], _shape_of(value)
    flat: list[Any] = []
    _flatten(value, shape, 0, flat)
    return np.array(_values(flat, kind), kind.dtype).reshape(shape)


def _shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of nested lists. The first element of each level gives the length of the next."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > _MAX_RANK:
            raise invalid_argument(f"A tensor has at most {_MAX_RANK} dimensions")
        value = value[0] if value else None
    return tuple(shape)


def _flatten(value: Any, shape: tuple[int, ...], level: int, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {quote(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        flat.append(value)
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    if level == len(shape) - 1 and list not in map(type, value):
        flat.extend(value)
        return
    for item in value:
        _flatten(item, shape, level + 1, flat)


def _values(flat: list[Any], kind: Kind) -> list[Any]:
    """Return the values in a form that numpy accepts; raises ServingError for a value that the type can't hold."""
    if kind.is_string:
        return [_bytes(leaf) for leaf in flat]
    if kind.dtype.kind == "c":
        raise ServingError(
            grpc.StatusCode.UNIMPLEMENTED, f"Conversion of JSON Value: {quote(flat[:1])} to type: {kind.name}"
        )
    allowed = _LEAF_TYPES[kind.dtype.kind]
    # In most requests all types are right. Then the set shows this without a check of each value.
    if not set(map(type, flat)) <= allowed:
        raise _type_error(next(leaf for leaf in flat if type(leaf) not in allowed), kind)
    for leaf in _out_of_range(flat, kind):
        if kind.dtype.kind == "f":
            raise invalid_argument(
                f"Cannot convert JSON value: {quote(leaf)} to {kind.name} without loss of precision."
            )
        raise _type_error(leaf, kind)
    return flat


def _out_of_range(flat: list[Any], kind: Kind) -> Iterable[Any]:
    if kind.dtype.kind in "iu":
        limits = np.iinfo(kind.dtype)
        return (leaf for leaf in flat if not limits.min <= leaf <= limits.max)
    if kind.dtype.kind == "f":
        largest = float(np.finfo(kind.dtype).max)
        whole = 2 ** (np.finfo(kind.dtype).nmant + 1) - 1
        return (
            leaf for leaf in flat if (abs(leaf) > whole if type(leaf) is int else largest < abs(leaf) < float("inf"))
        )
    return ()


def _type_error(leaf: Any, kind: Kind) -> ServingError:
    return invalid_argument(f"JSON Value: {quote(leaf)} Type: {_type_of(leaf)} is not of expected type: {kind.name}")


def _type_of(leaf: Any) -> str:
    return str(leaf) if isinstance(leaf, bool) else _TYPE_NAMES[type(leaf)]


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _bytes(leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if not isinstance(leaf, dict):
        raise _type_error(leaf, KINDS[_STRING])
    if not _is_bytes(leaf):
        raise invalid_argument(f"JSON Value: {quote(leaf)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(leaf["b64"], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise invalid_argument("Unable to base64 decode") from exc


_STRING = next(kind.number for kind in KINDS.values() if kind.is_string)
