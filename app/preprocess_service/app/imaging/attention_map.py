"""Draws a model's attention, one value for each place of a photo, as a small picture to lay over the photo."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The longer side of the picture in pixels, or a little less. A browser enlarges it smoothly.
_SIDE = 32
# More are no visible gain, and each takes four bytes of the file.
_LEVELS = 64
# Colours from the lowest to the highest value. All of them are rare in photos.
_COLOURS = ((70, 0, 140), (225, 40, 110), (255, 225, 70))
# Values below the first share are invisible, and the highest one still lets the photo through.
_INVISIBLE, _OPACITY = 0.1, 0.75


def relative(attention: NDArray[np.float32], longest_side: int) -> NDArray[np.float32]:
    """Divide a map by its maximum.

    Args:
        attention: ``[height, width]``, 0 or more.
        longest_side: a map with a longer side is reduced to it.

    Returns:
        ``[height, width]``, 0 to 1; all 0 if the map is.
    """
    longer = max(attention.shape)
    if longer > longest_side:
        height, width = (max(1, round(side * longest_side / longer)) for side in attention.shape)
        size = (width, height)
        attention = np.asarray(Image.fromarray(attention).resize(size, Image.Resampling.BOX))
    most = attention.max()
    return attention / most if most > 0 else np.zeros_like(attention)


def draw(shares: NDArray[np.float32]) -> bytes:
    """Return a PNG of a map of values from 0 to 1, transparent where they are low."""
    height, width = shares.shape
    scale = max(1, _SIDE // max(height, width))
    smooth = Image.fromarray(shares).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    picture = Image.fromarray(np.rint(np.asarray(smooth).clip(0, 1) * (_LEVELS - 1)).astype(np.uint8))
    picture.putpalette(_PALETTE)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=_TRANSPARENCY)
    return file.getvalue()


def _ramp(values: Sequence[float], at: Sequence[float]) -> NDArray[np.uint8]:
    return np.rint(np.interp(np.linspace(0, 1, _LEVELS), at, values)).astype(np.uint8)


_PALETTE = np.stack([_ramp(channel, (0, 0.5, 1)) for channel in zip(*_COLOURS, strict=True)], axis=1).tobytes()
_TRANSPARENCY = _ramp((0, 255 * _OPACITY), (_INVISIBLE, 1)).tobytes()
