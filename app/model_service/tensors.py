"""TensorProto to numpy and back, with the exact rules of TensorFlow's `Tensor::FromProto`."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tensorflow_messages import tensor_pb2, types_pb2

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Kind:
    """One tensor type: TensorFlow's short name, numpy's dtype, and the TensorProto field that holds values.

    `stored` is the dtype of one item of that field where it differs from the tensor's own: small integers travel
    as int32, half floats as the integers of their bits, a complex number as two floats.
    """

    number: int
    name: str
    dtype: np.dtype[Any]
    field: str
    stored: np.dtype[Any]

    @property
    def is_string(self) -> bool:
        """Whether the values are bytes of any length."""
        return self.dtype == np.object_


def _kind(name: str, dtype: str, field: str, stored: str | None = None) -> Kind:
    number = types_pb2.DataType.Value(f"DT_{name.upper()}")
    return Kind(number, name, np.dtype(dtype), field, np.dtype(stored or dtype))


KINDS = {
    kind.number: kind
    for kind in (
        _kind("float", "float32", "float_val"),
        _kind("double", "float64", "double_val"),
        _kind("half", "float16", "half_val", "int32"),
        _kind("int8", "int8", "int_val", "int32"),
        _kind("int16", "int16", "int_val", "int32"),
        _kind("int32", "int32", "int_val"),
        _kind("int64", "int64", "int64_val"),
        _kind("uint8", "uint8", "int_val", "int32"),
        _kind("uint16", "uint16", "int_val", "int32"),
        _kind("uint32", "uint32", "uint32_val"),
        _kind("uint64", "uint64", "uint64_val"),
        _kind("bool", "bool", "bool_val"),
        _kind("complex64", "complex64", "scomplex_val", "float32"),
        _kind("complex128", "complex128", "dcomplex_val", "float64"),
        _kind("string", "object", "string_val"),
    )
}


def type_name(number: int) -> str:
    """Return the name TensorFlow prints for a DataType number: `float`, `uint8`, `string`..."""
    return types_pb2.DataType.Name(number).removeprefix("DT_").lower() if number in _NUMBERS else str(number)


_NUMBERS = frozenset(types_pb2.DataType.values())


def to_array(tensor: tensor_pb2.TensorProto, max_bytes: int) -> Array:
    """Return the tensor's values as an array of its own shape and dtype; strings as an object array of bytes.

    Raw `tensor_content` gives a read-only view of the message. Of the typed values too many are cut off, too
    few are filled up with the last one, and none at all means zeros.
    Raises ValueError for an unknown type, an invalid shape, content of another length than the shape says, and
    a tensor of more than `max_bytes` (a shape of a few bytes can ask for any amount of memory).
    """
    kind = KINDS.get(tensor.dtype)
    if kind is None:
        raise ValueError(f"type {type_name(tensor.dtype)} is not supported")
    shape = _checked_shape(tensor.tensor_shape, kind, max_bytes)
    # Read once: each time gives a new copy.
    content = tensor.tensor_content
    if content:
        return _from_content(content, kind, shape)
    return _filled(_field_values(tensor, kind), prod(shape), kind).reshape(shape)


def _checked_shape(shape: Any, kind: Kind, max_bytes: int) -> tuple[int, ...]:
    sizes = tuple(dim.size for dim in shape.dim)
    if shape.unknown_rank or any(size < 0 for size in sizes):
        raise ValueError("the shape is not fully known")
    if prod(sizes) * kind.dtype.itemsize > max_bytes:
        raise ValueError(f"the shape {list(sizes)} takes more than {max_bytes} bytes")
    return sizes


def _from_content(content: bytes, kind: Kind, shape: tuple[int, ...]) -> Array:
    expected = prod(shape) * kind.dtype.itemsize
    if kind.is_string or len(content) != expected:
        raise ValueError(f"tensor_content has {len(content)} bytes, not {expected}")
    return np.frombuffer(content, kind.dtype.newbyteorder("<")).astype(kind.dtype, copy=False).reshape(shape)


def _field_values(tensor: tensor_pb2.TensorProto, kind: Kind) -> Array:
    values = np.array(getattr(tensor, kind.field), kind.stored)
    if kind.stored == kind.dtype:
        return values
    if kind.dtype == np.float16:
        return values.astype(np.uint16).view(np.float16)
    if kind.dtype.kind == "c":
        return values[: len(values) // 2 * 2].view(kind.dtype)
    # Like the C++ cast: values that don't fit lose their upper bits.
    return values.astype(kind.dtype)


def _filled(values: Array, count: int, kind: Kind) -> Array:
    if len(values) >= count:
        return values[:count]
    zero: Any = b"" if kind.is_string else 0
    filled = np.full(count, values[-1] if len(values) else zero, kind.dtype)
    filled[: len(values)] = values
    return filled


def to_tensor(array: Array, number: int) -> tensor_pb2.TensorProto:
    """Return `array` as a TensorProto of the DataType `number`, its values in the typed field.

    Typed fields are what TensorFlow Serving sends by default, and clients read `float_val` of the answer.
    """
    kind = KINDS[number]
    tensor = tensor_pb2.TensorProto(dtype=number)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    flat = np.ascontiguousarray(array).reshape(-1)
    if kind.dtype == np.float16:
        flat = flat.view(np.uint16)
    elif kind.dtype.kind == "c":
        flat = flat.view(kind.stored)
    getattr(tensor, kind.field).extend(flat.tolist())
    return tensor
