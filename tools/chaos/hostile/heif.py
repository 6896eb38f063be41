"""HEIF: there is no encoder, so the files are made from a sample picture, with other sizes or structures."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tools.chaos.hostile import hostile
from tools.chaos.hostile.bits import Bits
from tools.service import PROJECT

SAMPLE = PROJECT / "unit_test" / "data" / "cat_1.heic"
# The sample's size.
SHOWN = 452, 300
SEQUENCE = 33


def box(name: bytes, *contents: bytes) -> bytes:
    data = b"".join(contents)
    return struct.pack(">I", 8 + len(data)) + name + data


def full_box(name: bytes, *contents: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *contents)


@dataclass(frozen=True)
class Item:
    """An item of the file: its kind, its data, the numbers of its properties (from 1), and the items it consists of."""

    kind: bytes
    data: bytes
    properties: Sequence[int]
    parts: Sequence[int] = ()


def heif(items: Sequence[Item], properties: Sequence[bytes]) -> bytes:
    """Return a file with these items, numbered from 1. The last one is the picture. Equal data is stored once."""
    data = dict.fromkeys(item.data for item in items)
    first = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    infos = [
        full_box(b"infe", struct.pack(">HH4sB", number, 0, item.kind, 0), version=2)
        for number, item in enumerate(items, 1)
    ]
    references = [
        box(b"dimg", struct.pack(f">HH{len(item.parts)}H", number, len(item.parts), *item.parts))
        for number, item in enumerate(items, 1)
        if item.parts
    ]
    associations = b"".join(
        struct.pack(">HB", number, len(item.properties)) + bytes(0x80 | one for one in item.properties)
        for number, item in enumerate(items, 1)
    )

    def meta(offset: int) -> bytes:
        offsets = {}
        for part in data:
            offsets[part] = offset
            offset += len(part)
        places = [
            struct.pack(">HHHII", number, 0, 1, offsets[item.data], len(item.data))
            for number, item in enumerate(items, 1)
        ]
        return full_box(
            b"meta",
            full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", struct.pack(">H", len(items))),
            full_box(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)), *places),
            full_box(b"iinf", struct.pack(">H", len(items)), *infos),
            full_box(b"iref", *references) if references else b"",
            box(
                b"iprp",
                box(b"ipco", *properties),
                full_box(b"ipma", struct.pack(">I", len(items)), associations),
            ),
        )

    head = first + meta(0)
    return first + meta(len(head) + 8) + box(b"mdat", *data)


def size(width: int, height: int) -> bytes:
    return full_box(b"ispe", struct.pack(">II", width, height))


def sample() -> tuple[bytes, bytes]:
    """Return the sample's decoder settings (box `hvcC`) and its coded picture."""
    file = SAMPLE.read_bytes()
    at = file.index(b"hvcC") - 4
    length = struct.unpack(">I", file[at : at + 4])[0]
    data = file.index(b"mdat") + 4
    return file[at : at + length], file[data:]


def with_coded_size(settings: bytes, width: int, height: int) -> bytes:
    """Return the decoder settings with another coded size (H.265, 7.3.2.2). The sides are multiples of 8."""
    at, count = 8 + 23, settings[8 + 22]
    parts = [settings[8:at]]
    for _ in range(count):
        kind = settings[at] & 0x3F
        length = struct.unpack(">H", settings[at + 3 : at + 5])[0]
        unit = settings[at + 5 : at + 5 + length]
        if kind == SEQUENCE:
            unit = _resized(unit, width, height)
        parts.append(settings[at : at + 3] + struct.pack(">H", len(unit)) + unit)
        at += 5 + length
    return box(b"hvcC", *parts)


def _resized(unit: bytes, width: int, height: int) -> bytes:
    payload = unit[2:].replace(b"\0\0\3", b"\0\0")
    text = "".join(f"{byte:08b}" for byte in payload)
    # Id and flags, then the general profile and level.
    fixed = 8 + 96
    at = fixed
    numbers = []
    # The id of the set, the chroma format, width and height.
    for _ in range(4):
        zeros = text.index("1", at) - at
        numbers.append(int(text[at + zeros : at + 2 * zeros + 1], 2) - 1)
        at += 2 * zeros + 1
    bits = Bits().add(int(text[:fixed], 2), fixed)
    for number in (*numbers[:2], width, height):
        bits.add_golomb(number)
    rest = text[at:]
    changed = bits.add(int(rest, 2), len(rest)).to_bytes()
    escaped = bytearray()
    for byte in changed:
        # An additional byte marks values that would look like the start of a unit.
        if byte <= 3 and escaped[-2:] == b"\0\0":
            escaped.append(3)
        escaped.append(byte)
    return unit[:2] + bytes(escaped)


def grid(columns: int, rows: int, width: int, height: int) -> bytes:
    """Return the data of an item of kind `grid`: the number of tiles, and the size of the whole."""
    return struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)


def tiled(columns: int, rows: int, width: int, height: int, told: tuple[int, int]) -> bytes:
    """Return a grid of the sample; ``told`` is the size in the file's header."""
    settings, data = sample()
    count = columns * rows
    whole = Item(b"grid", grid(columns, rows, width, height), [3], range(1, count + 1))
    return heif([Item(b"hvc1", data, [1, 2])] * count + [whole], [settings, size(*SHOWN), size(*told)])


@hostile("HEIF: 51 MP out of one small picture, 368 times")
def repeated() -> bytes:
    """All tiles of the grid have the same data of 30 KB, but each is decoded."""
    whole = 16 * SHOWN[0], 23 * SHOWN[1]
    return tiled(16, 23, *whole, whole)


@hostile("HEIF: a grid of 129 MP that says that it is of 16 x 16")
def hidden_grid() -> bytes:
    """A grid has its size in two places, and they differ."""
    return tiled(25, 38, 25 * SHOWN[0], 38 * SHOWN[1], (16, 16))


@hostile("HEIF: 144 MP that say that they are 16 x 16")
def hidden_size() -> bytes:
    """The size in the file's header differs from that in the coded picture."""
    settings, data = sample()
    return heif([Item(b"hvc1", data, [1, 2])], [with_coded_size(settings, 12_000, 12_000), size(16, 16)])


@hostile("HEIF: 51 MP of which one strip was coded")
def mostly_missing() -> bytes:
    """The decoder allocates memory for all of it and fills it with grey."""
    settings, data = sample()
    return heif([Item(b"hvc1", data, [1, 2])], [with_coded_size(settings, 7136, 7136), size(7132, 7132)])


@hostile("HEIF: grids within grids")
def nested() -> bytes:
    """Each of ten levels consists of four items of the level below: a million pictures to decode."""
    settings, data = sample()
    items = [Item(b"hvc1", data, [1, 2])] * 4
    for level in range(1, 11):
        below = range(4 * level - 3, 4 * level + 1)
        items += [Item(b"grid", grid(2, 2, *SHOWN), [2], below)] * 4
    return heif(items, [settings, size(*SHOWN)])


@hostile("HEIF: a grid that is a part of itself")
def loop() -> bytes:
    """A decoder that follows the parts never ends."""
    settings, data = sample()
    whole = Item(b"grid", grid(1, 2, 452, 600), [3], [1, 2])
    return heif([Item(b"hvc1", data, [1, 2]), whole], [settings, size(*SHOWN), size(452, 600)])
