"""From base64 to the model's input: text -> bytes -> picture -> pixels -> tensor. Pure; no HTTP, no gRPC."""

import binascii
import contextlib
import functools
import io
import math
import re
import string
from collections.abc import Callable

import numpy as np
import pi_heif
import puremagic
import pybase64
from budget import PixelBudget, Room
from config import Picture
from errors import ImageTooLarge, InvalidBase64, InvalidImage, ServiceError, UnsupportedMediaType
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

try:
    import cykooz_resizer as fast_resizer
except ImportError:
    fast_resizer = None

# The only decoders that are ever tried: Pillow has 40 more, and each is a door for hostile files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
_OUR_SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".heif"}
# Pillow's decoder of WebP holds the whole picture four times over at its peak, those of other formats about twice.
_WEIGHTS = {"WEBP": 2}
# How far into a file its kind is looked for: past the XML declaration and comments of an SVG.
_MAGIC_BYTES = 512

# What a photo has at most that is quick to prepare, whoever made it.
QUICK_BYTES = 100_000
_QUICK_PIXELS = 500_000
# The marker that each scan of a JPEG begins with.
_SCAN = b"\xff\xda"

# On both sides together; the widest filter, lanczos, reads 3 pixels on each where a picture is enlarged.
_NEIGHBOURS = 16

# What undoes each EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Transparent pixels have no colour of their own. Mid grey is the least striking one for a network
# that was trained on photos; white or black would draw a hard edge around the animal.
GROUND = (127, 127, 127)

_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = string.whitespace.encode("ascii")


def decode_base64(text: str) -> bytes:
    """Decode base64 as people send it: line breaks, a ``data:`` prefix, the URL-safe alphabet, no padding.

    Raises:
        InvalidBase64: empty, or with anything in it that base64 does not have.
    """
    # Nearly all of it is plain base64; whatever is not, this refuses, and the rest below decides.
    with contextlib.suppress(ValueError):
        if text:
            return pybase64.b64decode(text, validate=True)
    prefix = _DATA_URL.match(text, 0, 200)
    try:
        # Bytes, not split and joined as text: that takes 15 times the memory where a body of 20 MB is all short lines.
        payload = text[prefix.end() if prefix else 0 :].encode("ascii").translate(_URL_SAFE, _WHITESPACE).rstrip(b"=")
        if not payload:
            raise InvalidBase64("base64_empty")
        return binascii.a2b_base64(payload + b"=" * (-len(payload) % 4), strict_mode=True)
    except ValueError as exc:
        raise InvalidBase64("base64_invalid") from exc


