"""Where the model looked: the map, its picture, the part of the photo that it covers, and `explain` in a request."""

import base64
import io
import unittest
from typing import Any

import numpy as np
import requests
from PIL import Image

from preprocess_service.app import app_server
from preprocess_service.app.imaging import attention_map
from preprocess_service.app.imaging.resize import resize, shown
from preprocess_service.app.recipe import Geometry
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, settings
from unit_test.preprocess_service.http_server import serving

PHOTO = {"data": base64.b64decode(CAT), "headers": {"Content-Type": "image/jpeg"}}
NONE = "it has no output 'attention'"


def decoded(explanation: Any) -> Image.Image:
    """The picture of an explanation, as RGBA."""
    content = base64.b64decode(explanation["image"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        return picture.convert("RGBA")


class AttentionMapTest(unittest.TestCase):
    def test_values_become_shares_of_the_largest_one(self) -> None:
        shares = attention_map.relative(np.array([[0, 3], [6, 12]], np.float32), 32)
        np.testing.assert_allclose(shares, [[0, 0.25], [0.5, 1]])
        np.testing.assert_array_equal(attention_map.relative(np.zeros((2, 3), np.float32), 32), np.zeros((2, 3)))

    def test_a_large_map_is_reduced_and_keeps_its_shape(self) -> None:
        large = np.zeros((100, 50), np.float32)
        large[75:, :25] = 7
        shares = attention_map.relative(large, 32)
        self.assertEqual(shares.shape, (32, 16))
        np.testing.assert_allclose(shares[24:, :8], 1, atol=0.01)
        self.assertEqual(shares[:24].max(), 0)

    def test_the_picture_is_small_and_transparent_where_values_are_low(self) -> None:
        for height, width in ((8, 8), (7, 12), (1, 1), (32, 20)):
            with self.subTest(f"{height} x {width}"):
                shares = np.zeros((height, width), np.float32)
                shares[0, width - 1] = 1
                content = attention_map.draw(shares)
                with Image.open(io.BytesIO(content)) as picture:
                    colours = np.asarray(picture.convert("RGBA"))
                self.assertEqual(colours.shape[0] * width, colours.shape[1] * height)
                self.assertLess(len(content), 2000)
                self.assertGreater(colours[0, -1, 3], 150)
                if height > 1:
                    self.assertEqual(colours[-1, 0, 3], 0)


class ShownTest(unittest.TestCase):
    def test_the_part_is_the_one_that_is_resized(self) -> None:
        # In this photo a pixel's red is how far right it is, and its green how far down.
        ramp = Image.linear_gradient("L")
        for width, height in ((300, 200), (200, 310), (256, 256)):
            across, down = ramp.rotate(90).resize((width, height)), ramp.resize((width, height))
            photo = Image.merge("RGB", (across, down, down))
            for options in (
                {"mode": "crop", "crop": 0.8},
                {"mode": "crop", "antialias": False},
                {"mode": "stretch"},
                {"mode": "shortest_edge", "shortest_edge": 40},
                {"mode": "pad"},
                {"mode": "pad", "antialias": False},
            ):
                geometry = Geometry(width=32, height=24, **options)  # type: ignore[arg-type]
                with self.subTest(f"{width} x {height}", **options):
                    left, top, right, bottom = shown((width, height), geometry)
                    pixels = resize(photo, geometry).astype(float) / 255
                    # The middle, away from any padding, and how it grows from there.
                    places = np.stack(np.meshgrid((np.arange(32) + 0.5) / 32, (np.arange(24) + 0.5) / 24), axis=-1)
                    expected = [left, top] + places * [right - left, bottom - top]
                    middle = np.s_[9:15, 12:20]
                    np.testing.assert_allclose(pixels[middle][..., :2], expected[middle], atol=0.025)


class ExplainTest(unittest.TestCase):
    def setUp(self) -> None:
        self.runner = FakeRunner()
        self.runner.attention = np.array([[0, 1], [2, 4]], np.float32)
        self.url = self.enterContext(serving(app_server.create_app(settings(), self.runner)))

    def post(self, path: str = "/predict", **arguments: Any) -> Any:
        return requests.post(f"{self.url}{path}", timeout=30, **arguments).json()

    def test_an_answer_says_where_the_model_looked(self) -> None:
        explanation = self.post(**PHOTO, params={"explain": "true"})["explanation"]
        self.assertEqual(set(explanation), {"attention", "image", "aspect_ratio", "region"})
        self.assertEqual(explanation["attention"], [[0, 0.25], [0.5, 1]])
        with Image.open(io.BytesIO(PHOTO["data"])) as photo:
            width, height = photo.size
        self.assertNotEqual(width, height)
        self.assertAlmostEqual(explanation["aspect_ratio"], width / height, 2)
        # The shipped recipe keeps 0.95 of the centre's square.
        across, down = (0.95 * min(width, height) / side for side in (width, height))
        expected = {
            "left": (1 - across) / 2,
            "top": (1 - down) / 2,
            "right": (1 + across) / 2,
            "bottom": (1 + down) / 2,
        }
        for edge, value in expected.items():
            self.assertAlmostEqual(explanation["region"][edge], value, 3)
        picture = decoded(explanation)
        corners = [picture.getpixel((x, y))[3] for y in (0, 31) for x in (0, 31)]  # type: ignore[index]
        self.assertEqual(corners, sorted(corners))
        self.assertEqual(corners[0], 0)

    def test_it_is_asked_for_as_the_number_of_labels_is(self) -> None:
        for sent, is_there in (
            ({"json": {"image_b64": CAT, "explain": True}}, True),
            ({"json": {"image_b64": CAT, "explain": False}, "params": {"explain": "1"}}, False),
            ({"json": {"image_b64": CAT}, "params": {"explain": "1"}}, True),
            ({**PHOTO, "params": {"explain": "True"}}, True),
            ({**PHOTO, "params": {"explain": "0"}}, False),
            ({**PHOTO, "params": {"explain": "false"}}, False),
            (PHOTO, False),
            ({"files": {"file": PHOTO["data"]}, "params": {"explain": "true", "top_k": "1"}}, True),
        ):
            with self.subTest(str({**sent, "data": None, "files": None})[-90:]):
                self.assertEqual("explanation" in self.post(**sent), is_there)
        batch = {"images_b64": [CAT, "?"], "explain": True}
        found = self.post("/predict/batch", json=batch)["predictions"]
        self.assertEqual(["explanation" in one for one in found], [True, False])

    def test_what_is_neither_yes_nor_no_is_refused(self) -> None:
        for arguments in (
            *({"json": {"image_b64": CAT, "explain": value}} for value in ("true", 2, 1, 0.5, [True])),
            *({**PHOTO, "params": {"explain": value}} for value in ("yes", "", "2", "\u0661")),
        ):
            with self.subTest(str({**arguments, "data": None})[-60:]):
                answer = self.post(**arguments)
                self.assertEqual((answer["code"], answer["msg"]), ("invalid_request", "explain must be true or false."))

    def test_a_model_that_does_not_tell_is_named_as_the_reason(self) -> None:
        self.runner.attention = None
        for language, words in (("en", NONE), ("pt", "ele não tem a saída 'attention'")):
            response = requests.post(
                f"{self.url}/predict?explain=true",
                json={"image_b64": CAT},
                headers={"Accept-Language": language},
                timeout=30,
            )
            self.assertEqual((response.status_code, response.json()["code"]), (400, "no_explanation"))
            self.assertIn(words, response.json()["msg"])
        self.assertEqual(self.post(**PHOTO)["status"], "Success")


if __name__ == "__main__":
    unittest.main()
