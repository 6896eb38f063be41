"""Tests the head for any classes and its domain score, on made features."""

import unittest
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.photos import Photo
from tools.training.head import domain, second_look, softmax_head
from tools.training.run import Array, Head, Numbers, Part, TrainError

FEATURES = 40


def part(labels: Numbers, values: NDArray[np.floating], groups: Numbers | None = None) -> Part:
    """Return photos with `values` [photos, features] in one view."""
    photos = [Photo(Path(f"{number}.jpg"), int(label), "") for number, label in enumerate(labels)]
    return Part(photos, values[:, None].astype(np.float16), np.arange(len(labels)) if groups is None else groups)


def clusters(classes: int, count: int, spread: float = 0.4, seed: int = 0) -> Part:
    """Return `count` photos per class. Class n has feature n in excess; all features are above 0."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    values = np.abs(random.normal(0, spread, (len(labels), FEATURES)))
    values[np.arange(len(labels)), labels] += 2
    return part(labels, values)


def imagenet() -> Array:
    """Return the kernel of a classifier that uses each feature."""
    return np.random.default_rng(1).normal(size=(FEATURES, 100)).astype(np.float32)


class HeadTest(unittest.TestCase):
    def test_it_finds_classes_of_any_number(self) -> None:
        for classes in (2, 7):
            with self.subTest(classes=classes):
                head = softmax_head.fit_head(clusters(classes, 20), classes)
                unseen = clusters(classes, 20, seed=1)
                right = head.logits(unseen.served()).argmax(1) == unseen.classes
                self.assertEqual((head.kernel.shape, head.bias.shape), ((FEATURES, classes), (classes,)))
                self.assertGreater(right.mean(), 0.9)
                self.assertGreater((head.held_out.argmax(1) == np.repeat(np.arange(classes), 20)).mean(), 0.85)

    def test_near_duplicates_are_held_out_together(self) -> None:
        # Labels at random: only a head that has seen a photo's double can know its label.
        random = np.random.default_rng(0)
        labels, values = random.integers(0, 2, 60), random.normal(size=(60, 300))
        doubled = part(np.tile(labels, 2), np.tile(values, (2, 1)), np.tile(np.arange(60), 2))
        known = part(np.tile(labels, 2), np.tile(values, (2, 1)))
        weak = (1.0,)
        apart = softmax_head.fit_head(known, 2, strengths=weak).held_out.argmax(1) == known.classes
        together = softmax_head.fit_head(doubled, 2, strengths=weak).held_out.argmax(1) == doubled.classes
        self.assertGreater(apart.mean(), 0.9)
        self.assertLess(together.mean(), 0.75)

    def test_a_class_with_more_photos_is_likelier_unless_they_are_balanced(self) -> None:
        random = np.random.default_rng(0)
        labels = np.repeat([0, 1], [90, 10])
        unknown = part(labels, random.normal(size=(100, FEATURES)))
        shares = []
        for balanced in (False, True):
            head = softmax_head.fit_head(unknown, 2, strengths=(1e-4,), balanced=balanced)
            logits = head.logits(np.zeros((1, FEATURES), np.float32)) * head.temperature
            shares.append(1 / (1 + np.exp(logits[0, 0] - logits[0, 1])))
        self.assertAlmostEqual(shares[0], 0.1, delta=0.05)
        self.assertAlmostEqual(shares[1], 0.5, delta=0.1)

    def test_temperature_makes_logits_as_sure_as_they_are_right(self) -> None:
        random = np.random.default_rng(0)
        logits = random.normal(0, 2, (4000, 3))
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = np.array([random.choice(3, p=share) for share in shares])
        found, _ = softmax_head.fit_temperature((3 * logits).astype(np.float32), labels)
        self.assertAlmostEqual(found, 3, delta=0.3)

    def test_few_right_answers_do_not_prove_certainty(self) -> None:
        labels = np.arange(20) % 2
        logits = np.where(labels[:, None] == np.arange(2), 1.0, -1.0).astype(np.float32)
        found, _ = softmax_head.fit_temperature(logits, labels)
        confidence = 1 / (1 + np.exp(-2 / found))
        self.assertAlmostEqual(confidence, 21 / 22, delta=0.01)

    def test_a_class_whose_photos_are_alike_is_never_held_out_from_itself(self) -> None:
        found = clusters(3, 6)
        groups = np.where(found.classes == 2, 99, np.arange(18))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            head = softmax_head.fit_head(Part(found.photos, found.values, groups), 3)
        self.assertTrue(np.isnan(head.held_out[found.classes == 2]).all())
        self.assertTrue(np.isfinite(head.held_out[found.classes != 2]).all())
        self.assertTrue((head.logits(found.served()).argmax(1) == found.classes).all())

    def test_too_few_photos_are_named(self) -> None:
        labels = np.array([0, 0, 0, 1])
        with self.assertRaisesRegex(TrainError, "at least two"):
            softmax_head.fit_head(part(labels, np.ones((4, FEATURES))), 2)
        with self.assertRaisesRegex(TrainError, "near-duplicates"):
            softmax_head.fit_head(part(np.array([0, 0, 1, 1]), np.ones((4, FEATURES)), np.zeros(4, np.int64)), 2)

    def test_folds_spread_each_class(self) -> None:
        labels = np.repeat(np.arange(4), 10)
        folds = softmax_head.assign_folds(labels, np.arange(40), 5, 0)
        for label in range(4):
            self.assertEqual(np.bincount(folds[labels == label], minlength=5).tolist(), [2] * 5)

    def test_a_sample_keeps_small_classes(self) -> None:
        labels = np.repeat(np.arange(3), [1000, 5, 100])
        chosen = softmax_head.sample(labels, 105, 0)
        self.assertEqual(np.bincount(labels[chosen]).tolist(), [50, 5, 50])
        self.assertEqual(len(set(chosen.tolist())), 105)


class DomainTest(unittest.TestCase):
    training: Part
    validation: Part
    head: Head
    score: domain.DomainScore

    @classmethod
    def setUpClass(cls) -> None:
        cls.training, cls.validation = clusters(4, 30), clusters(4, 15, seed=1)
        cls.head = softmax_head.fit_head(cls.training, 4)
        cls.score = domain.fit_domain(cls.training, cls.validation, cls.head, imagenet())

    def test_other_classes_have_a_low_score(self) -> None:
        others = clusters(8, 30, seed=2)
        outside = self.score.scores(others.served()[others.classes >= 4])
        inside = self.score.scores(self.validation.served())
        self.assertLess((outside >= self.score.threshold).mean(), 0.1)
        self.assertGreater((inside >= self.score.threshold).mean(), 0.9)
        self.assertAlmostEqual(float(np.median(inside)), domain.MEDIAN_SCORE, delta=0.05)
        self.assertTrue(((inside >= 0) & (inside <= 1)).all())

    def test_the_limit_is_that_of_the_stated_rate(self) -> None:
        for rate in (0.0, 0.1, 0.5):
            with self.subTest(rate=rate):
                known = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
                found = domain.DomainScore.of(self.score.neighbours, self.head, known, known, rate, 200)
                self.assertEqual(int((known @ found.weights < found.limit).sum()), round(rate * 200))

    def test_as_many_other_photos_miss_the_limit_as_is_told(self) -> None:
        for photos, expected in ((24, 1 / 25), (120, 0.02), (1000, 0.02)):
            with self.subTest(photos=photos):
                shares = []
                random = np.random.default_rng(0)
                for _ in range(400):
                    # Uniform scores: the share of all photos below the limit is the limit.
                    known = np.column_stack([random.random(photos), np.zeros((photos, 2))]).astype(np.float32)
                    found = domain.DomainScore.of(self.score.neighbours, self.head, known, known, 0.02, photos)
                    shares.append(found.limit / found.weights[0])
                told = found.false_alarms
                self.assertAlmostEqual(told.expected, expected)
                self.assertAlmostEqual(float(np.mean(shares)), expected, delta=0.1 * expected)
                inside = [told.low <= share <= told.high for share in shares]
                self.assertAlmostEqual(float(np.mean(inside)), 0.95, delta=0.03)

    def test_near_duplicates_count_once_in_the_interval(self) -> None:
        alike = Part(self.training.photos, self.training.values, np.arange(120) // 6)
        found = domain.fit_domain(alike, self.validation, self.head, imagenet())
        self.assertEqual(found.false_alarms, domain.expected_false_alarms(domain.FALSE_ALARMS, 20 + 60))
        self.assertGreater(found.false_alarms.high, self.score.false_alarms.high)

    def test_features_of_nothing_have_a_finite_score(self) -> None:
        found = self.score.scores(np.zeros((1, FEATURES), np.float32))
        self.assertTrue(np.isfinite(found).all())

    def test_more_classes_than_prototypes_and_equal_photos(self) -> None:
        training = part(np.repeat(np.arange(2), 200), np.repeat(np.eye(2, FEATURES), 200, axis=0))
        head = Head(
            np.eye(FEATURES, 2, dtype=np.float32), np.zeros(2, np.float32), 1.0, 1.0, np.zeros((400, 2), np.float32)
        )
        found = domain.fit_domain(training, training, head, imagenet())
        self.assertTrue((found.scores(training.served()) >= found.threshold).all())


class SecondLookTest(unittest.TestCase):
    labels = np.arange(40) % 2

    def judged(self, share_right: float) -> second_look.Trial:
        random = np.random.default_rng(0)
        first = random.normal(0, 0.5, (40, 2)).astype(np.float32)
        sign = np.where(random.random(40) < share_right, 1.0, -1.0)
        added = np.where(self.labels[:, None] == np.arange(2), 1.0, -1.0) * sign[:, None]
        return second_look.judge(400, first, (first + added).astype(np.float32), self.labels)

    def test_it_is_taken_if_it_helps(self) -> None:
        found = self.judged(0.95)
        self.assertIsNotNone(found.settings)
        self.assertGreater(found.mended, found.spoiled)
        self.assertIn("it helps", str(found))

    def test_more_mended_labels_alone_are_no_proof(self) -> None:
        found = self.judged(0.8)
        self.assertGreater(found.mended, found.spoiled)
        self.assertIsNone(found.settings)

    def test_it_is_not_taken_if_it_does_not_help(self) -> None:
        for share in (0.5, 0.1):
            with self.subTest(share=share):
                found = self.judged(share)
                self.assertIsNone(found.settings)
                self.assertIn("not proven", str(found))
                self.assertIn(
                    f"the log loss {'rises' if found.gain < 0 else 'falls'} by {abs(found.gain):.3f}", str(found)
                )
        self.assertLess(found.gain, 0)

    def test_unsure_photos_are_counted_where_it_is_not_tried(self) -> None:
        trial = second_look.Trial(24, 0, 0, 0, 0.0, 0.0, None)
        self.assertEqual(str(trial), "0 of 24 photos are unsure, fewer than 8: a second look was not tried")


if __name__ == "__main__":
    unittest.main()
