"""PNG."""

import struct
import zlib
from collections.abc import Iterable

from tools.chaos.hostile import hostile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SIDE = 7136
# Pillow's limit for one decompressed text.
TEXT_BYTES = 1 << 20


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, bits: int, colour: int, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def png(chunks: Iterable[bytes]) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def rows(width_bytes: int, height: int, kind: int = 0) -> bytes:
    """Return the compressed pixels: rows of zeros, each with the filter ``kind``."""
    packer = zlib.compressobj(9)
    row = bytes([kind]) + bytes(width_bytes)
    parts = [packer.compress(row) for _ in range(height)]
    return chunk(b"IDAT", b"".join(parts) + packer.flush())


@hostile("PNG: 51 MP, cut off at 90 %")
def cut_off() -> bytes:
    """It is rejected after most of it was decoded. If the error is kept, the picture may be kept too."""
    data = rows(SIDE * 3, SIDE)
    return SIGNATURE + header(SIDE, SIDE, 8, RGB) + data[: len(data) * 9 // 10]


@hostile("PNG: 51 MP of RGBA 16 bit, filter of Paeth")
def paeth() -> bytes:
    """The maximum of bytes per pixel, and the slowest filter: each byte depends on three others."""
    return png([header(SIDE, SIDE, 16, RGBA), rows(SIDE * 8, SIDE, 4)])


@hostile("PNG: 51 MP of grey 16 bit")
def grey_16() -> bytes:
    """Two bytes per pixel, which become four before the picture is reduced."""
    return png([header(SIDE, SIDE, 16, GREY), rows(SIDE * 2, SIDE)])


@hostile("PNG: 51 MP of palette with transparent colours")
def transparent_palette() -> bytes:
    """One byte per pixel becomes four, because neither palette indexes nor transparent colours can be averaged."""
    palette, transparency = chunk(b"PLTE", bytes(768)), chunk(b"tRNS", bytes(range(256)))
    return png([header(SIDE, SIDE, 8, PALETTE), palette, transparency, rows(SIDE, SIDE)])


@hostile("PNG: 51 MP of grey and alpha, interlaced")
def interlaced() -> bytes:
    """Seven passes over all pixels, the first of them with large steps."""
    packer = zlib.compressobj(9)
    parts = []
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        width, height = -(-(SIDE - left) // across), -(-(SIDE - top) // down)
        parts += [packer.compress(b"\4" + bytes(width * 4)) for _ in range(height)]
    data = chunk(b"IDAT", b"".join(parts) + packer.flush())
    return png([header(SIDE, SIDE, 16, GREY_ALPHA, interlaced=True), data])


@hostile("PNG: a thin picture of 3 x 17 million")
def thin() -> bytes:
    """The maximum number of pixels in rows of three, so the cost per row occurs 17 million times."""
    packer = zlib.compressobj(9)
    block = bytes(4 * 3 + 1) * 100_000
    parts = [packer.compress(block) for _ in range(169)]
    data = chunk(b"IDAT", b"".join(parts) + packer.flush())
    return png([header(3, 16_900_000, 8, RGBA), data])


@hostile("PNG: a million chunks")
def chunks() -> bytes:
    """Pillow parses each in Python, and keeps unknown ones."""
    return png([header(16, 16, 8, RGB), chunk(b"prVt", b"") * 1_600_000, rows(48, 16)])


@hostile("PNG: 60 texts that unpack to a megabyte each")
def texts() -> bytes:
    """Each becomes a thousand times as large, and is kept as bytes and as text."""
    packed = zlib.compress(bytes(TEXT_BYTES - 1), 9)
    parts = [chunk(b"zTXt", b"%d\0\0" % number + packed) for number in range(60)]
    return png([header(16, 16, 8, RGB), *parts, rows(48, 16)])


@hostile("PNG: texts without end, in a compressed form")
def international_texts() -> bytes:
    """As above in the other form, until Pillow's own limit of 64 MB rejects the picture."""
    packed = zlib.compress(bytes(TEXT_BYTES - 1), 9)
    parts = [chunk(b"iTXt", b"%d\0\1\0\0\0" % number + packed) for number in range(2_000)]
    return png([header(16, 16, 8, RGB), *parts, rows(48, 16)])


@hostile("PNG: 15,000 colour profiles of a megabyte")
def profiles() -> bytes:
    """Only the last is kept, but each is decompressed: 15 GB from 17 MB."""
    packed = zlib.compress(bytes(TEXT_BYTES - 1), 9)
    return png([header(16, 16, 8, RGB), chunk(b"iCCP", b"x\0\0" + packed) * 15_000, rows(48, 16)])


@hostile("PNG: EXIF of 5,000 tags in the same 4 MB")
def exif_overlapping() -> bytes:
    """PNG has no limit for a segment: each tag is all of the EXIF data, 20 GB together."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 4_000_000, 8) for tag in range(1000, 6000))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + tags + bytes(4_000_000)
    return png([header(16, 16, 8, RGB), chunk(b"eXIf", data), rows(48, 16)])


@hostile("PNG: two sizes, the large one after the small one")
def two_sizes() -> bytes:
    """If the first size is checked and the last one decoded, 900 megapixels pass."""
    return png([header(16, 16, 8, RGB), header(30_000, 30_000, 8, RGB), rows(90_000, 200)])


@hostile("PNG: a large size after the pixels")
def late_size() -> bytes:
    """The rest of the file is read after the pixels, when it is too late to check a size."""
    return png([header(16, 16, 8, RGB), rows(48, 16), header(30_000, 30_000, 8, RGB), rows(48, 16)])


@hostile("PNG: 100,000 frames (APNG)")
def frames() -> bytes:
    """Only the first frame is used, but a decoder that looks for the others takes long."""
    control = struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 10, 0, 0)
    parts = [chunk(b"acTL", struct.pack(">II", 100_001, 0)), chunk(b"fcTL", control), rows(48, 16)]
    pixels = zlib.compress(bytes(49 * 16))
    frame = chunk(b"fcTL", control) + chunk(b"fdAT", bytes(4) + pixels)
    return png([header(16, 16, 8, RGB), *parts, frame * 100_000])


@hostile("PNG: pixels of 20 GB for a picture of 16 x 16")
def too_many_pixels() -> bytes:
    """The compressed data after the last row should be ignored and not decompressed."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 24)
    part = b"".join(packer.compress(block) for _ in range(100)) + packer.flush()
    return png([header(16, 16, 8, RGB), chunk(b"IDAT", part) * 10])
