"""Tests the measures of calibration and of the domain score, and the features from ImageNet's cats and dogs."""

import unittest

import numpy as np

from tools.evaluation import measures
from tools.evaluation.report import domain
from tools.training.cats_and_dogs import animals


class MeasuresTest(unittest.TestCase):
    def test_error_is_nought_where_confidence_is_accuracy(self) -> None:
        bins = measures.reliability(np.full(4, 0.75, np.float32), np.array([True, True, True, False]))
        self.assertEqual([found.count for found in bins], [4])
        self.assertAlmostEqual(measures.expected_calibration_error(bins), 0.0)

    def test_error_weighs_bins_by_their_answers(self) -> None:
        confidences = np.array([1.0, 1.0, 1.0, 0.5], np.float32)
        bins = measures.reliability(confidences, np.array([True, True, True, False]))
        self.assertAlmostEqual(measures.expected_calibration_error(bins), 0.25 * 0.5)

    def test_area_counts_ties_half(self) -> None:
        inside, outside = np.array([0.9, 0.5], np.float32), np.array([0.5, 0.1], np.float32)
        self.assertAlmostEqual(measures.auroc(inside, outside), (2 + 1.5) / 4)


class DomainTest(unittest.TestCase):
    def test_lookalikes_stand_apart(self) -> None:
        inside = np.array([0.9, 0.8, 0.2], np.float32)
        outside = np.array([0.1, 0.85], np.float32)
        found = domain.domain_report(inside, outside, ["people", "lookalike"], 0.5)
        self.assertEqual(found["auroc_without_lookalikes"], 1.0)
        self.assertEqual(found["flagged_without_lookalikes"], 1.0)
        self.assertAlmostEqual(found["inside_flagged"], 1 / 3)
        self.assertEqual(found["by_group"]["lookalike"]["flagged"], 0.0)


class AnimalsTest(unittest.TestCase):
    def setUp(self) -> None:
        # The first feature gives cats, the second dogs. The others give all other classes, in OTHER_GROUPS groups.
        random = np.random.default_rng(0)
        kernel = np.zeros((2 + animals.OTHER_GROUPS, animals.CLASSES), np.float32)
        for number in range(animals.CLASSES):
            kernel[2 + number % animals.OTHER_GROUPS, number] = 1
        for row, classes in enumerate((animals.CATS, animals.DOGS)):
            kernel[:, classes] = 0
            kernel[row, classes] = 1
        self.imagenet = kernel, random.normal(size=animals.CLASSES).astype(np.float32)
        self.classifier = animals.Classifier.of(self.imagenet)

    def logits(self, number: int) -> np.ndarray:
        """Return features that give ImageNet's class `number`."""
        return 20 * self.imagenet[0][None, None, :, number]

    def test_merged_classes_leave_the_shares_as_they_were(self) -> None:
        features = np.random.default_rng(2).normal(size=(7, len(self.imagenet[0]))).astype(np.float32)
        powers = np.exp(features @ self.imagenet[0] + self.imagenet[1])
        powers /= powers.sum(1, keepdims=True)
        expected = np.stack([powers[:, animals.CATS].sum(1), powers[:, animals.DOGS].sum(1)], 1)
        self.assertLess(self.classifier.bias.size, 200)
        np.testing.assert_allclose(animals.shares(features, self.classifier), expected, rtol=1e-4)

    def test_a_tabby_is_a_cat_and_a_poodle_is_a_dog(self) -> None:
        for number, column in ((281, 0), (267, 1)):
            shared = animals.shares(self.logits(number), self.classifier)
            self.assertGreater(float(shared[0, 0, column]), 0.99)
            self.assertEqual(float(animals.odds(shared)[0, 0, 0]) > 0, column == 1)

    def test_a_fox_and_a_wolf_are_neither(self) -> None:
        for number in (269, 277):
            self.assertLess(float(animals.shares(self.logits(number), self.classifier).sum()), 0.01)

    def test_odds_stay_finite_where_a_share_is_nought(self) -> None:
        odds = animals.odds(np.array([[0.0, 1.0]], np.float32))
        self.assertTrue(np.isfinite(odds).all())

    def test_odds_are_the_last_feature(self) -> None:
        features = np.random.default_rng(1).normal(size=(5, 2, len(self.imagenet[0]))).astype(np.float32)
        found = animals.with_odds(features, self.classifier, rows=2)
        np.testing.assert_array_equal(found[..., :-1], features)
        np.testing.assert_allclose(found[..., -1:], animals.odds(animals.shares(features, self.classifier)), rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
