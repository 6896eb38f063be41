"""Estimates the cost of decoding a picture from its header.

The bytes per pixel were measured with Pillow 13, libavif and libheif on pictures of 20 megapixels. A test decodes
pictures of each kind within these estimates.
"""

import math
import re
from dataclasses import dataclass, replace

from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from preprocess_service.app.imaging.decoders.gif import is_covered
from preprocess_service.app.imaging.decoders.png import has_deep_transparency

# The marker at the start of each scan of a JPEG.
_START_OF_SCAN = b"\xff\xda"
# That marker, or the one at the end of the picture. Two separate searches would take 60 microseconds more per photo.
_SCAN_OR_END = re.compile(rb"\xff[\xda\xd9]")
# For any picture: decoder contexts, tables, and some rows in several modes.
_BASE_BYTES = 6_000_000
# Bytes that Pillow stores per pixel in these modes. In all other modes it stores 4.
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# A compressed BMP is unpacked in Python, into two copies beside the picture. The alpha of a BMP is checked, and may be
# removed.
_BMP_BYTES = 4
_BMP_ALPHA_BYTES = 9
# A second canvas, and two copies of the frame.
_GIF_CANVAS_BYTES = 9
# A PNG with 16 bits per channel and a transparent colour is decoded twice, and compared channel by channel.
_DEEP_TRANSPARENCY_BYTES = 10
# The decoded planes, their RGB, and Pillow's copy of the RGB. libwebp keeps a second canvas for animations.
_WEBP_BYTES = 18.0
_HEIF_BYTES = 7.6
_AVIF_RGB_BYTES = 8.5
# The time of a JPEG with one scan at a reduced scale (Huffman decoding), relative to decoding and storing every pixel.
_REDUCED_SCAN = 1 / 16
# Bytes per pixel for steps on a whole photo, beside the decoded one: to turn it; to resize it in float32 (in parts); to
# convert another mode to RGB, with the background of transparent pixels; to convert more than 8 bits.
_TURNED_BYTES = 4
_FLOAT_BYTES = 7
_CONVERTED_BYTES = 10
_LEVELS_BYTES = 24
_TILE_TAGS = (322, 323)
_ROWS_PER_STRIP = 278
_BITS_PER_SAMPLE = 258
_AV1_CONFIGURATION = b"av1C"


@dataclass(frozen=True)
class DecodeCost:
    """Peak memory in bytes, and the number of pixels that the decoder's time is proportional to."""

    memory_bytes: int
    pixels: int


def has_one_scan(image: Image.Image, data: bytes) -> bool:
    """Return whether ``image``, opened from ``data``, is a JPEG with a single scan.

    Otherwise the decoder keeps all coefficients in memory, and each scan goes through all pixels, even if it has few
    bytes.
    """
    if not isinstance(image, JpegImageFile) or image.info.get("progressive"):
        return False
    # Search only from the first scan to the end marker: a thumbnail before it, or a picture after it, has scans too.
    start = first_scan(data)
    following = _SCAN_OR_END.search(data, start + 2)
    return start > 0 and (following is None or following[0] != _START_OF_SCAN)


def first_scan(data: bytes) -> int:
    """Return the offset of a JPEG's first scan, after the metadata (ITU T.81, B.1.1.4); -1 if it is not found."""
    place = 2
    while data[place : place + 1] == b"\xff":
        if data[place + 1 : place + 2] == _START_OF_SCAN[1:]:
            return place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return -1


