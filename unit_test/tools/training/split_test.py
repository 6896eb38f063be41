"""Tests what is left out of a set of photos, and its split: stratified, seeded, near-duplicates on one side."""

import contextlib
import io
import tempfile
import unittest
import unittest.mock
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tools import service
from tools.evaluation.photos import Photo
from tools.training.backbone import features
from tools.training.backbone.features import SKETCH_SIDE, Features
from tools.training.dataset import split
from tools.training.dataset.near_duplicates import near_duplicates
from tools.training.run import TrainError
from unit_test.tools.programs import PROJECT

LABELS = ("wren", "robin")


def made(counts: tuple[int, ...], seed: int = 0) -> Features:
    """Return features of different photos, so many of each class."""
    random = np.random.default_rng(seed)
    classes = [label for label, count in enumerate(counts) for _ in range(count)]
    sketches = random.normal(size=(len(classes), SKETCH_SIDE**2))
    sketches /= np.linalg.norm(sketches, axis=1, keepdims=True)
    return Features(
        [Photo(Path(f"{label}/{number}.jpg"), label, "unknown") for number, label in enumerate(classes)],
        random.normal(size=(len(classes), 2, 16)).astype(np.float16),
        {},
        random.integers(0, 2**63, len(classes)).astype(np.uint64),
        sketches.astype(np.float16),
    )


def copied(found: Features, pairs: dict[int, int], exactly: bool) -> Features:
    """Return the same, with photos that are (near-)duplicates of others."""
    values, digests, sketches = found.values.copy(), found.digests.copy(), found.sketches.copy()
    for copy, original in pairs.items():
        values[copy], sketches[copy] = values[original], sketches[original]
        if exactly:
            digests[copy] = digests[original]
    return Features(found.photos, values, found.broken, digests, sketches)


def names(part: split.Part) -> set[str]:
    return {photo.path.as_posix() for photo in part.photos}


class SplitTest(unittest.TestCase):
    def test_each_class_has_its_share_in_validation(self) -> None:
        result = split.split(LABELS, made((40, 15)), 0.2, 0)
        self.assertEqual(Counter(result.validation.classes.tolist()), {0: 8, 1: 3})
        self.assertEqual(Counter(result.training.classes.tolist()), {0: 32, 1: 12})
        self.assertFalse(names(result.training) & names(result.validation))
        self.assertEqual(len(result.training.values), 44)

    def test_same_seed_chooses_the_same_photos_also_after_others_are_added(self) -> None:
        found = made((40, 40))
        first = split.split(LABELS, found, 0.2, 0)
        self.assertEqual(names(split.split(LABELS, found, 0.2, 0).validation), names(first.validation))
        self.assertNotEqual(names(split.split(LABELS, found, 0.2, 1).validation), names(first.validation))
        fewer = Features(found.photos[4:], found.values[4:], {}, found.digests[4:], found.sketches[4:])
        moved = names(first.validation) - names(split.split(LABELS, fewer, 0.2, 0).validation)
        self.assertLessEqual(len(moved), 5)

    def test_near_duplicates_are_on_one_side(self) -> None:
        pairs = {number: number - 20 for number in range(20, 40)}
        for seed in range(5):
            result = split.split(LABELS, copied(made((40, 40)), pairs, exactly=False), 0.25, seed)
            self.assertFalse(set(result.training.groups.tolist()) & set(result.validation.groups.tolist()))
            self.assertEqual(Counter(result.validation.classes.tolist()), {0: 10, 1: 10})
            self.assertIn("40 photos are near-duplicates of others: kept on one side of the split", result.notes)

    def test_copies_are_left_out_and_a_photo_in_two_classes_is_named(self) -> None:
        result = split.split(LABELS, copied(made((40, 40)), {1: 0, 2: 0, 50: 3}, exactly=True), 0.2, 0)
        kept = names(result.training) | names(result.validation)
        self.assertEqual(len(kept), 76)
        self.assertIn("0/0.jpg", kept)
        (copies,) = [note for note in result.notes if "copies" in note]
        self.assertTrue(copies.startswith("2 copies of other photos of their class left out: "), copies)
        self.assertIn(str(Path("0/2.jpg")), copies)
        (both,) = [note for note in result.notes if "the same photo" in note]
        for words in ("'wren', 'robin'", str(Path("0/3.jpg")), str(Path("1/50.jpg"))):
            self.assertIn(words, both)

    def test_near_duplicates_in_two_classes_are_named(self) -> None:
        result = split.split(LABELS, copied(made((40, 40)), {50: 3}, exactly=False), 0.2, 0)
        self.assertTrue(any("near-duplicates in different classes" in note for note in result.notes), result.notes)

    def test_too_few_photos_are_refused_with_the_class_and_its_number(self) -> None:
        with self.assertRaisesRegex(TrainError, "at least 10 photos.*'robin' has 9"):
            split.split(LABELS, made((40, 9)), 0.2, 0)

    def test_photos_in_two_classes_are_named_where_they_are_why_there_are_too_few(self) -> None:
        found = copied(made((40, 11)), {40: 3, 41: 4, 2: 1}, exactly=True)
        with self.assertRaises(TrainError) as caught:
            split.split(LABELS, found, 0.2, 0)
        said = str(caught.exception)
        self.assertIn("'robin' has 9; the same photo is in 'wren', 'robin', and left out: ", said)
        for name in ("0/3.jpg", "1/40.jpg", "0/4.jpg", "1/41.jpg"):
            self.assertIn(str(Path(name)), said)
        self.assertIn("1 copy of another photo of its class left out", said)

    def test_photos_of_a_fixed_camera_are_all_alike_and_split_with_a_word_about_it(self) -> None:
        same = copied(made((40, 20)), {number: 40 for number in range(41, 60)}, exactly=False)
        result = split.split(LABELS, same, 0.2, 0)
        self.assertEqual(Counter(result.validation.classes.tolist()), {0: 8, 1: 4})
        self.assertTrue(
            any("most photos of 'robin' are near-duplicates" in note for note in result.notes), result.notes
        )

    def test_ten_photos_are_enough_with_a_word_on_how_far_to_trust_them(self) -> None:
        result = split.split(LABELS, made((10, 100)), 0.2, 0)
        self.assertEqual(Counter(result.validation.classes.tolist()), {0: 2, 1: 20})
        self.assertTrue(any("'wren' has fewer than 50 photos" in note for note in result.few), result.few)


