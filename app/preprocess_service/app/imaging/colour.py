"""From any of Pillow's modes to RGB of 8 bits."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Transparent pixels have no colour of their own. Mid grey is the least striking one for a network
# that was trained on photos; white or black would draw a hard edge around the animal.
BACKGROUND = (127, 127, 127)


@dataclass(frozen=True)
class Levels:
    """What grey of more than 8 bits means: the level of white, by default the mode's highest; or that of black."""

    white: int | None = None
    is_inverted: bool = False


def to_8bit(image: Image.Image, levels: Levels) -> Image.Image:
    """Bring unsigned grey of 16 or 32 bits to 8, ``level * 255 / white``; Pillow would cut it off at 255.

    Returns:
        Mode L, or LA where one level is transparent; all other modes as they are.
    """
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image)
    # Pillow has no mode for 32 bits without a sign.
    pixels = pixels.view(np.uint32) if image.mode == "I" else pixels
    white = levels.white or np.iinfo(pixels.dtype).max
    # 24 bits of a float are enough for 16, which is most of what comes, and take half of the time.
    scale = np.float32(255 / white) if pixels.itemsize == 2 else np.float64(255 / white)
    scaled = np.minimum(pixels * scale + scale.dtype.type(0.5), 255).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if levels.is_inverted else scaled)
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(pixels == transparent, 0, 255).astype(np.uint8)))
    return grey


def to_rgb(image: Image.Image, levels: Levels) -> Image.Image:
    """RGB of 8 bits, on ``BACKGROUND`` where it is transparent."""
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
    # What Pillow makes of CIELAB itself comes from a table that is off by 30 of 255 at the edge of sRGB.
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)


def without_premultiplication(image: Image.Image) -> Image.Image:
    """Grey that was multiplied with its alpha, which Pillow converts to nothing else, as it was before."""
    return image.convert("LA") if image.mode == "La" else image


def _from_float(levels: NDArray[np.float32], is_inverted: bool) -> Image.Image:
    """Bring float grey to 8 bits.

    Nothing in a file says how bright its brightest level is meant to be, so its range is taken for the smallest
    usual one that holds all levels: 0..1, 8 bit, 16 bit, else what there is.
    """
    highest = float(levels.max(initial=0, where=np.isfinite(levels)))
    white = next((white for white in (1, 255, 65535) if highest <= white), highest)
    grey = (np.nan_to_num(levels) * (255 / white)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if is_inverted else grey)
