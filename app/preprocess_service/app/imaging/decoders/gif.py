"""GIF: the background around a first frame that is smaller than the canvas."""

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from preprocess_service.app.imaging.colour import BACKGROUND


def is_covered(image: GifImageFile) -> bool:
    """Return whether the first frame, not loaded yet, fills the canvas, or the rest of the canvas is transparent."""
    return "transparency" in image.info or all(tile.extents == (0, 0, *image.size) for tile in image.tile)


def load(image: GifImageFile) -> Image.Image:
    """Decode an open GIF. The background colour surrounds the frame (GIF89a, 18); Pillow uses the first colour."""
    frame, is_whole = image.tile[0].extents if image.tile else None, is_covered(image)
    image.load()
    if is_whole or not frame:
        return image
    canvas = Image.new("RGB", image.size, _background(image))
    canvas.paste(image.crop(frame).convert("RGB"), frame)
    return canvas


def _background(image: GifImageFile) -> tuple[int, ...]:
    """Return the background colour from the global palette; without one, ``BACKGROUND``."""
    index, palette = image.info.get("background"), image.global_palette
    if index is None:
        return BACKGROUND
    # Pillow drops a palette that is a ramp of greys. Then the index is the grey level.
    colour = tuple(palette.palette[3 * index : 3 * index + 3]) if palette else (index,) * 3
    return colour if len(colour) == 3 else BACKGROUND
