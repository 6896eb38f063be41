"""TIFF: the format with the most ways to contradict itself."""

import lzma
import struct
import zlib
from collections.abc import Mapping, Sequence

from tools.chaos.hostile import hostile, jpeg

SHORT, LONG, RATIONAL = 3, 4, 5
_LETTERS = {SHORT: "H", LONG: "I", RATIONAL: "I"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, SAMPLES = 256, 257, 258, 259, 262, 273, 277
ROWS_PER_STRIP, STRIP_BYTES, X_RESOLUTION, PREDICTOR = 278, 279, 282, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES = 322, 323, 324, 325, 338
RAW, LZW, JPEG, DEFLATE, LZMA = 1, 5, 7, 8, 34925
GREY, RGB, CMYK = 1, 2, 5

# The picture's data begins directly after the header. The directory comes after the data.
DATA = 8
# The side of a square of 50.9 megapixels, the limit.
SIDE = 7136
# A picture of 16 x 16 whose pixels are the first bytes after the header.
SMALL: Mapping[int, tuple[int, Sequence[int]]] = {
    WIDTH: (LONG, [16]),
    HEIGHT: (LONG, [16]),
    BITS: (SHORT, [8]),
    COMPRESSION: (SHORT, [RAW]),
    PHOTOMETRIC: (SHORT, [GREY]),
    SAMPLES: (SHORT, [1]),
    STRIP_OFFSETS: (LONG, [DATA]),
    STRIP_BYTES: (LONG, [256]),
    ROWS_PER_STRIP: (LONG, [16]),
}
# Tag, type, number of values, and their position in the file.
Entry = tuple[int, int, int, int]


def tiff(tags: Mapping[int, tuple[int, Sequence[int]]], data: bytes = b"", entries: Sequence[Entry] = ()) -> bytes:
    """Return a file with one directory: ``tags`` with their values, and ``entries`` unchanged, with any position."""
    data += b"\0" * (len(data) % 2)
    directory_at = DATA + len(data)
    values_at = directory_at + 2 + 12 * (len(tags) + len(entries)) + 4
    lines, values = list(entries), b""
    packed_entries: dict[int, bytes] = {}
    for tag, (kind, numbers) in tags.items():
        packed = struct.pack(f"<{len(numbers)}{_LETTERS[kind]}", *numbers)
        count = len(numbers) // (2 if kind == RATIONAL else 1)
        if len(packed) > 4:
            place = struct.pack("<I", values_at + len(values))
            values += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        packed_entries[tag] = struct.pack("<HHI", tag, kind, count) + place
    for entry in lines:
        packed_entries[entry[0]] = struct.pack("<HHII", *entry)
    directory = struct.pack("<H", len(packed_entries)) + b"".join(packed_entries[tag] for tag in sorted(packed_entries))
    return struct.pack("<2sHI", b"II", 42, directory_at) + data + directory + bytes(4) + values


def picture(
    width: int,
    height: int,
    bits: Sequence[int],
    photometric: int,
    data: bytes,
    compression: int = DEFLATE,
    more: Mapping[int, tuple[int, Sequence[int]]] | None = None,
) -> bytes:
    """Return a picture in one strip."""
    tags: dict[int, tuple[int, Sequence[int]]] = {
        WIDTH: (LONG, [width]),
        HEIGHT: (LONG, [height]),
        BITS: (SHORT, bits),
        COMPRESSION: (SHORT, [compression]),
        PHOTOMETRIC: (SHORT, [photometric]),
        STRIP_OFFSETS: (LONG, [DATA]),
        SAMPLES: (SHORT, [len(bits)]),
        ROWS_PER_STRIP: (LONG, [height]),
        STRIP_BYTES: (LONG, [len(data)]),
    }
    return tiff(tags | dict(more or {}), data)


def zeros(count: int) -> bytes:
    """Return ``count`` zero bytes, deflated to a thousandth. They are never in memory as a whole."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(block[: count & 0xFFFFF]), packer.flush()])


@hostile("TIFF: 51 MP of RGBA 16 bit, cut off, 150 bytes")
def cut_off() -> bytes:
    """It is rejected because it has no pixels. 400 MB were allocated for them. If the error is kept, they are too."""
    return picture(SIDE, SIDE, [16] * 4, RGB, bytes(10), DEFLATE, {EXTRA_SAMPLES: (SHORT, [2])})


@hostile("TIFF: tile of 20,000 x 20,000 in 16 x 16, no pixels", short=True)
def tile_without_pixels() -> bytes:
    """The header has the size of the picture; a decoder needs memory for the tile, 1.2 GB."""
    return _tile(b"x")


@hostile("TIFF: tile of 20,000 x 20,000 in 16 x 16, complete")
def tile_complete() -> bytes:
    """The same with the tile's pixels: nothing is broken, and all 1.2 GB are filled."""
    return _tile(zeros(20_000 * 20_000 * 3))


def _tile(data: bytes) -> bytes:
    return tiff(
        {
            WIDTH: (LONG, [16]),
            HEIGHT: (LONG, [16]),
            BITS: (SHORT, [8, 8, 8]),
            COMPRESSION: (SHORT, [DEFLATE]),
            PHOTOMETRIC: (SHORT, [RGB]),
            SAMPLES: (SHORT, [3]),
            TILE_WIDTH: (LONG, [20_000]),
            TILE_HEIGHT: (LONG, [20_000]),
            TILE_OFFSETS: (LONG, [DATA]),
            TILE_BYTES: (LONG, [len(data)]),
        },
        data,
    )


@hostile("TIFF: 51 MP of RGBA 16 bit, complete")
def rgba_16() -> bytes:
    """Valid, with eight bytes per pixel that become four."""
    return picture(SIDE, SIDE, [16] * 4, RGB, zeros(SIDE * SIDE * 8), DEFLATE, {EXTRA_SAMPLES: (SHORT, [2])})


@hostile("TIFF: 51 MP of CMYK 16 bit, complete")
def cmyk_16() -> bytes:
    """As RGBA, and then converted to RGB in another picture."""
    return picture(SIDE, SIDE, [16] * 4, CMYK, zeros(SIDE * SIDE * 8))


@hostile("TIFF: 51 MP of RGB 16 bit, complete")
def rgb_16() -> bytes:
    """Six bytes per pixel that become four."""
    return picture(SIDE, SIDE, [16] * 3, RGB, zeros(SIDE * SIDE * 6))


@hostile("TIFF: 51 MP of 32-bit floats with a predictor")
def floats() -> bytes:
    """Four bytes per pixel, reordered by the decoder and then converted twice."""
    more = {PREDICTOR: (SHORT, [3]), 339: (SHORT, [3])}
    return picture(SIDE, SIDE, [32], GREY, zeros(SIDE * SIDE * 4), DEFLATE, more)


@hostile("TIFF: 51 MP by LZW")
def lzw() -> bytes:
    """The slowest of the old compressions: each code is looked up, and its string is written backwards."""
    return picture(SIDE, SIDE, [16] * 4, CMYK, _lzw_zeros(SIDE * SIDE * 8), LZW, {PREDICTOR: (SHORT, [2])})


def _lzw_zeros(count: int) -> bytes:
    """Return ``count`` zero bytes as TIFF's LZW codes: each code is a longer run, until the table has 4094 entries."""
    bits, done = [f"{256:09b}"], 0
    while done < count:
        # The codes of one round: a zero, then each time the string that was just added to the table.
        bits.append(f"{0:09b}")
        done += 1
        for number in range(258, 4094):
            width = 9 if number < 511 else 10 if number < 1023 else 11 if number < 2047 else 12
            bits.append(f"{number:0{width}b}")
            done += number - 256
            if done >= count:
                break
        else:
            bits.append(f"{256:012b}")
    bits.append(f"{257:012b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


@hostile("TIFF: LZMA whose dictionary is of 4 GB")
def dictionary() -> bytes:
    """Two bytes set the size of the decoder's dictionary."""
    data = bytearray(lzma.compress(bytes(256), check=lzma.CHECK_CRC32, filters=[{"id": lzma.FILTER_LZMA2}]))
    # The header of the block: length, flags, filter, size of its properties, dictionary, then a checksum.
    data[16] = 40
    end = 12 + 4 * data[12]
    data[end : end + 4] = struct.pack("<I", zlib.crc32(data[12:end]))
    return picture(16, 16, [8], GREY, bytes(data), LZMA)


@hostile("TIFF: JPEG of 51 MP with 90 scans")
def embedded_jpeg() -> bytes:
    """The limits for JPEG files do not apply to a JPEG in a strip, except in the TIFF decoder itself."""
    return picture(SIDE, SIDE, [8], GREY, jpeg.grey_scans(SIDE, 90), JPEG)


@hostile("TIFF: 500,000 strips of one row, all in the same place")
def strips() -> bytes:
    """Each strip is a Python object, and a decoder is started for it; in the list a strip has two bytes."""
    count = 500_000
    data = struct.pack("<H", DATA) * count
    tags: dict[int, tuple[int, Sequence[int]]] = {
        WIDTH: (LONG, [8]),
        HEIGHT: (LONG, [count]),
        BITS: (SHORT, [8]),
        COMPRESSION: (SHORT, [RAW]),
        PHOTOMETRIC: (SHORT, [GREY]),
        SAMPLES: (SHORT, [1]),
        ROWS_PER_STRIP: (LONG, [1]),
    }
    # Offsets and lengths are the same list: all strips begin at byte 8 and have 8 bytes.
    return tiff(tags, data, [(STRIP_OFFSETS, SHORT, count, DATA), (STRIP_BYTES, SHORT, count, DATA)])


@hostile("TIFF: 5,000 tags that all point to the same 4 MB")
def overlapping_tags() -> bytes:
    """The value of each tag is read and kept: 20 GB from 4 MB."""
    size = 4_000_000
    entries = [(tag, 7, size, DATA) for tag in range(1000, 6000)]
    return tiff(SMALL, bytes(size), entries)


@hostile("TIFF: a resolution of a million fractions")
def fractions() -> bytes:
    """Each fraction of 8 bytes becomes a Python object of several hundred."""
    count = 1_000_000
    entries = [(X_RESOLUTION, RATIONAL, count, DATA), (296, SHORT, 1, 2)]
    return tiff(SMALL, struct.pack("<2I", 3, 7) * count, entries)


@hostile("TIFF: a directory that is its own successor")
def loop() -> bytes:
    """A decoder that counts the pictures by following the directories never ends."""
    file = picture(16, 16, [8], GREY, bytes(256), RAW)
    directory_at = struct.unpack("<I", file[4:8])[0]
    count = struct.unpack("<H", file[directory_at : directory_at + 2])[0]
    end = directory_at + 2 + 12 * count
    # The EXIF and GPS directories are the picture's own directory, too.
    return file[:end] + struct.pack("<I", directory_at) + file[end + 4 :]


@hostile("TIFF: 100,000 pages")
def pages() -> bytes:
    """Only the first page is used, but a decoder that looks for the others takes long."""
    one = struct.pack("<HHHII", 1, WIDTH, LONG, 1, 1)
    chain = b"".join(one + struct.pack("<I", DATA + 256 + (number + 1) * 18) for number in range(100_000))
    first = picture(16, 16, [8], GREY, bytes(256) + chain, RAW)
    directory_at = struct.unpack("<I", first[4:8])[0]
    end = directory_at + 2 + 12 * struct.unpack("<H", first[directory_at : directory_at + 2])[0]
    return first[:end] + struct.pack("<I", DATA + 256) + first[end + 4 :]


@hostile("TIFF: BigTIFF with 2^60 tags")
def big_tiff() -> bytes:
    """The number of tags has 64 bits. A decoder that believes it reads for ever."""
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)
    tag = struct.pack("<HHQQ", 65_000, 7, 1_000_000, 24)
    return head + struct.pack("<Q", 1 << 60) + tag * 50_000
