"""Resizes a photo to the model's size, with the method that the model was trained with: Pillow's or TensorFlow's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import cykooz_resizer as fast_resizer
except ImportError:
    fast_resizer = None

if TYPE_CHECKING:
    # Not at run time: the decoder processes do not import pydantic.
    from preprocess_service.app.recipe import Geometry

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Box = tuple[float, float, float, float]


def resize(image: Image.Image, geometry: Geometry) -> Pixels:
    """Resize, crop or pad a photo to ``[height, width, 3]``, 0 to 255, with the dtype ``geometry.dtype``.

    Args:
        image: RGB.
    """
    if geometry.grayscale:
        image = image.convert("L").convert("RGB")
    if geometry.mode == "pad":
        return _pad(image, geometry)
    box = _shown(image, geometry)
    if geometry.box is not None:
        left, top, right, bottom = box
        across, down = _scaled(geometry.box, right - left, bottom - top)
        box = _inside((left + across[0], top + down[0], left + across[1], top + down[1]), image)
    return _resample(image, (geometry.width, geometry.height), box, geometry)


def in_float(geometry: Geometry) -> bool:
    """Return whether a photo is resized in float32, which takes more memory."""
    return geometry.dtype == "float32" or not geometry.antialias


def normalise(pixels: Pixels, scaling: tuple[tuple[float, ...], tuple[float, ...]]) -> NDArray[np.float32]:
    """Scale pixels to the values that the network expects: ``pixel * scale + offset``, float32 of the same shape.

    Args:
        scaling: scale and offset for each channel, from ``PreprocessorConfig.scaling``.
    """
    scale, offset = (np.array(numbers, np.float32) for numbers in scaling)
    tensor: NDArray[np.float32] = pixels * scale
    tensor += offset
    return tensor


def to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    """Round float32 pixels to uint8. uint8 pixels are returned unchanged."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255).astype(np.uint8)  # type: ignore[return-value]


def _shown(image: Image.Image, geometry: Geometry) -> Box:
    """Return the part of a photo that the model's input shows: left, top, right, bottom in pixels. Not for ``pad``."""
    if geometry.mode == "crop":
        return _centre(image, geometry)
    if geometry.mode == "shortest_edge":
        return _centre_of_resized(image, geometry)
    return 0, 0, *image.size


