"""Opens a file with Pillow: with correct pixels, without harm from its metadata, and with its orientation."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import pi_heif
from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from preprocess_service.app.imaging.colour import Levels
from preprocess_service.app.imaging.decoders import bmp, gif, jpeg, png, tiff
from preprocess_service.app.imaging.formats import FORMATS, sniff

_ORIENTATION = 274
_EXIF = b"Exif\0\0"
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# The transposition that undoes each orientation.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class OpenFile:
    """A picture whose header was read.

    Attributes:
        data: the file's bytes that are decoded; some metadata may be removed.
        levels: the meaning of its grey levels.
        is_reducible: whether it can be decoded at a reduced scale.
        load: decodes the pixels.
    """

    image: Image.Image
    data: bytes
    levels: Levels
    is_reducible: bool
    load: Callable[[], Image.Image]


def open_file(data: bytes) -> OpenFile:
    """Read the header of a file in one of ``FORMATS``.

    Raises:
        ServiceError: the variant is not supported; the message names it.
        Exception: any error that Pillow raises for a broken file.
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
        is_reducible = jpeg.is_reducible(data, image.fp.tell() if image.fp else 0)
    else:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    load = functools.partial(_load, image)
    if isinstance(image, TiffImageFile):
        levels = tiff.prepare(image)
    elif png.has_deep_transparency(image, data):
        load = functools.partial(png.load_deep_transparency, image, data)
    elif kind == "BMP":
        load = functools.partial(bmp.load, image)
    elif isinstance(image, GifImageFile):
        load = functools.partial(gif.load, image)
    return OpenFile(image, data, levels, is_reducible, load)


def _load(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _open_jpeg(data: bytes) -> tuple[ImageFile.ImageFile, bytes]:
    """Open a JPEG. If Pillow fails, try again without the metadata."""
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
    # Once, and not at import. One thread, as for all formats: several photos are decoded in parallel.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener(thumbnails=False)


def orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, from the picture's EXIF or else its XMP; 1 if neither has it.

    Pillow turns a TIFF itself when it loads it. Pillow's own EXIF reader is not used: it reads all tags, and each tag
    may be a copy of all metadata.
    """
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    found = tiff.read_directory(exif.removeprefix(_EXIF), {_ORIENTATION}) if isinstance(exif, bytes) else None
    if found and _ORIENTATION in found:
        return found[_ORIENTATION][0]
    match = _XMP.search(xmp) if isinstance(xmp, bytes) else None
    return int(match[1]) if match else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation)
    return image if transpose is None else image.transpose(transpose)