def decode_cost(image: Image.Image, data: bytes, size: tuple[int, int], one_scan: bool) -> DecodeCost:
    """Return the cost of ``image.load()``.

    Args:
        image: opened; a JPEG may have a draft size.
        data: the file's bytes.
        size: width and height from the header, in pixels.
        one_scan: see ``has_one_scan``.
    """
    pixels = math.prod(size)
    if one_scan:
        return _cost(2 * 4 * math.prod(image.size), int(pixels * _REDUCED_SCAN))
    if isinstance(image, JpegImageFile):
        stored = 4 * math.prod(image.size) + _coefficient_bytes(image) * pixels
    elif image.format == "WEBP":
        return webp_cost(size)
    elif image.format == "BMP":
        stored = (_BMP_ALPHA_BYTES if image.mode == "RGBA" else _BMP_BYTES) * pixels
    elif image.format == "AVIF":
        stored = _avif_bytes(image, data) * pixels
    elif image.format == "HEIF":
        deep = 2 if image.info.get("bit_depth", 8) > 8 else 0
        stored = (_HEIF_BYTES + deep + (image.mode == "RGBA")) * pixels
    else:
        stored = _STORED_BYTES.get(image.mode, 4) * pixels
    if isinstance(image, GifImageFile) and not is_covered(image):
        stored += _GIF_CANVAS_BYTES * pixels
    if has_deep_transparency(image, data):
        stored += _DEEP_TRANSPARENCY_BYTES * pixels
    if isinstance(image, TiffImageFile):
        stored += _strip_bytes(image, pixels)
    return _cost(stored, pixels)


def with_resize(cost: DecodeCost, image: Image.Image, one_scan: bool, in_float: bool, pixels: int) -> DecodeCost:
    """Add the memory that it takes to turn, convert and resize a decoded photo.

    Args:
        image: opened.
        pixels: how many pixels are turned, converted and resized (``resized_pixels``).
        one_scan: see ``has_one_scan``. For such a JPEG, ``cost`` includes the turned photo already.
        in_float: whether the photo is resized in float32.
    """
    each = _FLOAT_BYTES * in_float + (0 if one_scan else _TURNED_BYTES)
    if image.mode.startswith(("I", "F")):
        each += _LEVELS_BYTES
    # The cost of a WebP includes the conversion already.
    elif image.format != "WEBP" and (image.mode != "RGB" or image.has_transparency_data):
        each += _CONVERTED_BYTES
    return replace(cost, memory_bytes=cost.memory_bytes + each * pixels)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP (RFC 9649, 2.5 to 2.7), or None for another file.

    The size must be known before Pillow opens the file, because Pillow allocates all pixels when it opens a WebP.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case _:
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def webp_cost(size: tuple[int, int], resized: int = 0, in_float: bool = False) -> DecodeCost:
    """Return the cost of a WebP that is not opened yet. ``resized``: the pixels of ``with_resize``, for its steps."""
    pixels = math.prod(size)
    return _cost(_WEBP_BYTES * pixels + (_TURNED_BYTES + _FLOAT_BYTES * in_float) * resized, pixels)


def _cost(memory_bytes: float, pixels: int) -> DecodeCost:
    return DecodeCost(_BASE_BYTES + int(memory_bytes), pixels)


def _coefficient_bytes(image: JpegImageFile) -> float:
    """Return the bytes of coefficients per pixel: two for each sample of each component."""
    sizes = [(across, down) for _, across, down, _ in image.layer]
    widest, tallest = (max(column, default=1) for column in zip(*sizes, strict=True)) if sizes else (1, 1)
    return 2 * sum(across * down for across, down in sizes) / max(1, widest * tallest)


def _avif_bytes(image: Image.Image, data: bytes) -> float:
    """Return the bytes per pixel, from depth and subsampling in the AV1CodecConfigurationBox (AV1 ISOBMFF, 2.3.3)."""
    place = data.find(_AV1_CONFIGURATION, 0, 1 << 16)
    flags = data[place + 6] if 0 <= place < len(data) - 6 else 0
    chroma = 0 if flags & 0x10 else 2 / ((1 + (flags >> 3 & 1)) * (1 + (flags >> 2 & 1)))
    planes = 1 + chroma + (image.mode == "RGBA")
    return _AVIF_RGB_BYTES + planes * (2 if flags & 0x40 else 1)


def _strip_bytes(image: TiffImageFile, pixels: int) -> float:
    """Return the bytes of one strip or tile: libtiff unpacks it as a whole, and it may be larger than the picture."""
    tags = image.tag_v2
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    try:
        if all(tag in tags for tag in _TILE_TAGS):
            area = math.prod(int(tags[tag]) for tag in _TILE_TAGS)
        else:
            area = min(pixels, image.width * int(tags.get(_ROWS_PER_STRIP, image.height)))
        return area * sum(bits) / 8
    except (TypeError, ValueError):
        # A tag has the wrong type. The decoder will reject the file.
        return 0.0
