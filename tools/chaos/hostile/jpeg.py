"""JPEG: what costs time are scans, each of which goes through the whole picture, and segments, which Python reads."""

import struct
from collections.abc import Sequence

from tools.chaos.hostile import hostile

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
BASELINE, PROGRESSIVE, ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC0, 0xC2, 0xC9, 0xCA
# No more than a segment's length can say.
LONGEST = 65_533


def segment(marker: int, data: bytes) -> bytes:
    """A marker and what belongs to it."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data


def frame(kind: int, width: int, height: int, components: int, sampling: int = 0x11) -> bytes:
    """The tables, and the size; ``sampling`` is that of the first component."""
    parts = b"".join(bytes([one + 1, 0x11 if one else sampling, 0]) for one in range(components))
    # One code, of one bit: 0 for DC, "all the rest is zero" for AC.
    tables = b"".join(segment(0xC4, bytes([place, 1, *bytes(15), 0])) for place in (0x00, 0x10))
    quantisation = segment(0xDB, b"\0" + b"\1" * 64)
    return quantisation + segment(kind, struct.pack(">BHHB", 8, height, width, components) + parts) + tables


def scan(components: Sequence[int], first: int, last: int, approximation: int = 0) -> bytes:
    """The head of a scan; what it says of the coefficients may follow, and counts as zeros where it does not."""
    chosen = b"".join(bytes([one, 0]) for one in components)
    return segment(0xDA, bytes([len(components)]) + chosen + bytes([first, last, approximation]))


@hostile("JPEG: progressive, 12 MP, 20,000 empty scans", short=True)
def empty_scans() -> bytes:
    """Each scan of ten bytes goes through all coefficients of the picture: an hour, from 200 KB."""
    scans = [scan([1], 0, 0), *[scan([1], 1, 63)] * 20_000]
    return SOI + frame(PROGRESSIVE, 3500, 3500, 3) + b"".join(scans) + EOI


@hostile("JPEG: progressive, 51 MP, 2,000 empty scans")
def empty_scans_of_large() -> bytes:
    """Four times the time for each byte, and 150 MB of coefficients beside it."""
    return SOI + frame(PROGRESSIVE, 7136, 7136, 3) + scan([1], 0, 0) + scan([1], 1, 63) * 2_000 + EOI


@hostile("JPEG: small, of one scan, with 24,000 segments")
def small_with_segments() -> bytes:
    """Bytes, pixels and scans are few: it is taken for one that is quick. Each segment is read in Python."""
    return SOI + segment(0xE3, b"") * 24_000 + small()


@hostile("JPEG: small, of one scan, in arithmetic coding")
def small_arithmetic() -> bytes:
    """As above; each bit of it costs more than Huffman's."""
    noise = bytes(number * 73 % 251 for number in range(99_000))
    return SOI + frame(ARITHMETIC, 704, 704, 3) + scan([1, 2, 3], 0, 63) + noise + EOI


@hostile("JPEG: progressive, last scan repeated 1,500 times")
def repeated_scan() -> bytes:
    """A picture of usual shape, by a usual program, whose last scan comes again and again."""
    photo = _progressive(3500, 3500)
    at = photo.rindex(b"\xff\xda")
    return photo[:at] + photo[at:-2] * 1500 + EOI


def _progressive(width: int, height: int) -> bytes:
    """A flat picture as encoders write it: each scan has its coefficients."""
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (width, height), (90, 120, 40)).save(file, "JPEG", progressive=True)
    return file.getvalue()


@hostile("JPEG: progressive CMYK, 51 MP, one empty scan")
def coefficients() -> bytes:
    """Two bytes for each coefficient, four components: 400 MB, from 200 bytes."""
    return SOI + frame(PROGRESSIVE, 7136, 7136, 4) + scan([1, 2, 3, 4], 0, 0) + EOI


@hostile("JPEG: baseline CMYK, 51 MP, each component in its own scan")
def baseline_scans() -> bytes:
    """Not progressive, by its header; still all coefficients are kept, since each scan brings a part of all pixels."""
    scans = b"".join(scan([one], 0, 63) for one in (1, 2, 3, 4))
    return SOI + frame(BASELINE, 7136, 7136, 4) + scans + EOI


@hostile("JPEG: arithmetic coding, 51 MP")
def arithmetic() -> bytes:
    """The slowest way to write a coefficient."""
    noise = bytes(0x11 + number * 7 % 200 for number in range(2_000_000))
    return SOI + frame(ARITHMETIC, 7136, 7136, 3) + scan([1, 2, 3], 0, 63) + noise + EOI


