"""Tests the shipped model's attention, where its places are, and the measure of second looks."""

import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from serving_common.tensorflow_protos import saved_model_pb2
from tools import service
from tools.evaluation import photos, second_look
from tools.training import attention
from unit_test.model_service.fixtures import Array
from unit_test.tools.export_test import PROJECT, answers

(MODEL,) = (PROJECT / "prev_trained_models" / "CAT-DOG").glob("[0-9]*")
SIDE = 240


def pixels(photo: str, left: int, top: int, width: int) -> Array:
    """A photo of the project, `width` pixels wide and high, in a grey picture: uint8 [1, 240, 240, 3]."""
    picture = Image.new("RGB", (SIDE, SIDE), (120, 125, 110))
    picture.paste(Image.open(PROJECT / "images" / photo).convert("RGB").resize((width, width)), (left, top))
    return np.asarray(picture)[None]


class EvenlyTest(unittest.TestCase):
    def test_values_between_the_places_are_interpolated(self) -> None:
        # By hand: 240, 120, 60 and 30 are even, so each of these halvings moves the centres by half of its step.
        for size, centres in ((240, 15.5 + 32 * np.arange(8)), (224, 15.5 + 16 + 32 * np.arange(7)), (225, None)):
            places = 8 if size > 224 else 7
            with self.subTest(size), mock.patch.object(attention, "REACH", 1.0):
                found = attention.evenly(size, places)
                if centres is None:
                    # An odd length is padded on both sides, so the outermost places lie at its ends.
                    centres = 0.5 + 32 * np.arange(8)
                wanted = (np.arange(places) + 0.5) * size / places
                np.testing.assert_allclose(found @ centres, wanted.clip(centres[0], centres[-1]), rtol=1e-5)

    def test_each_row_is_a_mean(self) -> None:
        for size, places in ((240, 8), (64, 2), (299, 10)):
            found = attention.evenly(size, places)
            self.assertGreaterEqual(found.min(), 0)
            np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


class ShippedModelTest(unittest.TestCase):
    def test_its_maximum_is_on_the_animal_wherever_that_is(self) -> None:
        places = [(0, 0), (150, 0), (75, 75), (0, 150), (150, 150)]
        shown = [(photo, left, top) for photo in ("dog_1.jpg", "cat_2.jpg") for left, top in places]
        found = answers(MODEL, "pixels", np.concatenate([pixels(*one, 90) for one in shown]))["attention"]
        self.assertGreaterEqual(found.min(), 0)
        for (photo, left, top), one in zip(shown, found, strict=True):
            with self.subTest(photo=photo, left=left, top=top):
                row, column = np.unravel_index(one.argmax(), one.shape)
                x, y = ((place + 0.5) * SIDE / count for place, count in ((column, 8), (row, 8)))
                self.assertTrue(left <= x <= left + 90 and top <= y <= top + 90, (x, y))

    def test_without_it_the_other_outputs_are_the_same_bit_by_bit(self) -> None:
        batch = np.concatenate([pixels(path.name, 30, 0, 200) for path in sorted((PROJECT / "images").glob("*_?.jpg"))])
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "1"
            shutil.copytree(MODEL, plain)
            model = saved_model_pb2.SavedModel.FromString((MODEL / "saved_model.pb").read_bytes())
            for name in ("pixels", "serving_default"):
                del model.meta_graphs[0].signature_def[name].outputs["attention"]
            (plain / "saved_model.pb").write_bytes(model.SerializeToString())
            expected = answers(plain, "pixels", batch)
        self.assertEqual(expected.keys(), {"probabilities", "domain_score"})
        found = answers(MODEL, "pixels", batch)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


class MeasureTest(unittest.TestCase):
    """The measure of second looks, with a network whose log odds are the brightness of the picture."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.config = service.read_config(None)
        chosen = self.config.picture.second_look
        assert chosen is not None
        self.settings = chosen.model_copy(update={"max_confidence": 0.9, "weight": 0.25, "temperature": 2.0})
        # The left half is dark, the right half light; the attention is on the right.
        grey = np.full((240, 240, 3), 124, np.uint8)
        grey[:, 160:] = 254
        for name, values in (("unsure.png", grey), ("sure.png", np.full_like(grey, 254))):
            Image.fromarray(values).save(self.folder / name)

    @staticmethod
    def network(pictures: Array) -> second_look.Look:
        brightness = 4 * pictures.mean(axis=(1, 2, 3), dtype=np.float64)
        places = np.zeros((len(pictures), 8, 8), np.float32)
        places[:, :, 6:] = 1
        # The score of a light picture is 0.5, that of a dark one 0.25.
        scores = np.where(brightness > 2, 0.5, 0.25).astype(np.float32)
        return second_look.Look(pictures[:, 0, 0], brightness, places, scores)

    def test_only_unsure_photos_are_looked_at_again_and_the_log_odds_are_averaged(self) -> None:
        found = [photos.Photo(self.folder / name, 1, "here") for name in ("sure.png", "unsure.png")]
        part = second_look.Part(found, self.network, self.config, workers=1, mirror=False)
        once, again = part.answers(second_look.Variant("", self.settings.model_copy(update={"max_confidence": 0.0})))
        self.assertEqual(again.tolist(), [False, False])
        self.assertLess(once[1], 2)
        twice, again = part.answers(second_look.Variant("", self.settings))
        self.assertEqual(again.tolist(), [False, True])
        self.assertEqual(twice[0], once[0])
        # The box is the right 60 % of the first look, which is lighter than the whole.
        box = (0.4, 0.0, 1.0, 1.0)
        data = (self.folder / "unsure.png").read_bytes()
        second = float(self.network(service.prepare(data, self.config, box)[None]).log_odds[0])
        self.assertGreater(second, once[1])
        self.assertAlmostEqual(twice[1], (0.75 * once[1] + 0.25 * second) / 2, places=6)
        for least, expected in ((0.25, True), (0.26, False)):
            changed = self.settings.model_copy(update={"min_domain_score": least})
            self.assertEqual(part.answers(second_look.Variant("", changed))[1].tolist(), [False, expected])
        two, _ = part.answers(second_look.Variant("", self.settings, (None, (0.0, 0.0, 1.0, 1.0))))
        self.assertAlmostEqual(two[1], (0.75 * once[1] + 0.25 * (second + once[1]) / 2) / 2, places=6)


if __name__ == "__main__":
    unittest.main()
