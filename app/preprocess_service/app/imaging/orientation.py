"""How a picture lies: the EXIF orientation alone, whatever else its metadata holds."""

import re

from PIL import Image

from preprocess_service.app.imaging.tiff import read_directory

_ORIENTATION = 274
_EXIF = b"Exif\0\0"
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# What undoes each orientation.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """1 to 8 by the picture's EXIF, else by its XMP; 1 where neither tells. Pillow turns a TIFF itself, as it loads it.

    Pillow would read all tags, of which each may be a copy of all metadata.
    """
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    found = read_directory(exif.removeprefix(_EXIF), {_ORIENTATION}) if isinstance(exif, bytes) else None
    if found and _ORIENTATION in found:
        return found[_ORIENTATION][0]
    match = _XMP.search(xmp) if isinstance(xmp, bytes) else None
    return int(match[1]) if match else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation)
    return image if transpose is None else image.transpose(transpose)
