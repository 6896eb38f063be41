"""Tests that a photo gets the same answer from the running pair in each format and each EXIF orientation.

It needs a running pair, like localhost_test.
"""

import io
import unittest
from typing import Any

import requests
from PIL import Image

from unit_test.utils import IMAGES, TIMEOUT_SECONDS, URL, predict_image

CAT = Image.open(IMAGES / "cat_1.jpg").convert("RGB")
# Made once from cat_1.jpg. No package of this project can write the format.
HEIC = IMAGES.parent / "unit_test" / "data" / "cat_1.heic"

LOSSLESS = {
    "PNG": ("PNG", {}),
    "PNG with alpha": ("PNG", {"mode": "RGBA"}),
    "WebP": ("WEBP", {"lossless": True}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "APNG": ("PNG", {"save_all": True, "append_images": [Image.new("RGB", CAT.size)]}),
}
LOSSY = {
    "JPEG, progressive": ("JPEG", {"quality": 95, "progressive": True}),
    "JPEG, CMYK": ("JPEG", {"quality": 95, "mode": "CMYK"}),
    "WebP": ("WEBP", {"quality": 90}),
    "AVIF": ("AVIF", {"quality": 90}),
    "GIF": ("GIF", {}),
    "PNG, palette": ("PNG", {"mode": "P"}),
}
# How a camera stores an upright picture for each EXIF orientation.
STORED = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}


def save(image: Image.Image, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **options)
    return file.getvalue()


def cat_probability(photo: bytes) -> float:
    """Return the service's probability of CAT for the raw bytes, in percentage points."""
    headers = {"Content-Type": "application/octet-stream"}
    answer = requests.post(f"{URL}/predict", data=photo, headers=headers, timeout=TIMEOUT_SECONDS).json()
    assert answer["status"] == "Success", answer
    return float(100 * answer["probabilities"]["CAT"])


class FormatsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        try:
            cls.expected = 100 * predict_image("cat_1.jpg")["probabilities"]["CAT"]
        except requests.ConnectionError:
            raise unittest.SkipTest(f"NOTHING LISTENS AT {URL}. Start the pair: python run.py serve") from None

    def test_every_lossless_format_gives_the_same_probabilities(self) -> None:
        for name, (kind, options) in LOSSLESS.items():
            with self.subTest(name):
                self.assertAlmostEqual(cat_probability(save(CAT, kind, **options)), self.expected, delta=0.1)

    def test_every_lossy_format_gives_nearly_the_same(self) -> None:
        for name, (kind, options) in LOSSY.items():
            with self.subTest(name):
                self.assertAlmostEqual(cat_probability(save(CAT, kind, **options)), self.expected, delta=2)

    def test_a_phones_heic_gives_nearly_the_same(self) -> None:
        self.assertAlmostEqual(cat_probability(HEIC.read_bytes()), self.expected, delta=2)

    def test_all_eight_orientations_agree_within_a_percentage_point(self) -> None:
        for image in ("cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg"):
            upright = Image.open(IMAGES / image).convert("RGB")
            found = []
            for orientation, method in STORED.items():
                exif = Image.Exif()
                exif[0x0112] = orientation
                stored = upright if method is None else upright.transpose(Image.Transpose(method))
                found.append(cat_probability(save(stored, "JPEG", quality=95, exif=exif)))
            with self.subTest(image):
                self.assertLess(max(found) - min(found), 1)

    def test_a_big_photo_gives_what_a_small_one_does(self) -> None:
        for width in (1000, 2000, 4000):
            with self.subTest(width):
                size = (width, round(width * CAT.height / CAT.width))
                photo = save(CAT.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=90)
                self.assertAlmostEqual(cat_probability(photo), self.expected, delta=0.5)
