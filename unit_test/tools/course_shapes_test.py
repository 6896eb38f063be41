"""Tests the drawings that stand in for a reader's photos in the course."""

import contextlib
import io
import random
import tempfile
import unittest
from pathlib import Path

import numpy as np

from course.shapes import draw


def drawn(seed: int = 1, look: str = "usual", photos: int = 3) -> dict[str, bytes]:
    """Return the files that are drawn, by their path in the folder."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        draw.draw(Path(name), photos, seed, look)
        return {path.relative_to(name).as_posix(): path.read_bytes() for path in Path(name).rglob("*.*")}


def inside(label: str, look: str, seed: int) -> np.ndarray:
    """Return which pixels belong to the shape: those that are not like the corner of the photo."""
    pixels = np.asarray(draw.photo(label, random.Random(seed), look), np.float32)
    return np.abs(pixels - pixels[:10, :10].mean((0, 1))).sum(2) > 100


class DrawTest(unittest.TestCase):
    def test_one_folder_per_label_has_as_many_photos_as_asked_and_all_differ(self) -> None:
        files = drawn()
        names = [f"{label}/usual_1_{number:03}.jpg" for label in draw.LABELS for number in (1, 2, 3)]
        self.assertEqual(sorted(files), names)
        self.assertEqual(len(set(files.values())), 9)

    def test_the_same_seed_draws_the_same_photos_and_another_one_others(self) -> None:
        self.assertEqual(drawn(), drawn())
        self.assertFalse(set(drawn().values()) & set(drawn(seed=2).values()))

    def test_a_look_with_another_seed_adds_photos_to_the_same_folder(self) -> None:
        self.assertFalse(set(drawn()) & (set(drawn(seed=2)) | set(drawn(look="outlines"))))

    def test_a_shape_is_what_its_label_says(self) -> None:
        # The share of the smallest upright box that the shape fills, averaged over its rotations: 0.79 for a circle,
        # 0.64 for a square, 0.48 for a triangle.
        shares = {}
        for label in draw.LABELS:
            found = []
            for seed in range(40):
                rows, columns = np.nonzero(inside(label, "usual", seed))
                found.append(len(rows) / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
            shares[label] = float(np.mean(found))
        self.assertAlmostEqual(shares["circle"], 0.79, delta=0.04)
        self.assertAlmostEqual(shares["square"], 0.64, delta=0.05)
        self.assertAlmostEqual(shares["triangle"], 0.48, delta=0.05)

    def test_backlight_is_dark_on_light_and_outlines_are_empty(self) -> None:
        for seed in range(10):
            usual, backlight = (
                np.asarray(draw.photo("circle", random.Random(seed), look), np.float32).mean(2)
                for look in ("usual", "backlight")
            )
            shape = inside("circle", "usual", seed)
            with self.subTest(seed):
                self.assertGreater(usual[shape].mean(), usual[~shape].mean())
                self.assertLess(backlight[shape].mean(), backlight[~shape].mean())
                self.assertLess(inside("circle", "outlines", seed).sum(), 0.5 * shape.sum())


if __name__ == "__main__":
    unittest.main()
