"""Opens a file with Pillow, so that its pixels come out right and its metadata do no harm."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import pi_heif
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from preprocess_service.app.imaging import bmp, jpeg, png, tiff
from preprocess_service.app.imaging.colour import Levels
from preprocess_service.app.imaging.formats import FORMATS, sniff


@dataclass(frozen=True)
class OpenFile:
    """A picture whose header was read; ``data``: its file as it is decoded; ``load``: decodes it."""

    image: Image.Image
    data: bytes
    levels: Levels
    is_reducible: bool
    load: Callable[[], Image.Image]


def open_file(data: bytes) -> OpenFile:
    """Read the header of a file in one of ``FORMATS``.

    Raises:
        ServiceError: it is refused by name.
        Exception: whatever a broken file makes Pillow raise.
    """
    _register_heif()
    kind = sniff(data)
    levels, is_reducible = Levels(), False
    if kind == "PNG":
        data = png.without_metadata(data)
    elif kind == "TIFF":
        tiff.check(data)
    if kind == "JPEG":
        image, data = _open_jpeg(data)
        is_reducible = jpeg.is_reducible(data)
    else:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    load = functools.partial(_load, image)
    if isinstance(image, TiffImageFile):
        levels = tiff.prepare(image)
    elif png.has_deep_transparency(image, data):
        load = functools.partial(png.load_deep_transparency, image, data)
    elif kind == "BMP":
        load = functools.partial(bmp.load, image)
    return OpenFile(image, data, levels, is_reducible, load)


def _load(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _open_jpeg(data: bytes) -> tuple[Image.Image, bytes]:
    """Open a JPEG; where Pillow stumbles on its metadata, without them."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS), data
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        stripped, exif = jpeg.without_metadata(data)
        image = Image.open(io.BytesIO(stripped), formats=FORMATS)
        image.info["exif"] = exif
        return image, stripped


@functools.cache
def _register_heif() -> None:
    # Once, and not at import. One thread, as for every other format: the photos are decoded side by side.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener(thumbnails=False)