def decode_image(
    data: bytes,
    max_pixels: int,
    picture: Picture | None = None,
    room: Room | None = None,
    note: Callable[[tuple[str, int, int]], object] | None = None,
) -> Image.Image:
    """Decode a photo's first frame to RGB, turned the way its EXIF orientation says.

    Args:
        data: a file in one of ``FORMATS``.
        max_pixels: limit on width * height (half of it for WebP), checked from the header, before anything is decoded.
        picture: the size that is wanted in the end; a big photo then comes at a reduced scale. None: the whole photo.
        room: for how many pixels it is waited before they are decoded, and which it holds until the photo has its final
            scale; what it raises of ours goes through.
        note: told of the format, width and height as soon as they are known, before anything is refused for them.

    Raises:
        InvalidImage: not a picture, truncated or broken.
        UnsupportedMediaType: a picture, a film or a document of another kind.
        ImageTooLarge: more than ``max_pixels``.
    """
    if not data:
        raise InvalidImage("image_empty")
    _register_heif()
    room = room or PixelBudget(max_pixels).take
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if note is not None:
                note((image.format or "", image.width, image.height))
            weight = _WEIGHTS.get(image.format or "", 1)
            pixels = image.width * image.height * weight
            if pixels > max_pixels:
                raise _too_many_pixels(max_pixels // weight)
            if picture is not None:
                image.draft(None, (_enough(picture), _enough(picture)))
            # All coefficients of a progressive JPEG are in memory, whatever scale it is decoded at.
            with room(pixels if image.info.get("progressive") else image.width * image.height * weight):
                return _to_rgb(_upright(_reduced(image, picture), _orientation(image)))
    except ServiceError:
        raise
    except UnidentifiedImageError as exc:
        raise _unidentified(data) from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_many_pixels(max_pixels) from exc
    # Pillow's parsers let through whatever a broken file makes them trip over: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error, OverflowError, ... For the sender it is all one: the file is broken.
    except Exception as exc:
        raise InvalidImage("image_broken") from exc


def is_quick(data: bytes) -> bool:
    """Whether to decode and fit a photo takes a few milliseconds at most, a few tens if its file is made to take long.

    So it is with a JPEG of few bytes, few pixels and one scan: a scan goes through all pixels, whatever its bytes.
    """
    if len(data) > QUICK_BYTES or data.find(_SCAN) != data.rfind(_SCAN):
        return False
    # Whatever else there is to say about it, ``decode_image`` will.
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.width * image.height <= _QUICK_PIXELS
    return False


@functools.cache
def _register_heif() -> None:
    # Once, and not at import. One thread, as for every other format: the photos are decoded side by side.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener(thumbnails=False)


def _unidentified(data: bytes) -> ServiceError:
    """Tell a file of another kind, which its sender can convert, from one that is broken or no picture at all."""
    try:
        kinds = puremagic.magic_string(data[:_MAGIC_BYTES])
    except (puremagic.PureError, ValueError):
        kinds = []
    for kind in kinds:
        if kind.extension in _OUR_SUFFIXES:
            return InvalidImage("image_broken")
        if kind.mime_type.startswith(("image/", "video/")) or kind.mime_type == "application/pdf":
            return UnsupportedMediaType("image_format", name=kind.name, formats=", ".join(FORMATS))
    return InvalidImage("image_unknown", formats=", ".join(FORMATS))


def _too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge("image_pixels", megapixels=f"{max_pixels / 1e6:g}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # A picture with broken EXIF data is still a picture, shown as it lies.
    except Exception:
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _enough(picture: Picture) -> int:
    """How many pixels the shorter side of a photo needs for ``to_pixels`` not to enlarge it, whichever way it lies.

    A big photo is brought down by whole numbers, as far as that allows, before anything else is done with it, and a
    JPEG is not even decoded at more (1/2, 1/4 or 1/8 of its size): the answer stays the same to 0.5 percentage points
    (formats_test.py), at a fraction of the time and memory.
    """
    return math.ceil(max(picture.width, picture.height) / picture.crop)


def _reduced(image: Image.Image, picture: Picture | None) -> Image.Image:
    """Average whole blocks of pixels, as far as the shorter side stays large enough for ``picture``."""
    image.load()
    if picture is None:
        return image
    factor = min(image.size) // _enough(picture)
    if factor < 2:
        return _middle(image, picture)
    # Neither palette numbers nor pixels of a transparent colour can be averaged.
    if image.has_transparency_data and image.mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
    elif image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    elif image.mode.startswith("I;16"):
        image = image.convert("I")
    return _middle(image.reduce(factor), picture)


def _middle(image: Image.Image, picture: Picture) -> Image.Image:
    """Cut off what ``to_pixels`` would not look at, which of a picture of 3 by 16 million pixels is nearly all.

    As much on both sides, so that the middle stays where it is; and enough is left for either way of turning it, and
    for the neighbours of the outermost pixels, which resampling reads too.
    """
    ratio = max(picture.width, picture.height) / min(picture.width, picture.height)
    longest = math.ceil(min(image.size) * ratio) + _NEIGHBOURS
    left, top = (max(0, (side - longest) // 2) for side in image.size)
    if not (left or top):
        return image
    return image.crop((left, top, image.width - left, image.height - top))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, GROUND)
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    if image.mode.startswith("I") or image.mode == "F":
        return _from_levels(np.asarray(image, dtype=np.float32)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_levels(levels: NDArray[np.float32]) -> Image.Image:
    """Bring grey of more than 8 bits to 8; Pillow would cut it off at 255 instead of scaling it.

    Nothing in a file says how bright its brightest level is meant to be, so its range is taken for the smallest
    usual one that holds all levels: 0..1, 8 bit, 16 bit, else what there is.
    """
    highest = float(levels.max(initial=0, where=np.isfinite(levels)))
    white = next((white for white in (1, 255, 65535) if highest <= white), highest)
    return Image.fromarray((np.nan_to_num(levels) * (255 / white)).clip(0, 255).astype(np.uint8))


def to_pixels(image: Image.Image, picture: Picture) -> NDArray[np.uint8]:
    """Cut the centre to the model's aspect ratio and scale it to the model's size.

    Args:
        image: RGB.
        picture: the recipe.

    Returns:
        uint8 ``[height, width, 3]``. On a machine that the fast resizer is not made for (``requirements.txt``), Pillow
        takes three times as long, and one value in eight is another one: by 2 at most.
    """
    size = (picture.width, picture.height)
    # The middle, of the model's aspect ratio, without the edge that `crop` leaves out; in fractions of a pixel.
    scale = picture.crop * min(image.width / picture.width, image.height / picture.height)
    width, height = min(image.width, scale * picture.width), min(image.height, scale * picture.height)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    # Of the other filters it makes something else than Pillow does.
    if fast_resizer is None or picture.resampling != "bilinear":
        method = Image.Resampling[picture.resampling.upper()]
        return np.asarray(image.resize(size, method, (left, top, left + width, top + height)))
    algorithm = fast_resizer.ResizeAlg.convolution(fast_resizer.FilterType.bilinear)
    box = fast_resizer.CropBox(left, top, width, height)
    # Copies, though it could work in Pillow's own memory: that would hang on how Pillow lays it out.
    source = fast_resizer.ImageData(*image.size, fast_resizer.PixelType.U8x3, image.tobytes())
    target = fast_resizer.ImageData(*size, fast_resizer.PixelType.U8x3)
    fast_resizer.Resizer().resize(source, target, fast_resizer.ResizeOptions(algorithm, crop_box=box))
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(picture.height, picture.width, 3)


def normalise(pixels: NDArray[np.uint8], picture: Picture) -> NDArray[np.float32]:
    """Bring pixels to the numbers that the network wants: float32 of the same shape, ``pixel * scale + offset``."""
    tensor = pixels * np.float32(picture.scale)
    tensor += np.float32(picture.offset)
    return tensor


def to_tensor(image: Image.Image, picture: Picture) -> NDArray[np.float32]:
    """Make the input of ``serving_default`` of a photo.

    Args:
        image: RGB.
        picture: the recipe.

    Returns:
        float32 ``[height, width, 3]``, each value ``pixel * scale + offset``.
    """
    return normalise(to_pixels(image, picture), picture)
