"""JPEG: scans cost time, because each processes the whole picture; segments cost time, because Python parses them."""

import struct
from collections.abc import Sequence

from tools.chaos.hostile import hostile

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
BASELINE, PROGRESSIVE, ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC0, 0xC2, 0xC9, 0xCA
# The maximum length of a segment.
LONGEST = 65_533


def segment(marker: int, data: bytes) -> bytes:
    """Return a segment: a marker and its data."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data


def frame(kind: int, width: int, height: int, components: int, sampling: int = 0x11) -> bytes:
    """Return the tables and the frame header; ``sampling`` is that of the first component."""
    parts = b"".join(bytes([one + 1, 0x11 if one else sampling, 0]) for one in range(components))
    # The tables have one code of one bit: 0 for DC, "the rest is zero" for AC.
    tables = b"".join(segment(0xC4, bytes([place, 1, *bytes(15), 0])) for place in (0x00, 0x10))
    quantisation = segment(0xDB, b"\0" + b"\1" * 64)
    return quantisation + segment(kind, struct.pack(">BHHB", 8, height, width, components) + parts) + tables


def scan(components: Sequence[int], first: int, last: int, approximation: int = 0) -> bytes:
    """Return the header of a scan. Missing data counts as zeros."""
    chosen = b"".join(bytes([one, 0]) for one in components)
    return segment(0xDA, bytes([len(components)]) + chosen + bytes([first, last, approximation]))


@hostile("JPEG: progressive, 12 MP, 20,000 empty scans", short=True)
def empty_scans() -> bytes:
    """Each scan of ten bytes processes all coefficients of the picture: an hour of work from 200 KB."""
    scans = [scan([1], 0, 0), *[scan([1], 1, 63)] * 20_000]
    return SOI + frame(PROGRESSIVE, 3500, 3500, 3) + b"".join(scans) + EOI


@hostile("JPEG: progressive, 51 MP, 2,000 empty scans")
def empty_scans_of_large() -> bytes:
    """Four times as much time per byte, and 150 MB of coefficients."""
    return SOI + frame(PROGRESSIVE, 7136, 7136, 3) + scan([1], 0, 0) + scan([1], 1, 63) * 2_000 + EOI


@hostile("JPEG: small, of one scan, with 24,000 segments")
def small_with_segments() -> bytes:
    """With few bytes, pixels and scans it is taken for a fast picture. But each segment is parsed in Python."""
    return SOI + segment(0xE3, b"") * 24_000 + small()


@hostile("JPEG: small, of one scan, in arithmetic coding")
def small_arithmetic() -> bytes:
    """As above; each bit costs more than with Huffman coding."""
    noise = bytes(number * 73 % 251 for number in range(99_000))
    return SOI + frame(ARITHMETIC, 704, 704, 3) + scan([1, 2, 3], 0, 63) + noise + EOI


@hostile("JPEG: progressive, last scan repeated 1,500 times")
def repeated_scan() -> bytes:
    """A picture of usual structure from a usual program, whose last scan is repeated."""
    photo = _progressive(3500, 3500)
    at = photo.rindex(b"\xff\xda")
    return photo[:at] + photo[at:-2] * 1500 + EOI


def _progressive(width: int, height: int) -> bytes:
    """Return a picture of one colour from Pillow's encoder: each scan has its coefficients."""
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (width, height), (90, 120, 40)).save(file, "JPEG", progressive=True)
    return file.getvalue()


@hostile("JPEG: progressive CMYK, 51 MP, one empty scan")
def coefficients() -> bytes:
    """Two bytes per coefficient and four components: 400 MB from 200 bytes."""
    return SOI + frame(PROGRESSIVE, 7136, 7136, 4) + scan([1, 2, 3, 4], 0, 0) + EOI


@hostile("JPEG: baseline CMYK, 51 MP, each component in its own scan")
def baseline_scans() -> bytes:
    """It is not progressive, but all coefficients are kept, because each scan has one component."""
    scans = b"".join(scan([one], 0, 63) for one in (1, 2, 3, 4))
    return SOI + frame(BASELINE, 7136, 7136, 4) + scans + EOI


@hostile("JPEG: arithmetic coding, 51 MP")
def arithmetic() -> bytes:
    """The slowest coding of coefficients."""
    noise = bytes(0x11 + number * 7 % 200 for number in range(2_000_000))
    return SOI + frame(ARITHMETIC, 7136, 7136, 3) + scan([1, 2, 3], 0, 63) + noise + EOI


