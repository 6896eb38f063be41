"""What a serialized PredictRequest would take in memory, found without parsing it.

A parser makes an object of every field: of two bytes on the wire some tens or hundreds in memory. So the fields are
counted first; the values of a tensor, which are nearly all of an honest message, are stepped over.
"""

from collections.abc import Iterator

from model_service.errors import invalid_argument

# For all of a message but the values of its tensors: names, shapes, options.
MAX_OTHER_BYTES = 64 << 10
# Each string of a tensor is one, and each number that is not packed with the others.
MAX_FIELDS = 50_000

# Bytes in memory for each byte on the wire, at the most: the message, its parsed form, and what Python reads of it.
_OTHER_EXPANSION = 32
_CONTENT_EXPANSION = 3
_STRING_EXPANSION = 3
_FIELD_BYTES = 200

_INPUTS = 2
_MAP_VALUE = 2
_TENSOR_CONTENT = 4
_STRING_VAL = 8
# The same for TensorProto's packed numbers, by field. An integer of 4 or 8 bytes may be one byte on the wire, and a
# list that grows takes up to twice what it holds.
_PACKED_EXPANSION = {5: 3, 6: 3, 7: 11, 9: 3, 10: 19, 11: 4, 12: 3, 13: 11, 16: 11, 17: 19}

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_MALFORMED = "The message is no PredictRequest"


def memory_of(message: bytes) -> int:
    """Return how many bytes of memory this PredictRequest takes at most while it is read, itself included.

    The arrays that are made of its tensors come on top.

    Raises ServingError INVALID_ARGUMENT where it is none, or has more fields or names than any has.
    """
    return _Scan(message).memory


class _Scan:
    def __init__(self, message: bytes) -> None:
        self._message = message
        self._fields = 0
        self._other = 0
        self.memory = len(message)
        for number, kind, start, end in self._walk(0, len(message)):
            if number == _INPUTS and kind == _LENGTH_DELIMITED:
                self._scan_input(start, end)
            else:
                self._count_other(end - start)
        self.memory += self._other * _OTHER_EXPANSION + self._fields * _FIELD_BYTES

    def _scan_input(self, start: int, end: int) -> None:
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
            # All else is one number, which counts as a field.

    def _count_other(self, size: int) -> None:
        self._other += size + 2
        if self._other > MAX_OTHER_BYTES:
            raise invalid_argument(
                f"The request has more than {MAX_OTHER_BYTES} bytes of names, shapes and options beside its values"
            )

    def _walk(self, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number and kind of each field in this part of the message, and where its content starts and ends."""
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
                raise invalid_argument(_MALFORMED)
            if position > end:
                raise invalid_argument(_MALFORMED)
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
        raise invalid_argument(_MALFORMED)
