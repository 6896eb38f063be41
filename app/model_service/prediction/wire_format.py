"""Estimates the memory of a serialized request without parsing it.

A parser creates an object for each field, so two bytes on the wire may become hundreds in memory. That is why the
fields are counted first. The values of tensors are skipped; in a normal message they are nearly all of its bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from model_service.errors import invalid_argument
from model_service.models.tensors import Array

# Limit for everything except the values of tensors: names, shapes, options.
MAX_OTHER_BYTES = 64 << 10
# Each string of a tensor is a field, and so is each number that is not packed.
MAX_FIELDS = 50_000

# Upper limits, in bytes of memory per byte on the wire: the message, its parsed form, and Python's copies.
_OTHER_EXPANSION = 32
_CONTENT_EXPANSION = 3
_STRING_EXPANSION = 3
# Their copies, and what the graph reads in them: a number has eight bytes there, and one or more on the wire.
_EXAMPLE_EXPANSION = 8
_FIELD_BYTES = 200

_INPUTS = 2
_MAP_VALUE = 2
_TENSOR_CONTENT = 4
_STRING_VAL = 8
# Of an Input, and of a list of examples in it. Only the second one has a context.
_EXAMPLES, _EXAMPLES_WITH_CONTEXT = 1, 2
_EXAMPLE, _CONTEXT = 1, 2
# The same for the packed numbers of a TensorProto, by field number. A number of 4 or 8 bytes may have one byte on the
# wire, and a list that grows allocates up to twice its size.
_PACKED_EXPANSION = {5: 3, 6: 3, 7: 11, 9: 3, 10: 19, 11: 4, 12: 3, 13: 11, 16: 11, 17: 19}

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


@dataclass
class Examples:
    """The serialized examples of a request, each to be read after the contexts. Nothing of the message is copied yet.

    `head` is the request without them, and `memory` an upper limit of the memory for reading them, in bytes.
    """

    parts: list[bytes | memoryview] = field(default_factory=list)
    contexts: list[bytes | memoryview] = field(default_factory=list)
    head: bytes = b""
    memory: int = 0

    @property
    def size(self) -> int:
        """How many bytes the array has."""
        return sum(map(len, self.parts)) + sum(map(len, self.contexts)) * len(self.parts)

    def to_array(self) -> Array:
        """Return the examples as an array of bytes."""
        context = b"".join(self.contexts)
        array = np.empty(len(self.parts), np.object_)
        array[:] = [b"".join((context, part)) for part in self.parts]
        return array


def memory_of(message: bytes) -> int:
    """Return an upper limit of the memory for reading this PredictRequest, in bytes, with the message itself.

    The arrays that are made of its tensors are not included.

    Raises ServingError INVALID_ARGUMENT if it is no PredictRequest, or if it has too many fields or bytes of names.
    """
    scan = _Scan(message, "PredictRequest")
    scan.read(scan.scan_tensor_map)
    return scan.memory


def read_examples(message: bytes, name: str) -> Examples:
    """Return the examples of a ClassificationRequest, RegressionRequest or MultiInferenceRequest, its `name`.

    Raises ServingError INVALID_ARGUMENT as `memory_of` does.
    """
    scan = _Scan(message, name)
    examples = scan.examples
    examples.head = scan.read(scan.scan_examples)
    examples.memory = scan.memory + examples.size * _EXAMPLE_EXPANSION
    return examples


class _Scan:
    def __init__(self, message: bytes, name: str) -> None:
        self._message = message
        self._malformed = f"The message is not a valid {name}"
        self._fields = 0
        self._other = 0
        self.examples = Examples()
        self.memory = len(message)

    def read(self, scan_input: Callable[[int, int], None]) -> bytes:
        """Count the whole message; return it without the inputs, which `scan_input` counts."""
        others: list[bytes] = []
        begin = 0
        for number, kind, start, end in self._walk(0, len(self._message)):
            if number == _INPUTS and kind == _LENGTH_DELIMITED:
                scan_input(start, end)
            else:
                self._count_other(end - start)
                others.append(self._message[begin:end])
            begin = end
        self.memory += self._other * _OTHER_EXPANSION + self._fields * _FIELD_BYTES
        return b"".join(others)

    def scan_examples(self, start: int, end: int) -> None:
        """Collect the examples of an Input: a list of them, or a list with a context for all."""
        view = memoryview(self._message)
        found = {_EXAMPLE: self.examples.parts, _CONTEXT: self.examples.contexts}
        for number, kind, first, last in self._walk(start, end):
            if kind != _LENGTH_DELIMITED or number not in (_EXAMPLES, _EXAMPLES_WITH_CONTEXT):
                self._count_other(last - first)
                continue
            for inner, inner_kind, at, to in self._walk(first, last):
                if inner_kind == _LENGTH_DELIMITED and 0 < inner <= number:
                    found[inner].append(view[at:to])
                else:
                    self._count_other(to - at)

    def scan_tensor_map(self, start: int, end: int) -> None:
        """Count an entry of a PredictRequest's inputs."""
        self._count_other(0)
        for number, kind, first, last in self._walk(start, end):
            if number == _MAP_VALUE and kind == _LENGTH_DELIMITED:
                self._scan_tensor(first, last)
            else:
                self._count_other(last - first)

    def _scan_tensor(self, start: int, end: int) -> None:
        for number, kind, first, last in self._walk(start, end):
            size = last - first
            if kind == _LENGTH_DELIMITED and number == _TENSOR_CONTENT:
                self.memory += size * (_CONTENT_EXPANSION - 1)
            elif kind == _LENGTH_DELIMITED and number == _STRING_VAL:
                self.memory += size * (_STRING_EXPANSION - 1)
            elif kind == _LENGTH_DELIMITED and number in _PACKED_EXPANSION:
                self.memory += size * (_PACKED_EXPANSION[number] - 1)
            elif kind == _LENGTH_DELIMITED:
                self._count_other(size)
            # Everything else is a single number; it is counted as a field.

    def _count_other(self, size: int) -> None:
        self._other += size + 2
        if self._other > MAX_OTHER_BYTES:
            raise invalid_argument(f"The request has more than {MAX_OTHER_BYTES} bytes of names, shapes and options")

    def _walk(self, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, start and end of each field in this part of the message."""
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise invalid_argument(
                    f"The request has more than {MAX_FIELDS} fields: send numbers as tensor_content, strings in parts"
                )
            tag, position = self._varint(position, end)
            kind = tag & 7
            start = position
            if kind == _LENGTH_DELIMITED:
                size, start = self._varint(position, end)
                position = start + size
            elif kind == _VARINT:
                _, position = self._varint(position, end)
            elif kind == _FIXED32:
                position += 4
            elif kind == _FIXED64:
                position += 8
            else:
                raise invalid_argument(self._malformed)
            if position > end:
                raise invalid_argument(self._malformed)
            yield tag >> 3, kind, start, position

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                break
            byte = self._message[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
        raise invalid_argument(self._malformed)
