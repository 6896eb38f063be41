"""The photos of the bench: those of images/, and one of them in sizes from 10 KB to 12 megapixels."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tools.load import PHOTOS

# Pixels on the longer side, and JPEG quality. The last is what a phone's camera produces.
SIZES = ((320, 60), (640, 75), (1280, 80), (2016, 88), (3024, 90), (4032, 92))
LARGEST = "12 megapixels"


@dataclass(frozen=True)
class Photo:
    """A photo file and its true class."""

    name: str
    data: bytes
    label: str

    def body(self) -> bytes:
        """Return the JSON body that all contestants accept."""
        return json.dumps({"image_b64": base64.b64encode(self.data).decode("ascii")}).encode()


def shipped_photos() -> list[Photo]:
    """Return the photos of images/. The name of each says whether it shows a cat or a dog."""
    return [Photo(path.name, path.read_bytes(), label_of(path)) for path in PHOTOS]


def label_of(path: Path) -> str:
    """Return the class in a file name: CAT for `cat_1.jpg`."""
    return path.stem.partition("_")[0].upper()


def photos_by_size() -> list[Photo]:
    """Return the same photo in all sizes, small to large. The largest has 4032 by 3024 pixels, as from a phone."""
    return [resized(PHOTOS[0], longest, quality) for longest, quality in SIZES]


def resized(path: Path, longest: int, quality: int) -> Photo:
    """Return a photo as a JPEG of 4:3 with `longest` pixels on its longer side.

    Noise is added to an enlarged photo in place of the missing detail. Without it, the JPEG would be smaller and faster
    to decode than a camera's JPEG of the same size.
    """
    size = (longest, longest * 3 // 4)
    with Image.open(path) as image:
        scaled = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        enlarged = longest > max(image.size)
    pixels = np.asarray(scaled, np.float32)
    if enlarged:
        pixels = pixels + np.random.default_rng(0).normal(0, 5, pixels.shape).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    megapixels = size[0] * size[1] / 1e6
    name = LARGEST if longest == SIZES[-1][0] else f"{megapixels:.2g} megapixels"
    return Photo(name, file.getvalue(), label_of(path))
