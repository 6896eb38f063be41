"""Reduces a large photo at low cost before all other steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

from preprocess_service.app.imaging.colour import Levels, to_8bit, without_premultiplication

if TYPE_CHECKING:
    from preprocess_service.app.recipe import Geometry

# The number of pixels that are averaged at a time.
_BAND_PIXELS = 1 << 18

# Pixels for both sides together. If a picture is enlarged, the widest filter (lanczos) reads 3 pixels on each side.
FILTER_MARGIN = 16


def min_side(picture: Geometry) -> int:
    """Return how many pixels the shorter side of a photo needs so that ``resize`` does not enlarge it.

    It holds for any orientation. A large photo is first reduced by a whole number, as far as this size allows. A JPEG
    is even decoded at 1/2, 1/4 or 1/8 of its size. This takes a fraction of the time and memory, and changes the answer
    by at most 0.5 percentage points (formats_test.py).
    """
    left, top, right, bottom = picture.box or (0, 0, 1, 1)
    kept = picture.crop * min(right - left, bottom - top)
    return math.ceil(max(picture.width, picture.height, picture.shortest_edge or 0) / kept)


def resized_pixels(size: tuple[int, int], picture: Geometry) -> int:
    """Return how many pixels of a decoded photo are turned, converted and resized, if that takes memory of its own.

    Returns:
        0: the photo is reduced first, to so few pixels that its decoding takes more memory.
    """
    if picture.decode == "exact":
        return math.prod(size)
    if picture.box is None:
        return 0
    factor = max(1, min(size) // min_side(picture))
    width, height = (math.ceil(side / factor) for side in size)
    longest = _longest_side((width, height), picture) if picture.mode == "crop" else max(width, height)
    return min(width, longest) * min(height, longest)


def downscale(image: Image.Image, picture: Geometry | None, levels: Levels) -> Image.Image:
    """Average blocks of a loaded picture, by a factor that leaves the shorter side large enough for ``picture``."""
    if picture is None or picture.decode == "exact":
        return image
    factor = min(image.size) // min_side(picture)
    image = image if factor < 2 else _reduce_in_bands(image, factor, levels)
    return center_crop(image, picture) if picture.mode == "crop" else image


def _reduce_in_bands(image: Image.Image, factor: int, levels: Levels) -> Image.Image:
    """Reduce a picture by a whole number, a band of rows at a time.

    To convert all rows at once to a mode that can be averaged would take several times the memory of the picture.
    """
    rows = factor * max(1, _BAND_PIXELS // (image.width * factor))
    result: Image.Image | None = None
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        band = without_premultiplication(to_8bit(band, levels))
        # Neither palette numbers nor pixels of a transparent colour can be averaged.
        if band.has_transparency_data and band.mode not in ("RGBA", "LA"):
            band = band.convert("RGBA")
        elif band.mode in ("1", "P"):
            band = band.convert("L" if band.mode == "1" else "RGB")
        band = band.reduce(factor)
        if result is None:
            result = Image.new(band.mode, (band.width, math.ceil(image.height / factor)))
            result.info = band.info
        result.paste(band, (0, top // factor))
    assert result is not None
    return result


def center_crop(image: Image.Image, picture: Geometry) -> Image.Image:
    """Cut off pixels that ``resize`` does not use: nearly all of them for a picture of 3 by 16 million pixels.

    It cuts the same from both sides, so that the centre stays. It keeps enough for any orientation, and the
    FILTER_MARGIN, because resampling reads the neighbours of the outermost pixels too.
    """
    longest = _longest_side(image.size, picture)
    left, top = (max(0, (side - longest) // 2) for side in image.size)
    if not (left or top):
        return image
    return image.crop((left, top, image.width - left, image.height - top))


def _longest_side(size: tuple[int, int], picture: Geometry) -> int:
    """Return how many pixels the longer side of a photo keeps in ``center_crop``."""
    ratio = max(picture.width, picture.height) / min(picture.width, picture.height)
    return math.ceil(min(size) * ratio) + FILTER_MARGIN
