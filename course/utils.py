"""Helps the service with base64 and images."""

import base64
import io

from PIL import Image, UnidentifiedImageError


def is_image(image_b64: str) -> bool:
    """Return whether the text is base64 of an image that Pillow can open."""
    try:
        open_image(image_b64)
    except (ValueError, UnidentifiedImageError):
        return False
    return True


def open_image(image_b64: str) -> Image.Image:
    """Return the image behind the base64. Pillow reads its pixels later, when they are needed."""
    return Image.open(io.BytesIO(base64.b64decode(image_b64, validate=True)))
