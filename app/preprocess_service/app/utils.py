"""From base64 to a picture: text -> bytes -> picture. Pure; no HTTP, no gRPC."""

from __future__ import annotations

import binascii
import contextlib
import functools
import io
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pi_heif
import puremagic
import pybase64
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from preprocess_service.app.errors import ImageTooLarge, InvalidBase64, InvalidImage, ServiceError, UnsupportedMediaType
from preprocess_service.app.imaging.decode_cost import DecodeCost, decode_cost, has_one_scan, with_resize
from preprocess_service.app.imaging.downscale import downscale, min_side
from preprocess_service.app.imaging.resize import in_float

if TYPE_CHECKING:
    # Not at run time: the processes that decode do without the settings and their library.
    from preprocess_service.app.recipe import Geometry

# Base64 as text, or a file's own bytes.
Photo = str | bytes

# The only decoders that are ever tried: Pillow has 40 more, and each is a door for hostile files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
_OUR_SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".heif"}
# How far into a file its kind is looked for: past the XML declaration and comments of an SVG.
_MAGIC_BYTES = 512

# What undoes each EXIF orientation.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Transparent pixels have no colour of their own. Mid grey is the least striking one for a network
# that was trained on photos; white or black would draw a hard edge around the animal.
BACKGROUND = (127, 127, 127)

_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = string.whitespace.encode("ascii")


def decode_base64(text: str) -> bytes:
    """Decode base64 as people send it: line breaks, a ``data:`` prefix, the URL-safe alphabet, no padding.

    Raises:
        InvalidBase64: empty, or with anything in it that base64 does not have.
    """
    # Nearly all of it is plain base64; anything else fails here, and the code below decides.
    with contextlib.suppress(ValueError):
        if text:
            return pybase64.b64decode(text, validate=True)
    prefix = _DATA_URL.match(text, 0, 200)
    try:
        # Bytes, not split and joined as text: that takes 15 times the memory where a body of 20 MB is all short lines.
        payload = text[prefix.end() if prefix else 0 :].encode("ascii").translate(_URL_SAFE, _WHITESPACE).rstrip(b"=")
        if not payload:
            raise InvalidBase64("base64_empty")
        return binascii.a2b_base64(payload + b"=" * (-len(payload) % 4), strict_mode=True)
    except ValueError as exc:
        raise InvalidBase64("base64_invalid") from exc


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before its pixels: width and height in pixels, as stored."""

    format: str
    width: int
    height: int


@dataclass(frozen=True)
class OpenImage:
    """A picture whose header was read; ``cost`` tells what ``decode_open`` will take."""

    image: Image.Image
    one_scan: bool
    cost: DecodeCost


def decode_image(data: bytes, max_pixels: int, picture: Geometry | None = None) -> Image.Image:
    """Decode a photo's first frame to RGB, turned the way its EXIF orientation says.

    Args:
        data: a file in one of ``FORMATS``.
        max_pixels: limit on width * height, checked from the header, before anything is decoded.
        picture: what is made of it in the end; a big photo may then come at a reduced scale. None: the whole photo.

    Raises:
        InvalidImage: not a picture, truncated or broken.
        UnsupportedMediaType: a picture, a film or a document of another kind.
        ImageTooLarge: more than ``max_pixels``.
    """
    with open_image(data, max_pixels, picture) as opened:
        return decode_open(opened, picture)


@contextlib.contextmanager
def open_image(
    data: bytes,
    max_pixels: int,
    picture: Geometry | None = None,
    on_header: Callable[[Header], object] = bool,
) -> Iterator[OpenImage]:
    """Read a photo's header; what fails in this block is told as ``decode_image`` tells it.

    Args:
        on_header: told of the header as soon as it is known, before anything is rejected for it.
    """
    if not data:
        raise InvalidImage("image_empty")
    _register_heif()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.size
            on_header(Header(image.format or "", *size))
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(max_pixels)
            one_scan = has_one_scan(image, data)
            if picture is not None and picture.decode == "fast":
                image.draft(None, (min_side(picture), min_side(picture)))
            cost = decode_cost(image, data, size, one_scan)
            if picture is not None and picture.decode == "exact":
                cost = with_resize(cost, image, one_scan, in_float(picture))
            yield OpenImage(image, one_scan, cost)
    except ServiceError:
        raise
    except UnidentifiedImageError as exc:
        raise _unidentified(data) from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_many_pixels(max_pixels) from exc
    except MemoryError as exc:
        raise ImageTooLarge("image_memory") from exc
    # Pillow's parsers let through whatever a broken file makes them trip over: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error, OverflowError, ... For the sender it is all one: the file is broken.
    except Exception as exc:
        raise InvalidImage("image_broken") from exc


def decode_open(opened: OpenImage, picture: Geometry | None = None) -> Image.Image:
    """Decode what ``open_image`` gave, within its block."""
    return _to_rgb(_apply_exif_orientation(downscale(opened.image, picture), _orientation(opened.image)))


@functools.cache
def _register_heif() -> None:
    # Once, and not at import. One thread, as for every other format: the photos are decoded side by side.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener(thumbnails=False)


def _unidentified(data: bytes) -> ServiceError:
    """Tell a file of another kind, which its sender can convert, from one that is broken or no picture at all."""
    try:
        kinds = puremagic.magic_string(data[:_MAGIC_BYTES])
    except (puremagic.PureError, ValueError):
        kinds = []
    for kind in kinds:
        if kind.extension in _OUR_SUFFIXES:
            return InvalidImage("image_broken")
        if kind.mime_type.startswith(("image/", "video/")) or kind.mime_type == "application/pdf":
            return UnsupportedMediaType("image_format", name=kind.name, formats=", ".join(FORMATS))
    return InvalidImage("image_unknown", formats=", ".join(FORMATS))


def _too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge("image_pixels", megapixels=f"{max_pixels / 1e6:g}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # A picture with broken EXIF data is still a picture, shown as it lies.
    except Exception:
        return 1


def _apply_exif_orientation(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGB", image.size, BACKGROUND)
        background.paste(image, mask=image.getchannel("A"))
        return background
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8bit(np.asarray(image, dtype=np.float32)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8bit(levels: NDArray[np.float32]) -> Image.Image:
    """Bring grey of more than 8 bits to 8; Pillow would cut it off at 255 instead of scaling it.

    Nothing in a file says how bright its brightest level is meant to be, so its range is taken for the smallest
    usual one that holds all levels: 0..1, 8 bit, 16 bit, else what there is.
    """
    highest = float(levels.max(initial=0, where=np.isfinite(levels)))
    white = next((white for white in (1, 255, 65535) if highest <= white), highest)
    return Image.fromarray((np.nan_to_num(levels) * (255 / white)).clip(0, 255).astype(np.uint8))