def _scaled(box: Box, width: float, height: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the left and right edge of a box in shares, and its top and bottom, for this width and height."""
    return (box[0] * width, box[2] * width), (box[1] * height, box[3] * height)


def _inside(box: Box, image: Image.Image) -> Box:
    """Return a box without what rounding put outside the photo: Pillow does not accept it."""
    return max(0.0, box[0]), max(0.0, box[1]), min(float(image.width), box[2]), min(float(image.height), box[3])


def _centre(image: Image.Image, geometry: Geometry) -> Box:
    """Return the centre rectangle of the model's aspect ratio: left, top, right, bottom in pixels."""
    ratio = min(image.width / geometry.width, image.height / geometry.height) * geometry.crop
    width, height = min(image.width, ratio * geometry.width), min(image.height, ratio * geometry.height)
    if not geometry.antialias:
        # With TensorFlow, whole pixels are cut first (keras.utils.img_to_array, smart_resize).
        width, height = float(max(1, int(width))), float(max(1, int(height)))
        left, top = float((image.width - width) // 2), float((image.height - height) // 2)
    else:
        left, top = (image.width - width) / 2, (image.height - height) / 2
    return left, top, left + width, top + height


def _pad(image: Image.Image, geometry: Geometry) -> Pixels:
    source, target = np.array(image.size), np.array((geometry.width, geometry.height))
    if geometry.antialias:
        # As Pillow rounds (ImageOps.pad).
        exact = source / (source / target).max()
        size = exact.round().clip(1, target).astype(int)
        left, top = ((target - size) / 2).round().astype(int)
    else:
        # As TensorFlow rounds, in float32 (tf.image.resize_with_pad).
        exact = source.astype(np.float32) / (source.astype(np.float32) / target.astype(np.float32)).max()
        size = np.floor(exact).clip(1, target).astype(int)
        left, top = np.floor((target.astype(np.float32) - exact) / 2).astype(int)
    width, height = (int(side) for side in size)
    pixels = np.empty((geometry.height, geometry.width, 3), geometry.dtype)
    pixels[:] = geometry.pad_color
    part: Box = (0, 0, *image.size)
    if geometry.box is not None:
        across, down = _scaled(geometry.box, geometry.width, geometry.height)
        left, width, *columns = _enlarged(left, width, across, geometry.width)
        top, height, *rows = _enlarged(top, height, down, geometry.height)
        part = columns[0] * image.width, rows[0] * image.height, columns[1] * image.width, rows[1] * image.height
    # A box of a second look may be outside the photo.
    if width > 0 and height > 0:
        placed = _resample(image, (width, height), _inside(part, image), geometry)
        pixels[top : top + height, left : left + width] = placed
    return pixels


def _enlarged(start: int, length: int, box: tuple[float, float], side: int) -> tuple[int, int, float, float]:
    """Return where a photo is along one side of the model's input if only the part ``box`` of the input is shown.

    Args:
        start, length: where it is if all is shown, in pixels of the input, as ``box``.
        side: the length of the input's side.

    Returns:
        Its new start and length, and the part of the photo that is there: from 0 to 1. The length may be 0 or less.
    """
    scale = side / (box[1] - box[0])
    first = max(0, round((start - box[0]) * scale))
    last = min(side, round((start + length - box[0]) * scale))
    begin, end = ((edge / scale + box[0] - start) / length for edge in (first, last))
    return first, last - first, begin, end


def _centre_of_resized(image: Image.Image, geometry: Geometry) -> Box:
    """Return the rectangle that torchvision's ``Resize`` and ``CenterCrop`` keep, in pixels of the photo.

    They truncate the longer side, and round the centre.
    """
    edge = geometry.shortest_edge or 1
    shorter = min(image.size)
    width, height = (edge if side == shorter else int(edge * side / shorter) for side in image.size)
    left, top = round((width - geometry.width) / 2), round((height - geometry.height) / 2)
    # Compute only the part that is kept. For a panorama it is a small part.
    x, y = image.width / width, image.height / height
    return left * x, top * y, (left + geometry.width) * x, (top + geometry.height) * y


def _resample(image: Image.Image, size: tuple[int, ...], box: Box, geometry: Geometry) -> Pixels:
    width, height = size
    method = Image.Resampling[geometry.resampling.upper()]
    if not geometry.antialias and method in _KERNELS:
        values = _interpolate(image, (width, height), box, *_KERNELS[method])
        return values if geometry.dtype == "float32" else to_uint8(values)
    if geometry.dtype == "float32":
        # One band at a time: as float32, each band takes as much memory as the whole photo.
        bands = [image.getchannel(n).convert("F").resize((width, height), method, box) for n in range(3)]
        return np.stack([np.asarray(band) for band in bands], axis=-1).clip(0, 255)
    # The fast resizer differs from Pillow: by at most 2 for this filter, by more for the others.
    if fast_resizer is None or geometry.decode == "exact" or method != Image.Resampling.BILINEAR:
        return np.asarray(image.resize((width, height), method, box))
    left, top, right, bottom = box
    algorithm = fast_resizer.ResizeAlg.convolution(fast_resizer.FilterType.bilinear)
    part = fast_resizer.CropBox(left, top, right - left, bottom - top)
    # Copies, although it could work in Pillow's own memory: that would depend on Pillow's memory layout.
    source = fast_resizer.ImageData(*image.size, fast_resizer.PixelType.U8x3, image.tobytes())
    target = fast_resizer.ImageData(width, height, fast_resizer.PixelType.U8x3)
    fast_resizer.Resizer().resize(source, target, fast_resizer.ResizeOptions(algorithm, crop_box=part))
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def _triangle(distance: NDArray[Any]) -> NDArray[Any]:
    weights: NDArray[Any] = np.maximum(0, 1 - distance)
    return weights


def _cubic(distance: NDArray[Any]) -> NDArray[Any]:
    # Keys (1981) with a = -0.5, as in TensorFlow and Pillow.
    near: NDArray[Any] = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights: NDArray[Any] = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights


# TensorFlow's filters without antialiasing: the weight at a distance in pixels, and the reach in pixels.
_KERNELS: dict[Image.Resampling, tuple[Callable[[NDArray[Any]], NDArray[Any]], int]] = {
    Image.Resampling.BILINEAR: (_triangle, 1),
    Image.Resampling.BICUBIC: (_cubic, 2),
}


def _interpolate(
    image: Image.Image, size: tuple[int, int], box: Box, kernel: Callable[[NDArray[Any]], NDArray[Any]], reach: int
) -> NDArray[np.float32]:
    """Interpolate between pixels without averaging, as ``tf.image.resize(antialias=False)`` does."""
    left, top, right, bottom = (round(edge) for edge in (box[0], box[1], math.ceil(box[2]), math.ceil(box[3])))
    # Copy only the part that is used, not the whole photo.
    part = np.asarray(image.crop((left, top, right, bottom)))
    columns, across = _taps(box[0] - left, box[2] - left, size[0], part.shape[1], kernel, reach)
    rows, down = _taps(box[1] - top, box[3] - top, size[1], part.shape[0], kernel, reach)
    if size[1] * part.shape[1] > size[0] * part.shape[0]:
        # First the direction with the smaller result: for a photo of 3 by 16 million pixels the other one does not fit
        # into memory.
        return _along(_along(part, columns, across, 1), rows, down, 0)
    return _along(_along(part, rows, down, 0), columns, across, 1)


def _along(
    values: NDArray[Any], places: NDArray[np.intp], weights: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """Return the weighted sums of pixels along one axis of ``[height, width, 3]``."""
    shape = list(values.shape)
    shape[axis] = len(places)
    result = np.zeros(shape, np.float32)
    for tap in range(places.shape[1]):
        result += values.take(places[:, tap], axis) * weights[:, tap].reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    return result


def _taps(
    start: float, end: float, count: int, length: int, kernel: Callable[[NDArray[Any]], NDArray[Any]], reach: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the pixels of a line that make each of ``count`` values, and their weights: ``[count, 2 * reach]``."""
    centres = start + (np.arange(count) + 0.5) * ((end - start) / count) - 0.5
    places = np.floor(centres).astype(np.intp)[:, None] + np.arange(1 - reach, reach + 1)
    weights = kernel(np.abs(centres[:, None] - places))
    inside = (places >= 0) & (places < length)
    if reach == 1:
        # Bilinear repeats the outermost pixel. Bicubic ignores pixels outside the photo.
        inside[:] = True
    weights = weights * inside
    return places.clip(0, length - 1), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
