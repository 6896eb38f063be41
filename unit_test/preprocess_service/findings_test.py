"""Regression tests for what the fuzzers found. Each body is as small as possible."""

import base64
import io
import tracemalloc
import unittest
from typing import Any

import numpy as np
import requests
from PIL import Image

from preprocess_service.app import app_server
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging import resize
from unit_test.preprocess_service.app_server_test import FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.recipes import GEOMETRY

# A valid PNG of 3 by 16,777,217 RGBA pixels: 50 megapixels, with nearly all of the data missing.
THREAD_OF_PIXELS = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAMBAAABCAYAAAAMmwD3AAAAEElEQVQI12NggIL/////BwAKAwP9F5IZwgAAAABJRU5ErkJggg=="
)


class FormTest(unittest.TestCase):
    def setUp(self) -> None:
        self.url = self.enterContext(serving(app_server.create_app(settings(), FakeRunner())))

    def post(self, content_type: str, body: bytes) -> requests.Response:
        return requests.post(f"{self.url}/predict", data=body, headers={"Content-Type": content_type}, timeout=20)

    def test_a_form_in_a_charset_that_makes_no_text_is_refused(self) -> None:
        for charset, name in (
            ("utf-7", "+2AA-"),  # half of a surrogate pair, which UTF-8 can't encode
            ("unicode_escape", r"\ud800"),
            ("undefined", "foto"),  # Python's codec that always fails
            ("idna", "xn--a-\x7f"),
            ("rot13", "svyr"),
            ("no-such-charset", "foto"),
        ):
            with self.subTest(charset):
                part = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\nx\r\n--b--\r\n'
                answer = self.post(f"multipart/form-data; boundary=b; charset={charset}", part.encode())
                self.assertEqual((answer.status_code, answer.json()["code"]), (422, "invalid_request"))

    def test_json_of_countless_items_is_refused_before_it_is_parsed(self) -> None:
        # 20 MB of this would take 5 GB to parse. This body is short: if it were parsed, the error would be another one.
        for name, body in (
            ("lists", b'{"images_b64": [' + b"[]," * 9999 + b"[]]}"),
            ("fields", b"{" + b'"a":0,' * 9999 + b'"a":0}'),
        ):
            with self.subTest(name):
                for path in ("/predict", "/predict/batch"):
                    headers = {"Content-Type": "application/json"}
                    answer = requests.post(f"{self.url}{path}", data=body, headers=headers, timeout=20)
                    self.assertEqual((answer.status_code, answer.json()["code"]), (422, "invalid_request"))
                    self.assertIn("too many items or fields", answer.json()["msg"])


class DecoderTest(unittest.TestCase):
    def test_base64_in_countless_short_lines_takes_no_more_memory_than_in_one(self) -> None:
        text = "QUJD\n" * 200_000
        tracemalloc.start()
        try:
            service_utils.decode_base64(text)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 6 * len(text))

    def test_of_a_picture_as_thin_as_a_thread_only_the_middle_is_kept(self) -> None:
        config = settings()
        image = service_utils.decode_image(THREAD_OF_PIXELS, config.limits.pixels, GEOMETRY)
        self.assertEqual(image.width, 3)
        self.assertLess(image.height, 100)

    def test_of_a_panorama_only_the_middle_is_kept_at_reduced_scale_too(self) -> None:
        waves = 127 + 100 * np.sin(np.arange(20_000) / 40)[None, :, None] * np.cos(np.arange(600) / 30)[:, None, None]
        panorama = Image.fromarray(np.repeat(waves, 3, axis=2).astype(np.uint8))
        stream = io.BytesIO()
        panorama.save(stream, "PNG")
        middle = service_utils.decode_image(stream.getvalue(), 10**8, GEOMETRY)
        self.assertEqual(middle.height, 300)
        self.assertLess(middle.width, 400)
        found, expected = (resize.resize(part, GEOMETRY) for part in (middle, panorama.reduce(2)))
        np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=2)

    def test_the_middle_gives_the_same_tensor_as_the_whole(self) -> None:
        # One 8-bit level: for tall and for wide pictures Pillow resizes in a different order and rounds differently.
        smaller = GEOMETRY.model_copy(update={"width": 224, "height": 224, "crop": 0.875})
        self.compare_middle_with_whole(smaller, levels=1.01)
        # Pillow rounds in each of two passes. At the served size a few values differ by two levels.
        self.compare_middle_with_whole(GEOMETRY, levels=2.01)

    def compare_middle_with_whole(self, geometry: Any, levels: float) -> None:
        waves = np.sin(np.arange(3000) / 40)[:, None, None] * np.cos(np.arange(301) / 30)[None, :, None]
        tall = Image.fromarray((127 + 100 * waves * [1, -1, 0.5]).astype(np.uint8))
        for name, image, orientation in (
            ("tall", tall, 1),
            ("tall, turned", tall, 6),
            ("wide", tall.rotate(90, expand=True), 1),
            ("wide, turned", tall.rotate(90, expand=True), 8),
            ("tiny", tall.crop((0, 1000, 1, 1041)), 1),
            ("an odd rest", tall.crop((0, 1000, 300, 1347)), 1),
        ):
            with self.subTest(name):
                stream = io.BytesIO()
                exif = Image.Exif()
                exif[0x0112] = orientation
                image.save(stream, "PNG", exif=exif)
                whole = service_utils.decode_image(stream.getvalue(), 10**7)
                middle = service_utils.decode_image(stream.getvalue(), 10**7, geometry)
                self.assertLess(middle.width * middle.height, whole.width * whole.height)
                found, expected = (resize.resize(part, geometry).astype(float) for part in (middle, whole))
                np.testing.assert_allclose(found, expected, rtol=0, atol=levels)
                self.assertLess(float((np.abs(found - expected) > 0.5).mean()), 0.1)


if __name__ == "__main__":
    unittest.main()
