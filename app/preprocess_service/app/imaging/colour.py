"""Converts pictures of any Pillow mode to 8-bit RGB."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from preprocess_service.app.imaging.kinds import unsupported_variant

# The colour of transparent pixels. Mid grey disturbs a network that was trained on photos least. White or black would
# make a hard edge around the animal.
BACKGROUND = (127, 127, 127)


@dataclass(frozen=True)
class Levels:
    """The meaning of grey levels of more than 8 bits.

    Attributes:
        white: the level of white; None: the highest level of the mode.
        is_inverted: whether 0 is white.
    """

    white: int | None = None
    is_inverted: bool = False


def to_8bit(image: Image.Image, levels: Levels) -> Image.Image:
    """Convert unsigned grey of 16 or 32 bits to 8 bits: ``level * 255 / white``. Pillow would clip it at 255.

    Returns:
        A picture of mode L, or LA if one level is transparent. Pictures of all other modes are returned unchanged.
    """
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image)
    # Pillow has no mode for unsigned 32 bits.
    pixels = pixels.view(np.uint32) if image.mode == "I" else pixels
    white = levels.white or np.iinfo(pixels.dtype).max
    # The 24 bits of a float32 are enough for 16-bit levels, the usual case, and take half the time.
    scale = np.float32(255 / white) if pixels.itemsize == 2 else np.float64(255 / white)
    scaled = np.minimum(pixels * scale + scale.dtype.type(0.5), 255).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if levels.is_inverted else scaled)
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(pixels == transparent, 0, 255).astype(np.uint8)))
    return grey


def to_rgb(image: Image.Image, levels: Levels) -> Image.Image:
    """Convert a picture to 8-bit RGB. Transparent pixels are drawn on ``BACKGROUND``."""
    if image.mode == "F":
        return _from_float(np.asarray(image), levels.is_inverted).convert("RGB")
    image = to_8bit(image, levels)
    if image.has_transparency_data:
        image = without_premultiplication(image).convert("RGBA")
        background = Image.new("RGB", image.size, BACKGROUND)
        background.paste(image, mask=image.getchannel("A"))
        return background
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_rgb()) or image
    return image if image.mode == "RGB" else image.convert("RGB")


@functools.cache
def _lab_to_rgb() -> ImageCms.ImageCmsTransform:
    # Pillow's own conversion of CIELAB uses a table that is wrong by 30 of 255 at the edge of sRGB.
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)


def without_premultiplication(image: Image.Image) -> Image.Image:
    """Undo the multiplication of grey with its alpha (mode La): Pillow can't convert that mode to RGB."""
    return image.convert("LA") if image.mode == "La" else image


def _from_float(levels: NDArray[np.float32], is_inverted: bool) -> Image.Image:
    """Convert float grey to 8 bits.

    A file does not say which level is white. So the range is the smallest of 0 to 1, 0 to 255 and 0 to 65535 that holds
    all levels, else 0 to the highest level.

    Raises:
        UnsupportedMediaType: a level is below 0. No range is usual for such levels.
    """
    highest = float(levels.max(initial=0, where=np.isfinite(levels)))
    white = next((white for white in (1, 255, 65535) if highest <= white), highest)
    if levels.min(initial=0, where=np.isfinite(levels)) < -white / 510:  # what rounds to 0 is black
        raise unsupported_variant("TIFF of numbers below 0")
    grey = (np.nan_to_num(levels) * (255 / white)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if is_inverted else grey)