@hostile("JPEG: arithmetic and progressive, 12 MP, 5,000 empty scans")
def arithmetic_scans() -> bytes:
    """As with Huffman coding, but each coefficient costs more."""
    scans = [scan([1], 0, 0), *[scan([1], 1, 63)] * 5_000]
    return SOI + frame(ARITHMETIC_PROGRESSIVE, 3500, 3500, 3) + b"".join(scans) + EOI


@hostile("JPEG: 51 MP that restarts at each block")
def restarts() -> bytes:
    """A marker after each block of 64 pixels resets the decoder."""
    blocks = (7136 // 8) ** 2
    data = b"".join(b"\x3f" + bytes([0xFF, 0xD0 + number % 8]) for number in range(8)) * (blocks // 8)
    return SOI + frame(BASELINE, 7136, 7136, 1) + segment(0xDD, b"\0\1") + scan([1], 0, 63) + data + EOI


@hostile("JPEG: five million segments without content")
def segments() -> bytes:
    """Pillow parses each in Python and keeps it in a list: 20 MB become more than 700 MB."""
    return SOI + segment(0xE3, b"") * 4_900_000 + small()


@hostile("JPEG: EXIF in 600,000 pieces")
def exif_pieces() -> bytes:
    """Pieces of EXIF are joined. Each one copies all pieces before it."""
    return SOI + segment(0xE1, b"Exif\0\0" + bytes(10)) * 600_000 + small()


@hostile("JPEG: EXIF of 5,000 tags in the same 60 KB")
def exif_overlapping() -> bytes:
    """A small photo that is decoded without a worker process. Each tag is all of the EXIF data: 300 MB."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 60_000, 8) for tag in range(1000, 6000))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + tags + bytes(4)
    return SOI + segment(0xE1, b"Exif\0\0" + data.ljust(LONGEST - 6, b"\0")) + small()


@hostile("JPEG: EXIF of 20 MB in segments, tags overlapping")
def exif_long() -> bytes:
    """Pieces of EXIF are joined up to the size of the file, and each of 5,000 tags has 15 MB of it."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 15_000_000, 8) for tag in range(1000, 6000))
    data = (b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + tags + bytes(4)).ljust(18_000_000, b"\0")
    pieces = (data[at : at + 60_000] for at in range(0, len(data), 60_000))
    return SOI + b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces) + small()


@hostile("JPEG: a hundred thousand pictures behind the first (MPO)")
def mpo() -> bytes:
    """The directory of an MPO file claims four billion pictures."""
    entries = struct.pack("<H", 2) + struct.pack("<HHII", 0xB001, 4, 1, 0xFFFFFFFF)
    entries += struct.pack("<HHII", 0xB002, 7, 60_000, 50) + bytes(4)
    directory = (b"MPF\0II*\0\x08\0\0\0" + entries).ljust(LONGEST, b"\0")
    return SOI + segment(0xE2, directory) + small()


@hostile("JPEG: no height in the header, but after the scan (DNL)")
def no_height() -> bytes:
    """The header says 0 rows, and a marker after the pixels says 65,000."""
    data = scan([1], 0, 63) + bytes(1_000_000) + segment(0xDC, b"\xff\xdc")
    return SOI + frame(BASELINE, 780, 0, 1) + data + EOI


@hostile("JPEG: two sizes, the small one last")
def two_sizes() -> bytes:
    """If the last size is checked and the first one decoded, 3.6 gigapixels pass as 256."""
    data = frame(PROGRESSIVE, 60_000, 60_000, 3) + frame(PROGRESSIVE, 16, 16, 3)
    return SOI + data + scan([1, 2, 3], 0, 0) + EOI


@hostile("JPEG: 100,000 tables")
def tables() -> bytes:
    """Each set of tables replaces the last one; the decoder parses all of them."""
    one = segment(0xDB, b"".join(bytes([place]) + b"\1" * 64 for place in range(4)))
    return SOI + one * 70_000 + small()


def grey_scans(side: int, count: int) -> bytes:
    """Return a grey progressive picture with ``count`` empty scans."""
    return SOI + frame(PROGRESSIVE, side, side, 1) + scan([1], 0, 0) + scan([1], 1, 63) * count + EOI


def small() -> bytes:
    """Return the rest of a picture of 16 x 16 in one colour, without the first marker."""
    return frame(BASELINE, 16, 16, 1) + scan([1], 0, 63) + b"\0" + EOI
