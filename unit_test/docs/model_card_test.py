"""Tests the model card's figures for the photos of this project."""

import re
import unittest
from pathlib import Path
from typing import Any

from tools.evaluation import photos
from tools.evaluation.predictors.version import VersionPredictor
from unit_test.tools.programs import PROJECT

MODEL = PROJECT / "prev_trained_models" / "CAT-DOG"
MOST_BYTES = 20 * 1000 * 1000


class ModelCardTest(unittest.TestCase):
    card: str
    version: Path
    answers: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.card = (MODEL / "MODEL_CARD.md").read_text("utf-8")
        (cls.version,) = MODEL.glob("[0-9]*")
        predictor = VersionPredictor(cls.version)
        files = sorted((PROJECT / "images").glob("*_?.jpg"))
        cls.answers = {path.name: predictor(path) for path in files}

    def rows(self) -> dict[str, tuple[float, float]]:
        """Return what the card states: file name -> probability of a dog, domain score."""
        found = re.findall(r"^\| `(\w+\.jpg)` \| ([\d.]+) \| ([\d.]+) \|$", self.card, re.MULTILINE)
        return {name: (float(dog), float(score)) for name, dog, score in found}

    def test_card_names_the_version_that_is_shipped(self) -> None:
        self.assertIn(f"# Model card: CAT-DOG, version {self.version.name}\n", self.card)

    def test_every_photo_of_the_project_stands_in_the_card_with_the_models_own_figures(self) -> None:
        rows = self.rows()
        self.assertEqual(set(rows), set(self.answers))
        for name, answer in self.answers.items():
            with self.subTest(name):
                self.assertAlmostEqual(float(answer.probabilities[1]), rows[name][0], delta=1e-3)
                self.assertAlmostEqual(float(answer.domain), rows[name][1], delta=1e-3)

    def test_photos_get_their_labels_and_are_told_to_be_of_a_cat_or_a_dog(self) -> None:
        labels = [label.lower() for label in photos.read_labels(MODEL / "labels.txt")]
        stated = re.search(r"threshold (0\.\d+)", self.card)
        assert stated is not None
        for name, answer in self.answers.items():
            with self.subTest(name):
                self.assertEqual(labels[int(answer.probabilities.argmax())], name[:3])
                self.assertGreaterEqual(answer.domain, float(stated[1]))

    def test_version_folder_is_as_small_as_was_promised(self) -> None:
        size = sum(path.stat().st_size for path in self.version.rglob("*") if path.is_file())
        self.assertLessEqual(size, MOST_BYTES)

    def test_warm_up_requests_come_with_the_model(self) -> None:
        self.assertTrue((self.version / "assets.extra" / "tf_serving_warmup_requests").is_file())


if __name__ == "__main__":
    unittest.main()
