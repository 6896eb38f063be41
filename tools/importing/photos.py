"""The photos on which answers are compared: the user's own, and generated ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from preprocess_service.app.recipe import MADE
from tools.importing.network import Array, ImportProblem
from tools.service import PROJECT, ServiceError, decode_image

_MOST_PIXELS = 51_000_000
# The limits of a golden photo: longer side in pixels, file size in bytes.
_GOLDEN_SIDE, _GOLDEN_BYTES = 640, 300_000
_SIZES = ((320, 240), (240, 352), (400, 300), (256, 256), (480, 300))


@dataclass(frozen=True)
class Photo:
    """A photo's file, and its pixels, RGB and upright."""

    name: str
    data: bytes
    image: Image.Image


def read_photo(path: Path) -> Photo:
    """Read a photo as the preprocess service does; raises ImportProblem."""
    if path.exists() and not path.is_file():
        raise ImportProblem(f"{path} is no regular file: give a photo")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ImportProblem(f"{path} can't be read ({exc.strerror})") from exc
    return _photo(path.name, data)


def made_photos(count: int = 5) -> list[Photo]:
    """Return generated photos, always the same: shapes of many colours with soft and hard edges, in several sizes."""
    return [_photo(f"{MADE}{number + 1}.jpg", _encoded(_made(number))) for number in range(count)]


def sample_images() -> list[Image.Image]:
    """Return real photos. Their pixel statistics are what a network's first layers expect."""
    paths = sorted((PROJECT / "images").glob("*_[12].jpg"))
    return [read_photo(path).image for path in paths] or [photo.image for photo in made_photos()]


def smaller(photo: Photo) -> Photo:
    """Return the same photo in a file that is small enough for a golden photo."""
    if max(photo.image.size) <= _GOLDEN_SIDE and len(photo.data) <= _GOLDEN_BYTES:
        return photo
    image = photo.image.copy()
    image.thumbnail((_GOLDEN_SIDE, _GOLDEN_SIDE), Image.Resampling.LANCZOS)
    return _photo(f"{Path(photo.name).stem}.jpg", _encoded(image))


def numbered(photos: Sequence[Photo]) -> list[Photo]:
    """Return the same photos with different names, which say nothing about their owner."""
    kinds = {"JPEG": "jpg"}
    names = [kinds.get(kind, kind.lower()) for kind in (_format(photo.data) for photo in photos)]
    return [
        Photo(f"golden_{number}.{kind}", photo.data, photo.image)
        for number, (photo, kind) in enumerate(zip(photos, names, strict=True), start=1)
    ]


def _photo(name: str, data: bytes) -> Photo:
    try:
        return Photo(name, data, decode_image(data, _MOST_PIXELS))
    except ServiceError as exc:
        raise ImportProblem(f"{name} can't be read as a photo ({exc})") from exc


def _format(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return image.format or "jpg"


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def _made(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    width, height = _SIZES[number % len(_SIZES)]
    corners: Array = random.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    image = Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = int(random.integers(0, width)), int(random.integers(0, height))
        right, bottom = left + int(random.integers(8, width // 2)), top + int(random.integers(8, height // 2))
        color = tuple(int(level) for level in random.integers(0, 256, 3))
        (draw.ellipse if random.random() < 0.6 else draw.rectangle)((left, top, right, bottom), fill=color)
    soft = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0.5, 2.5))))
    noise = random.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(soft) + noise).clip(0, 255).astype(np.uint8))
