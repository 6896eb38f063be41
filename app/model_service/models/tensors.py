"""Converts TensorProto to numpy and back, with the rules of TensorFlow's `Tensor::FromProto`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from serving_common.tensorflow_protos import tensor_pb2, types_pb2

Array = np.ndarray[Any, np.dtype[Any]]

# How many values are converted at a time. As Python objects they take ten times the memory of an array.
_PART = 1 << 16


@dataclass(frozen=True)
class Kind:
    """One tensor type: TensorFlow's short name, numpy's dtype, and the TensorProto field for its values.

    `stored` is the dtype of the values in that field if it differs: small integers are stored as int32, half floats
    as the integers of their bits, a complex number as two floats.
    """

    number: int
    name: str
    dtype: np.dtype[Any]
    field: str
    stored: np.dtype[Any]

    @property
    def is_string(self) -> bool:
        """Whether the values are byte strings."""
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
    """Return TensorFlow's name for a DataType number: `float`, `uint8`, `string`..."""
    return types_pb2.DataType.Name(number).removeprefix("DT_").lower() if number in _NUMBERS else str(number)


_NUMBERS = frozenset(types_pb2.DataType.values())


def shape_text(shape: Sequence[int] | None) -> str:
    """Return a shape as TensorFlow's texts show it: `[?,3]`; None is an unknown rank."""
    return f"[{','.join('?' if size < 0 else str(size) for size in shape or ())}]"


@dataclass(frozen=True)
class Unread:
    """A tensor whose type, shape and content length are checked, and whose values are not converted yet."""

    tensor: tensor_pb2.TensorProto
    kind: Kind
    shape: tuple[int, ...]
    content: bytes

    def to_array(self) -> Array:
        """Return the values as an array with the tensor's shape and dtype. Strings are an object array of bytes.

        `tensor_content` gives a read-only view without a copy. In a typed field, too many values are cut off, too few
        are filled up with the last one, and none at all means zeros.
        """
        if self.content:
            values = np.frombuffer(self.content, self.kind.dtype.newbyteorder("<"))
            return values.astype(self.kind.dtype, copy=False).reshape(self.shape)
        return _from_values(getattr(self.tensor, self.kind.field), prod(self.shape), self.kind).reshape(self.shape)


def size_of(tensor: tensor_pb2.TensorProto) -> int:
    """Return the size of the tensor as an array, in bytes. A string counts as one pointer.

    Raises ValueError for an unknown type, and for a shape that is not fully known.
    """
    kind, shape = _kind_and_shape(tensor)
    return prod(shape) * kind.dtype.itemsize


def bytes_of(array: Array) -> int:
    """Return how many bytes an array takes in a message, about: of a string its length counts too."""
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype == np.object_ else 0)


def read(tensor: tensor_pb2.TensorProto) -> Unread:
    """Check type, shape and content length of a tensor without converting it.

    Raises ValueError as `size_of` does, and if the length of `tensor_content` does not match the shape.
    """
    kind, shape = _kind_and_shape(tensor)
    # Read it once: protobuf makes a copy at each access.
    content = tensor.tensor_content
    expected = prod(shape) * kind.dtype.itemsize
    if content and (kind.is_string or len(content) != expected):
        raise ValueError(f"tensor_content has {len(content)} bytes, not {expected}")
    return Unread(tensor, kind, shape, content)


def to_array(tensor: tensor_pb2.TensorProto, max_bytes: int) -> Array:
    """Return the tensor as an array, see Unread.to_array.

    Raises ValueError as `read` does, and if the array would have more than `max_bytes`. (A few bytes of shape can
    request any amount of memory.)
    """
    size = size_of(tensor)
    if size > max_bytes:
        raise ValueError(f"the tensor takes more than {max_bytes} bytes: {size}")
    return read(tensor).to_array()


def _kind_and_shape(tensor: tensor_pb2.TensorProto) -> tuple[Kind, tuple[int, ...]]:
    kind = KINDS.get(tensor.dtype)
    if kind is None:
        raise ValueError(f"type {type_name(tensor.dtype)} is not supported")
    sizes = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise ValueError("the shape is not fully known")
    return kind, sizes


def _from_values(values: Sequence[Any], count: int, kind: Kind) -> Array:
    """Return `count` values; if there are fewer, the last one is repeated."""
    size = kind.dtype.itemsize // kind.stored.itemsize if kind.dtype.kind == "c" else 1
    given = min(count, len(values) // size)
    array = np.zeros(count, kind.dtype)
    if kind.is_string:
        array[:] = b""
    for start in range(0, given, _PART):
        end = min(start + _PART, given)
        array[start:end] = _converted(np.array(values[start * size : end * size], kind.stored), kind)
    if 0 < given < count:
        array[given:] = array[given - 1]
    return array


def _converted(values: Array, kind: Kind) -> Array:
    if kind.stored == kind.dtype:
        return values
    if kind.dtype == np.float16:
        return values.astype(np.uint16).view(np.float16)
    if kind.dtype.kind == "c":
        return values.view(kind.dtype)
    # As a C++ cast does: values that don't fit lose their upper bits.
    return values.astype(kind.dtype)


def to_tensor(array: Array, number: int, as_content: bool = False) -> tensor_pb2.TensorProto:
    """Return `array` as a TensorProto of the DataType `number`, with its values in the typed field.

    TensorFlow Serving sends typed fields by default, and clients read `float_val` of the answer. With `as_content`
    numbers are sent as `tensor_content`; strings are not, because clients without TensorFlow could not read them.
    """
    kind = KINDS[number]
    tensor = tensor_pb2.TensorProto(dtype=number)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if as_content and not kind.is_string:
        tensor.tensor_content = array.astype(kind.dtype.newbyteorder("<"), copy=False).tobytes()
        return tensor
    flat = np.ascontiguousarray(array).reshape(-1)
    if kind.dtype == np.float16:
        flat = flat.view(np.uint16)
    elif kind.dtype.kind == "c":
        flat = flat.view(kind.stored)
    field = getattr(tensor, kind.field)
    for start in range(0, len(flat), _PART):
        field.extend(flat[start : start + _PART].tolist())
    return tensor
