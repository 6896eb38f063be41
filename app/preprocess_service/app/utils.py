"""From base64 to the model's input: text -> bytes -> picture -> tensor. Pure; no HTTP, no gRPC."""

import binascii
import io
import re

import numpy as np
from config import Picture
from errors import ImageTooLarge, InvalidBase64, InvalidImage
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# The only decoders that are ever tried: Pillow has 40 more, and each is a door for hostile files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# Transparent pixels have no colour of their own. Mid grey is the least striking one for a network
# that was trained on photos; white or black would draw a hard edge around the animal.
GROUND = (127, 127, 127)

_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")


def decode_base64(text: str) -> bytes:
    """Decode base64 as people send it: line breaks, a ``data:`` prefix, the URL-safe alphabet, no padding.

    Raises:
        InvalidBase64: empty, or with anything in it that base64 does not have.
    """
    prefix = _DATA_URL.match(text, 0, 200)
    payload = "".join(text[prefix.end() if prefix else 0 :].split()).translate(_URL_SAFE).rstrip("=")
    if not payload:
        raise InvalidBase64("Image base64 invalid: the text is empty. Send the picture's bytes as base64.")
    try:
        return binascii.a2b_base64(payload + "=" * (-len(payload) % 4), strict_mode=True)
    except ValueError as exc:
        raise InvalidBase64("Image base64 invalid. Send the picture's bytes as base64, nothing else.") from exc


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a picture's first frame to RGB, turned the way its EXIF orientation says.

    Args:
        data: a file in one of ``FORMATS``.
        max_pixels: limit on width * height, checked from the header, before anything is decoded.

    Raises:
        InvalidImage: not a picture, truncated or broken.
        ImageTooLarge: more than ``max_pixels``.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageTooLarge(_too_many_pixels(max_pixels))
            return _to_rgb(_upright(image))
    except UnidentifiedImageError as exc:
        raise InvalidImage(f"This is not a picture that can be read. Send one of {', '.join(FORMATS)}.") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ImageTooLarge(_too_many_pixels(max_pixels)) from exc
    except ImageTooLarge:
        raise
    # Pillow's parsers let through whatever a broken file makes them trip over: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error, OverflowError, ... For the sender it is all one: the file is broken.
    except Exception as exc:
        raise InvalidImage("The picture is truncated or broken. Save it again and send that file.") from exc


def _too_many_pixels(max_pixels: int) -> str:
    return f"The picture has more than {max_pixels / 1e6:g} megapixels. Send a smaller one."


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    # A picture with broken EXIF data is still a picture, shown as it lies.
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion cuts 16 bit off at 255 instead of scaling it down.
        levels = np.asarray(image, dtype=np.float32)
        image = Image.fromarray((levels / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, GROUND)
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image.convert("RGB")


def to_tensor(image: Image.Image, picture: Picture) -> NDArray[np.float32]:
    """Cut the centre to the model's aspect ratio, scale it to the model's size and normalise.

    Args:
        image: RGB.
        picture: the recipe.

    Returns:
        float32 ``[height, width, 3]``, each value ``pixel * scale + offset``.
    """
    method = Image.Resampling[picture.resampling.upper()]
    fitted = ImageOps.fit(image, (picture.width, picture.height), method, bleed=(1 - picture.crop) / 2)
    tensor = np.asarray(fitted, dtype=np.float32) * np.float32(picture.scale)
    tensor += np.float32(picture.offset)
    return tensor
