"""Makes files of pictures byte by byte, so that a test knows each pixel, and reads one as the service does."""

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging.colour import BACKGROUND
from unit_test.preprocess_service.recipes import GEOMETRY

PIXELS = 51_000_000
Pixels = NDArray[np.float64]


def decode(data: bytes) -> Pixels:
    """All pixels, ``[height, width, 3]``."""
    return np.asarray(service_utils.decode_image(data, PIXELS), np.float64)


def refusal(data: bytes) -> errors.ServiceError:
    """Why a file is refused, which is the same where only a reduced picture of it is wanted."""
    found: list[errors.ServiceError] = []
    for picture in (None, GEOMETRY):
        try:
            image = service_utils.decode_image(data, PIXELS, picture)
        except errors.ServiceError as exc:
            found.append(exc)
        else:
            raise AssertionError(f"taken as {image.size}")
    assert type(found[0]) is type(found[1]) and str(found[0]) == str(found[1]), found
    return found[0]


def on_background(rgb: NDArray[Any], alpha: NDArray[Any]) -> Pixels:
    """Colours, drawn where ``alpha`` (0 to 255) is not 0 on the service's grey."""
    share = np.asarray(alpha, np.float64)[..., None] / 255
    return np.asarray(rgb * share + BACKGROUND[0] * (1 - share), np.float64)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    levels: NDArray[Any], colour: int, bits: int, before: bytes = b"", after: bytes = b"", passes: int = 0
) -> bytes:
    """A PNG of samples ``[height, width, channels]``, with chunks before and after its pixels; 7 passes: interlaced."""
    height, width = levels.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(passes > 0)))
    adam7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [levels[top::down, left::across] for left, top, across, down in adam7] if passes else [levels]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in packed_rows(part, bits))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def packed_rows(levels: NDArray[Any], bits: int, order: str = ">", multiple: int = 8) -> list[bytes]:
    """Each row of samples in bytes, the first in the highest bits, filled up to a multiple of bits."""
    rows = levels.reshape(len(levels), -1)
    if bits >= 8:
        packed = [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    else:
        texts = ("".join(f"{int(level):0{bits}b}" for level in row) for row in rows)
        packed = [np.packbits([int(bit) for bit in text]).tobytes() for text in texts]
    return [row + bytes(-len(row) % (multiple // 8)) for row in packed]


def tiff(
    tags: Mapping[int, Any], pixels: bytes = b"", order: str = "<", kinds: Mapping[int, str] | None = None
) -> bytes:
    """A TIFF of one strip; a tag is a number or a list of them, of 16 or 32 bits as it takes."""
    wanted = {273: 0, 278: tags.get(257, 0), 279: len(pixels), **tags}
    values = {tag: list(value) if isinstance(value, Iterable) else [value] for tag, value in wanted.items()}
    entries, extra, place = b"", b"", 8 + 2 + 12 * len(values) + 4
    sizes = {tag: 4 if tag in (273, 279, 330) or max(value) > 0xFFFF else 2 for tag, value in values.items()}
    end = place + sum(len(value) * sizes[tag] for tag, value in values.items() if len(value) * sizes[tag] > 4)
    for tag, value in sorted(values.items()):
        value = [end] if tag == 273 else value
        data = struct.pack(f"{order}{len(value)}{'I' if sizes[tag] == 4 else 'H'}", *value)
        if len(data) > 4:
            data, extra = struct.pack(f"{order}I", place + len(extra)), extra + data
        entries += struct.pack(f"{order}HHI", tag, 4 if sizes[tag] == 4 else 3, len(value)) + data.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(values))
    return head + entries + bytes(4) + extra + pixels


def bmp(
    width: int,
    height: int,
    bits: int,
    rows: bytes,
    size: int = 40,
    palette: NDArray[Any] | None = None,
    compression: int = 0,
    masks: Iterable[int] = (),
) -> bytes:
    """A BMP with a header of ``size`` bytes; masks of red, green, blue and, for 56 bytes and more, alpha."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    if size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    fields = b"".join(struct.pack("<I", mask) for mask in masks)
    header = (header + fields).ljust(size, b"\0")
    header = struct.pack("<I", size) + header[4:]
    colours = (
        b"" if palette is None else b"".join(bytes(row[::-1]) + bytes(size != 12) for row in palette.astype(np.uint8))
    )
    start = 14 + len(header) + len(colours)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + colours + rows


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data
