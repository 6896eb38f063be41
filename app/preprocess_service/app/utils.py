"""Decodes a photo: base64 text -> bytes -> picture. No HTTP, no gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from preprocess_service.app.errors import ImageTooLarge, InvalidImage, ServiceError
from preprocess_service.app.imaging.base64_text import decode_base64 as decode_base64
from preprocess_service.app.imaging.colour import to_rgb
from preprocess_service.app.imaging.decode_cost import DecodeCost, decode_cost, has_one_scan, with_resize
from preprocess_service.app.imaging.downscale import downscale, min_side, resized_pixels
from preprocess_service.app.imaging.formats import refusal
from preprocess_service.app.imaging.opening import OpenFile, open_file, orientation, turn_upright
from preprocess_service.app.imaging.resize import Pixels, in_float

if TYPE_CHECKING:
    # Not at run time: the decoder processes do not import the settings and pydantic.
    from preprocess_service.app.recipe import Geometry

# Base64 as text, or a file's own bytes.
Photo = str | bytes
# Width and height in pixels.
Size = tuple[int, int]
# The first EXIF orientation that exchanges width and height.
_FIRST_TRANSPOSED = 5


class Prepared(NamedTuple):
    """A photo as the model's input shows it, ``[height, width, 3]``, and the size of the whole upright photo.

    ``size`` may be at a reduced scale: only its aspect ratio counts.
    """

    pixels: Pixels
    size: Size


@dataclass(frozen=True)
class Header:
    """The format of a picture, and its width and height in pixels as stored, read from the file's header."""

    format: str
    width: int
    height: int


@dataclass(frozen=True)
class OpenImage:
    """A picture whose header was read. ``cost`` is the estimated cost of ``decode_open``."""

    file: OpenFile
    one_scan: bool
    cost: DecodeCost


def decode_image(data: bytes, max_pixels: int, picture: Geometry | None = None) -> Image.Image:
    """Decode a photo's first frame to RGB, and turn it by its EXIF orientation.

    Args:
        data: a file in one of ``FORMATS``.
        max_pixels: limit on width * height, checked from the header before the file is decoded.
        picture: the geometry that the photo is resized to later; a large photo may be decoded at a reduced scale.
            None: the whole photo.

    Raises:
        InvalidImage: the file is not a picture, or is truncated or broken.
        UnsupportedMediaType: the file is a picture, video or document of a format that is not supported.
        ImageTooLarge: the picture has more than ``max_pixels``.
    """
    with open_image(data, max_pixels, picture) as opened:
        return decode_open(opened, picture)[0]


@contextlib.contextmanager
def open_image(
    data: bytes,
    max_pixels: int,
    picture: Geometry | None = None,
    on_header: Callable[[Header], object] = bool,
) -> Iterator[OpenImage]:
    """Read a photo's header. Errors in the ``with`` block become those of ``decode_image``.

    Args:
        on_header: called with the header as soon as it is read, before any check of it.
    """
    if not data:
        raise InvalidImage("image_empty")
    try:
        file = open_file(data)
        with file.image as image:
            size = image.size
            on_header(Header(image.format or "", *size))
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(max_pixels)
            one_scan = file.is_reducible and has_one_scan(image, file.data)
            if picture is not None and picture.decode == "fast" and file.is_reducible:
                image.draft(None, (min_side(picture), min_side(picture)))
            cost = decode_cost(image, file.data, size, one_scan)
            if picture is not None and (pixels := resized_pixels(image.size, picture)):
                cost = with_resize(cost, image, one_scan, in_float(picture), pixels)
            yield OpenImage(file, one_scan, cost)
    except ServiceError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_many_pixels(max_pixels) from exc
    except MemoryError as exc:
        raise ImageTooLarge("image_memory") from exc
    # For a broken file Pillow's parsers raise many exceptions: OSError, SyntaxError, struct.error, IndexError,
    # zlib.error, OverflowError, ... To the client they all mean that the file is broken or not supported.
    except Exception as exc:
        raise refusal(data) from exc


def decode_open(opened: OpenImage, picture: Geometry | None = None) -> tuple[Image.Image, Size]:
    """Decode a picture that ``open_image`` opened, within its ``with`` block; return it and the upright photo's size.

    The size may be at a reduced scale. The picture itself may be a part of the photo: pixels that ``resize`` does not
    use are cut off.
    """
    levels = opened.file.levels
    loaded = opened.file.load()
    turn = orientation(opened.file.image)
    size = loaded.size if turn < _FIRST_TRANSPOSED else loaded.size[::-1]
    image = downscale(loaded, picture, levels)
    return to_rgb(turn_upright(image, turn), levels), size


def _too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge("image_pixels", megapixels=f"{max_pixels / 1e6:g}")
