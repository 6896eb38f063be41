"""BMP: Pillow decodes its run-length encoding in Python."""

import struct

from tools.chaos.hostile import hostile

# Commands of the run-length encoding.
END_OF_LINE, END_OF_BITMAP = b"\0\0", b"\0\1"


def bmp(width: int, height: int, bits: int, compression: int, data: bytes) -> bytes:
    """Return a file with a palette of grey levels."""
    colours = 1 << bits if bits <= 8 else 0
    palette = b"".join(bytes([level % 256]) * 3 + b"\0" for level in range(colours))
    at = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", at + len(data), 0, 0, at)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, colours)
    return head + info + palette + data


@hostile("BMP: one row of 51 MP that ends after a pixel")
def empty_row() -> bytes:
    """Pillow fills up the row byte by byte in Python: seconds for one kilobyte."""
    return bmp(50_900_000, 1, 8, 1, b"\1\0" + END_OF_LINE + END_OF_BITMAP)


@hostile("BMP: 7,000 rows that end after a pixel each")
def empty_rows() -> bytes:
    """The same in a picture of usual shape."""
    return bmp(7000, 7000, 8, 1, (b"\1\0" + END_OF_LINE) * 7000 + END_OF_BITMAP)


@hostile("BMP: 10 MP in runs of one pixel")
def short_runs() -> bytes:
    """There are two bytes per pixel, so Python's loop runs ten million times."""
    return bmp(3140, 3140, 8, 1, (b"\1\7" * 3140 + END_OF_LINE) * 3140)


@hostile("BMP: 51 MP by runs of 4 bits")
def four_bits() -> bytes:
    """With 16 colours each pixel is added separately: 255 iterations for two bytes."""
    return bmp(7140, 7140, 4, 2, (b"\xff\x12" * 28 + END_OF_LINE) * 7140)


@hostile("BMP: 51 MP by jumps over nothing")
def jumps() -> bytes:
    """A jump over 255 rows has four bytes and creates the pixels of all these rows."""
    return bmp(7140, 7140, 8, 1, b"\0\2\0\xff" * 30)


@hostile("BMP: jumps over 255 rows of 51 million pixels")
def wide_jump() -> bytes:
    """The picture has one row. Without a check, memory for 255 rows is allocated: 13 GB."""
    return bmp(50_900_000, 1, 8, 1, b"\0\2\0\x14")


@hostile("BMP: 51 MP of 32 bits, of which none came")
def no_pixels() -> bytes:
    """Memory for all pixels is allocated before their absence is noticed."""
    return bmp(7140, 7140, 32, 0, bytes(100))