@hostile("JPEG: arithmetic and progressive, 12 MP, 5,000 empty scans")
def arithmetic_scans() -> bytes:
    """As with Huffman's codes; each coefficient costs more."""
    scans = [scan([1], 0, 0), *[scan([1], 1, 63)] * 5_000]
    return SOI + frame(ARITHMETIC_PROGRESSIVE, 3500, 3500, 3) + b"".join(scans) + EOI


@hostile("JPEG: 51 MP that restarts at each block")
def restarts() -> bytes:
    """A marker after each block of 64 pixels: the decoder begins anew each time."""
    blocks = (7136 // 8) ** 2
    data = b"".join(b"\x3f" + bytes([0xFF, 0xD0 + number % 8]) for number in range(8)) * (blocks // 8)
    return SOI + frame(BASELINE, 7136, 7136, 1) + segment(0xDD, b"\0\1") + scan([1], 0, 63) + data + EOI


@hostile("JPEG: five million segments without content")
def segments() -> bytes:
    """Pillow reads each in Python and keeps it in a list: 20 MB make more than 700."""
    return SOI + segment(0xE3, b"") * 4_900_000 + small()


@hostile("JPEG: EXIF in 600,000 pieces")
def exif_pieces() -> bytes:
    """Pieces of EXIF are appended to each other: each of them copies all that was there."""
    return SOI + segment(0xE1, b"Exif\0\0" + bytes(10)) * 600_000 + small()


@hostile("JPEG: EXIF of 5,000 tags in the same 60 KB")
def exif_overlapping() -> bytes:
    """A small photo, fit to be decoded without a worker, whose tags each are all of the EXIF data: 300 MB."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 60_000, 8) for tag in range(1000, 6000))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + tags + bytes(4)
    return SOI + segment(0xE1, b"Exif\0\0" + data.ljust(LONGEST - 6, b"\0")) + small()


@hostile("JPEG: EXIF of 20 MB in segments, tags overlapping")
def exif_long() -> bytes:
    """Pieces of EXIF are put together, up to the length of the file; each of 5,000 tags is 15 MB of it."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 15_000_000, 8) for tag in range(1000, 6000))
    data = (b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + tags + bytes(4)).ljust(18_000_000, b"\0")
    pieces = (data[at : at + 60_000] for at in range(0, len(data), 60_000))
    return SOI + b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces) + small()


@hostile("JPEG: a hundred thousand pictures behind the first (MPO)")
def mpo() -> bytes:
    """The directory of a picture of several says that there are four billion of them."""
    entries = struct.pack("<H", 2) + struct.pack("<HHII", 0xB001, 4, 1, 0xFFFFFFFF)
    entries += struct.pack("<HHII", 0xB002, 7, 60_000, 50) + bytes(4)
    directory = (b"MPF\0II*\0\x08\0\0\0" + entries).ljust(LONGEST, b"\0")
    return SOI + segment(0xE2, directory) + small()


@hostile("JPEG: no height in the header, but after the scan (DNL)")
def no_height() -> bytes:
    """The header says 0 rows, and a marker behind the pixels that there are 65,000."""
    data = scan([1], 0, 63) + bytes(1_000_000) + segment(0xDC, b"\xff\xdc")
    return SOI + frame(BASELINE, 780, 0, 1) + data + EOI


@hostile("JPEG: two sizes, the small one last")
def two_sizes() -> bytes:
    """Whoever believes the last header and decodes by the first has 3.6 gigapixels for 256."""
    data = frame(PROGRESSIVE, 60_000, 60_000, 3) + frame(PROGRESSIVE, 16, 16, 3)
    return SOI + data + scan([1, 2, 3], 0, 0) + EOI


@hostile("JPEG: 100,000 tables")
def tables() -> bytes:
    """Each set of tables replaces the last; the decoder takes all of them in."""
    one = segment(0xDB, b"".join(bytes([place]) + b"\1" * 64 for place in range(4)))
    return SOI + one * 70_000 + small()


def grey_scans(side: int, count: int) -> bytes:
    """A grey progressive picture of so many scans that hold nothing."""
    return SOI + frame(PROGRESSIVE, side, side, 1) + scan([1], 0, 0) + scan([1], 1, 63) * count + EOI


def small() -> bytes:
    """The rest of a flat picture of 16 x 16, behind the marker that begins it."""
    return frame(BASELINE, 16, 16, 1) + scan([1], 0, 63) + b"\0" + EOI