class GivenSplitTest(unittest.TestCase):
    def test_copies_of_validation_photos_are_left_out_of_training(self) -> None:
        both = copied(made((40, 40)), {1: 0, 2: 41}, exactly=False)
        digests = both.digests.copy()
        digests[1] = digests[0]
        odd = np.arange(80) % 2 == 1

        def part(chosen: NDArray[np.bool_]) -> Features:
            photos = [photo for photo, keep in zip(both.photos, chosen, strict=True) if keep]
            return Features(photos, both.values[chosen], {}, digests[chosen], both.sketches[chosen])

        result = split.given(LABELS, part(~odd), part(odd))
        self.assertEqual((len(result.training.photos), len(result.validation.photos)), (39, 40))
        self.assertIn("1 photo is in training and in validation: left out of training", result.notes)
        self.assertTrue(any(note.startswith("1 of 40 validation photos are near-dup") for note in result.notes))


class NearDuplicatesTest(unittest.TestCase):
    """Real photos, with a network that averages 16 parts of the picture."""

    def test_rescaled_recompressed_cut_and_mirrored_copies_are_found(self) -> None:
        images = [Image.open(path).convert("RGB") for path in sorted((PROJECT / "images").glob("*_[12].jpg"))]
        changed = []
        for image in images:
            width, height = image.size
            low = io.BytesIO()
            image.save(low, "JPEG", quality=40)
            changed += [
                image,
                image.resize((round(width * 0.55), round(height * 0.55))),
                Image.open(low).convert("RGB"),
                image.crop((round(width * 0.04), 0, width, round(height * 0.96))),
                ImageOps.mirror(image),
            ]
        groups = self._groups(changed)
        expected = np.repeat(np.arange(len(images)), 5)
        self.assertGreaterEqual(len(images), 4)
        np.testing.assert_array_equal(groups[:, None] == groups, expected[:, None] == expected)

    def _groups(self, images: list[Image.Image]) -> NDArray[np.int64]:
        with tempfile.TemporaryDirectory() as folder:
            photos = []
            for number, image in enumerate(images):
                photos.append(Photo(Path(folder, f"{number}.png"), 0, "unknown"))
                image.save(photos[-1].path)
            picture = service.TRAINING
            extraction = features.Extraction(
                Path(folder),
                decode=lambda data: service.decode_image(data, 10**7),
                views=lambda image, random: [image, ImageOps.mirror(image)],
                prepare=lambda image: service.to_tensor(image, picture),
                fingerprint={},
            )
            fake = unittest.mock.patch.object(features, "_Backbone", lambda *_: averages)
            with fake, contextlib.redirect_stderr(io.StringIO()):
                found = features.extract(photos, extraction, Path(folder), 1, "photos")
        return near_duplicates(found.values, found.sketches)


def averages(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means of 16 parts of each picture, float32 [pictures, 48]."""
    side = batch.shape[1] // 4
    parts = batch[:, : side * 4, : side * 4].reshape(len(batch), 4, side, 4, side, 3).mean((2, 4))
    return np.asarray(parts.reshape(len(batch), -1), np.float32)


if __name__ == "__main__":
    unittest.main()
