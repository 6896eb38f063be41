"""Tests 8-bit quantization: the ranges with the least loss, and a graph that both runtimes compute alike."""

import tempfile
import unittest
from pathlib import Path

import numpy as np

from tools import service
from tools.evaluation import photos
from tools.training.backbone import calibration, efficientnet_lite, quantization
from unit_test.tools.programs import PROJECT


class RangeTest(unittest.TestCase):
    def test_numbers_on_the_steps_are_not_changed(self) -> None:
        values = (np.arange(256, dtype=np.float32) - 100) * 0.5
        self.assertAlmostEqual(quantization.rounding_error(values, -50.0, 77.5), 0.0, places=9)

    def test_error_is_that_of_rounding_to_a_step(self) -> None:
        values = np.random.default_rng(1).uniform(0, 255, 100_000).astype(np.float32)
        self.assertAlmostEqual(quantization.rounding_error(values, 0.0, 255.0), 1 / 12, places=3)

    def test_a_lonely_number_far_away_is_cut_off(self) -> None:
        values = np.append(np.random.default_rng(2).normal(size=1_000_000), 20.0).astype(np.float32)
        low, high = quantization.best_range(values)
        self.assertLess(high, 15)
        self.assertLess(low, 0)

    def test_range_holds_nought_whatever_the_numbers(self) -> None:
        for values in (np.full(5, 3.0, np.float32), np.zeros(5, np.float32), np.full(5, -3.0, np.float32)):
            with self.subTest(values=values[0]):
                low, high = quantization.best_range(values)
                self.assertLessEqual(low, 0)
                self.assertGreater(high, 0)


class CalibrationTest(unittest.TestCase):
    def test_every_source_gives_as_many_photos_as_it_can(self) -> None:
        images = sorted((PROJECT / "images").glob("*_?.jpg"))
        many = [photos.Photo(images[0], 0, "many")] * (2 * calibration.CALIBRATION_PHOTOS)
        few = [photos.Photo(images[1], 0, "few")] * 3
        chosen = calibration.calibration_pictures([*many, *few], service.read_config(None))
        self.assertEqual(len(chosen), calibration.CALIBRATION_PHOTOS)
        rare = sum(np.array_equal(picture, chosen[0]) for picture in chosen)
        self.assertIn(rare, (3, calibration.CALIBRATION_PHOTOS - 3))

    def test_no_readable_photo_is_said(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "torn.jpg"
            path.write_bytes(b"torn")
            with self.assertRaisesRegex(calibration.CalibrationError, "no readable photo"):
                calibration.calibration_pictures([photos.Photo(path, 0, "any")], service.read_config(None))


class ReadTest(unittest.TestCase):
    def test_every_convolution_but_no_sum_is_given_what_it_reads(self) -> None:
        network = efficientnet_lite.load_network(efficientnet_lite.VARIANTS["lite0"])
        names: list[str] = []

        def read(name: str, value: float) -> float:
            names.append(name)
            return value

        efficientnet_lite.apply_network(network, 0.0, lambda value, _: value, read)
        convolutions = 2 + sum(len(block.convolutions) for block in network.blocks)
        self.assertEqual(len(names), convolutions)
        self.assertEqual(len(set(names)), convolutions)


if __name__ == "__main__":
    unittest.main()
