"""From base64 to the model's input: text -> bytes -> picture -> pixels -> tensor. Pure; no HTTP, no gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocess_service.app.errors import ImageTooLarge, InvalidImage, ServiceError
from preprocess_service.app.imaging.base64_text import decode_base64 as decode_base64
from preprocess_service.app.imaging.colour import to_rgb
from preprocess_service.app.imaging.decode_cost import DecodeCost, decode_cost, has_one_scan
from preprocess_service.app.imaging.downscale import downscale, min_side
from preprocess_service.app.imaging.formats import refusal
from preprocess_service.app.imaging.opening import OpenFile, open_file, orientation, turn_upright

try:
    import cykooz_resizer as fast_resizer
except ImportError:
    fast_resizer = None

if TYPE_CHECKING:
    # Not at run time: the processes that decode do without the settings and their library.
    from preprocess_service.app.config import Picture

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


def decode_image(data: bytes, max_pixels: int, picture: Picture | None = None) -> Image.Image:
    """Decode a photo's first frame to RGB, turned the way its EXIF orientation says.

    Args:
        data: a file in one of ``FORMATS``.
        max_pixels: limit on width * height, checked from the header, before anything is decoded.
        picture: the size that is wanted in the end; a big photo then comes at a reduced scale. None: the whole photo.

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
    picture: Picture | None = None,
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
            if picture is not None and file.is_reducible:
                image.draft(None, (min_side(picture), min_side(picture)))
            yield OpenImage(file, one_scan, decode_cost(image, file.data, size, one_scan))
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


def decode_open(opened: OpenImage, picture: Picture | None = None) -> Image.Image:
    """Decode what ``open_image`` gave, within its block."""
    levels = opened.file.levels
    image = downscale(opened.file.load(), picture, levels)
    return to_rgb(turn_upright(image, orientation(opened.file.image)), levels)


def _too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge("image_pixels", megapixels=f"{max_pixels / 1e6:g}")


def to_pixels(image: Image.Image, picture: Picture) -> NDArray[np.uint8]:
    """Cut the centre to the model's aspect ratio and scale it to the model's size.

    Args:
        image: RGB.
        picture: the recipe.

    Returns:
        uint8 ``[height, width, 3]``. On a machine that the fast resizer is not made for (``requirements.txt``), Pillow
        takes three times as long, and one value in eight is another one: by 2 at most.
    """
    size = (picture.width, picture.height)
    # The middle, of the model's aspect ratio, without the edge that `crop` leaves out; in fractions of a pixel.
    scale = picture.crop * min(image.width / picture.width, image.height / picture.height)
    width, height = min(image.width, scale * picture.width), min(image.height, scale * picture.height)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    # Of the other filters it makes something else than Pillow does.
    if fast_resizer is None or picture.resampling != "bilinear":
        method = Image.Resampling[picture.resampling.upper()]
        return np.asarray(image.resize(size, method, (left, top, left + width, top + height)))
    algorithm = fast_resizer.ResizeAlg.convolution(fast_resizer.FilterType.bilinear)
    box = fast_resizer.CropBox(left, top, width, height)
    # Copies, though it could work in Pillow's own memory: that would hang on how Pillow lays it out.
    source = fast_resizer.ImageData(*image.size, fast_resizer.PixelType.U8x3, image.tobytes())
    target = fast_resizer.ImageData(*size, fast_resizer.PixelType.U8x3)
    fast_resizer.Resizer().resize(source, target, fast_resizer.ResizeOptions(algorithm, crop_box=box))
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(picture.height, picture.width, 3)


def normalise(pixels: NDArray[np.uint8], picture: Picture) -> NDArray[np.float32]:
    """Bring pixels to the numbers that the network wants: float32 of the same shape, ``pixel * scale + offset``."""
    tensor = pixels * np.float32(picture.scale)
    tensor += np.float32(picture.offset)
    return tensor


def to_tensor(image: Image.Image, picture: Picture) -> NDArray[np.float32]:
    """Make the input of ``serving_default`` of a photo.

    Args:
        image: RGB.
        picture: the recipe.

    Returns:
        float32 ``[height, width, 3]``, each value ``pixel * scale + offset``.
    """
    return normalise(to_pixels(image, picture), picture)
