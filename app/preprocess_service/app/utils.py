"""From base64 to a picture: text -> bytes -> picture. Pure; no HTTP, no gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from preprocess_service.app.errors import ImageTooLarge, InvalidImage, ServiceError
from preprocess_service.app.imaging.base64_text import decode_base64 as decode_base64
from preprocess_service.app.imaging.colour import to_rgb
from preprocess_service.app.imaging.decode_cost import DecodeCost, decode_cost, has_one_scan, with_resize
from preprocess_service.app.imaging.downscale import downscale, min_side
from preprocess_service.app.imaging.formats import refusal
from preprocess_service.app.imaging.opening import OpenFile, open_file, orientation, turn_upright
from preprocess_service.app.imaging.resize import in_float

if TYPE_CHECKING:
    # Not at run time: the processes that decode do without the settings and their library.
    from preprocess_service.app.recipe import Geometry

# Base64 as text, or a file's own bytes.
Photo = str | bytes


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before its pixels: width and height in pixels, as stored."""

    format: str
    width: int
    height: int


@dataclass(frozen=True)
class OpenImage:
    """A picture whose header was read; ``cost`` tells what ``decode_open`` will take."""

    file: OpenFile
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
            if picture is not None and picture.decode == "exact":
                cost = with_resize(cost, image, one_scan, in_float(picture))
            yield OpenImage(file, one_scan, cost)
    except ServiceError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_many_pixels(max_pixels) from exc
    except MemoryError as exc:
        raise ImageTooLarge("image_memory") from exc
    # Pillow's parsers let through whatever a broken file makes them trip over: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error, OverflowError, ... For the sender it is all one: the file is broken, or of another kind.
    except Exception as exc:
        raise refusal(data) from exc


def decode_open(opened: OpenImage, picture: Geometry | None = None) -> Image.Image:
    """Decode what ``open_image`` gave, within its block."""
    levels = opened.file.levels
    image = downscale(opened.file.load(), picture, levels)
    return to_rgb(turn_upright(image, orientation(opened.file.image)), levels)


def _too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge("image_pixels", megapixels=f"{max_pixels / 1e6:g}")
