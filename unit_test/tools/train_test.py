"""Tests training: from folders of photos to a version folder, and one clear line for each problem."""

import contextlib
import csv
import io
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from tools import service
from tools.evaluation import photos
from tools.training import export, train
from tools.training.backbone import features, views
from tools.training.cats_and_dogs import heads, logistic
from unit_test.tools.programs import PROJECT, run_tool


def write_photo(path: Path, red: int, blue: int, random: np.random.Generator) -> None:
    """Write a small photo: noise on a colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.integers(0, 60, (48, 64, 3))
    Image.fromarray((noise + np.array([red, 60, blue])).astype(np.uint8)).save(path)


def write_data(folder: Path) -> None:
    """Write red cats and blue dogs from two sources: per class and source two photos for train and one for val."""
    random = np.random.default_rng(0)
    rows = []
    for part, count in (("train", 4), ("val", 2)):
        for label, red, blue in (("cat", 190, 10), ("dog", 10, 190)):
            for number in range(count):
                name = f"{part}/{label}/{number}.png"
                write_photo(folder / name, red, blue, random)
                rows.append({"path": name, "source": "studio" if number % 2 else "garden"})
    with (folder / "INDEX.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["path", "source"])
        writer.writeheader()
        writer.writerows(rows)


class FolderCase(unittest.TestCase):
    """A temporary folder with data, a model folder, and a recipe of 64 pixels, which is fast."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.data, self.model, self.cache = (self.folder / name for name in ("data", "models/PETS", "cache"))
        self.model.mkdir(parents=True)
        self.config = self.folder / "preprocessor_config.json"
        recipe = service.TRAINING.model_copy(update={"size": {"width": 64, "height": 64}})
        self.config.write_text(recipe.model_dump_json(exclude_none=True, warnings=False), "utf-8")

    def arguments(self, *more: object) -> list[str]:
        named = {"--name": "PETS", "--models": self.model.parent, "--cache": self.cache, "--config": self.config}
        options = [str(part) for pair in named.items() for part in pair]
        return [str(self.data), "--cats-and-dogs", *options, *map(str, more)]

    def train(self, *arguments: object) -> tuple[int, str, str]:
        done = run_tool("training.train", *self.arguments(*arguments))
        return done.returncode, done.stdout, done.stderr


class TrainTest(FolderCase):
    def test_what_is_missing_is_said_in_one_line(self) -> None:
        def without(name: str) -> None:
            path = self.data / name
            shutil.rmtree(path)

        def only_texts() -> None:
            for path in (self.data / "train" / "dog").iterdir():
                path.rename(path.with_suffix(".txt"))

        def taken() -> None:
            (self.model / "1").mkdir()

        cases = {
            "no such folder": lambda: shutil.rmtree(self.data),
            "val: no such folder": lambda: without("val"),
            "no folder 'dog' in it": lambda: without("train/dog"),
            "the folder of class 'DOG' holds no photos": only_texts,
            "exists already": taken,
        }
        for words, spoil in cases.items():
            with self.subTest(words):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                self.setUp()
                write_data(self.data)
                spoil()
                with contextlib.redirect_stderr(io.StringIO()) as err:
                    self.assertEqual(train.main(self.arguments("--version", "1")), 2)
                self.assertIn(words, err.getvalue())
                self.assertEqual(len(err.getvalue().strip().splitlines()), 1, err.getvalue())

    def test_a_stopped_run_goes_on_and_a_full_disk_leaves_no_half_written_features(self) -> None:
        write_data(self.data)
        config = service.read_config(self.config)
        found = photos.find_photos(self.data / "train", ["cat", "dog"], self.data / "INDEX.csv")
        looked_at: list[int] = []

        def look(image: Image.Image, random: np.random.Generator) -> list[Image.Image]:
            looked_at.append(1)
            if len(looked_at) == 6:
                raise KeyboardInterrupt
            return [image]

        def extract() -> features.Features:
            extraction = features.Extraction(
                self.folder / "backbone",
                decode=lambda data: service.decode_image(data, 10**6),
                views=look,
                prepare=lambda image: service.to_tensor(image, config.picture),
                fingerprint={},
            )
            return features.extract(found, extraction, self.cache, 1, "train")

        means = mock.patch.object(features, "_Backbone", lambda *_: lambda batch: batch.mean((1, 2)))
        with means, mock.patch.object(features, "PHOTOS_PER_CHUNK", 3), contextlib.redirect_stderr(io.StringIO()):
            with self.assertRaises(KeyboardInterrupt):
                extract()
            self.assertEqual(len(list(self.cache.iterdir())), 1)
            full = OSError(28, "No space left on device")
            with mock.patch.object(features.np, "savez", side_effect=full), self.assertRaisesRegex(OSError, "No space"):
                extract()
            self.assertEqual(len(list(self.cache.iterdir())), 1)
            looked_at[:] = [0] * 10
            computed = extract()
            self.assertEqual(len(computed.photos), 8)
            # Three of the eight photos come from the chunk of the first run.
            self.assertEqual(len(looked_at), 10 + 5)
            np.testing.assert_array_equal(extract().values, computed.values)
            self.assertEqual(len(looked_at), 10 + 5)

    def test_a_gpu_is_used_where_there_is_one(self) -> None:
        self.assertEqual(features.fastest_device(["CPU"]), "CPU")
        self.assertEqual(features.fastest_device(["CPU", "GPU.0", "GPU.1"]), "GPU")


class WeightsTest(unittest.TestCase):
    def setUp(self) -> None:
        second = np.array([False] * 6 + [True] * 2)
        sources = np.array(["big"] * 4 + ["small"] * 4, object)
        self.examples = heads.Examples(np.zeros((8, 1, 1), np.float32), second, sources)

    def test_classes_weigh_the_same(self) -> None:
        for exponent in (0.0, 0.5, 1.0):
            weights = heads.photo_weights(self.examples, exponent)
            self.assertAlmostEqual(float(weights[:6].sum()), 0.5, places=6)
            self.assertAlmostEqual(float(weights[6:].sum()), 0.5, places=6)

    def test_exponent_of_nought_lets_a_small_source_weigh_as_much_as_a_big_one(self) -> None:
        sources = np.array(["big"] * 5 + ["small"] + ["big"] * 2, object)
        examples = heads.Examples(self.examples.values, self.examples.second, sources)
        weights = heads.photo_weights(examples, 0.0)
        self.assertAlmostEqual(float(weights[5] / weights[0]), 7.0, places=4)
        self.assertAlmostEqual(float(heads.photo_weights(examples, 1.0)[5]), 0.5 / 6, places=6)


class TemperatureTest(unittest.TestCase):
    def test_logits_that_are_twice_too_sure_are_halved(self) -> None:
        random = np.random.default_rng(3)
        true = random.normal(size=4000) * 2
        second = random.uniform(size=4000) < 1 / (1 + np.exp(-true))
        sources = np.array(["garden"] * 4000, object)
        examples = heads.Examples(np.zeros((4000, 1, 1), np.float32), second, sources)
        logits = np.where(np.arange(4000) < 5, np.nan, 2 * true)
        self.assertAlmostEqual(heads.temperature(examples, logits, 1.0), 2.0, delta=0.2)


class LogisticTest(unittest.TestCase):
    def setUp(self) -> None:
        random = np.random.default_rng(4)
        self.features = random.normal(size=(200, 3)).astype(np.float32)
        self.second = self.features @ np.array([2.0, -1.0, 0.0]) + random.normal(size=200) > 0.5
        self.weights = np.full(200, 1 / 200, np.float32)

    def test_solution_is_where_the_slope_of_the_loss_is_nought(self) -> None:
        (head,) = logistic.fit_path(self.features, self.second, self.weights, [0.01])
        residual = self.weights * (1 / (1 + np.exp(-head.logits(self.features))) - self.second)
        np.testing.assert_allclose(self.features.T @ residual + 0.01 * head.kernel, 0, atol=1e-5)
        self.assertAlmostEqual(float(residual.sum()), 0.0, places=5)

    def test_start_from_a_stronger_penalty_does_not_change_the_solution(self) -> None:
        path = logistic.fit_path(self.features, self.second, self.weights, [1.0, 0.1, 0.01])
        (alone,) = logistic.fit_path(self.features, self.second, self.weights, [0.01])
        np.testing.assert_allclose(path[-1].kernel, alone.kernel, atol=1e-4)
        self.assertLess(np.abs(path[0].kernel).sum(), np.abs(path[-1].kernel).sum())

    def test_way_back_from_raw_features_is_exact(self) -> None:
        scaler = logistic.Scaler.of(self.features * 3 + 1)
        head = logistic.LinearHead(np.array([1.0, 2.0, 3.0]), 0.5)
        back = scaler.redo(scaler.undo(head))
        np.testing.assert_allclose(back.kernel, head.kernel, rtol=1e-6)
        self.assertAlmostEqual(back.bias, head.bias, places=5)

    def test_head_for_raw_features_answers_like_the_one_for_scaled_features(self) -> None:
        raw = self.features * np.array([3, 0.1, 1], np.float32) + np.array([1, 2, 3], np.float32)
        scaler = logistic.Scaler.of(raw)
        (head,) = logistic.fit_path(scaler.apply(raw), self.second, self.weights, [0.1])
        np.testing.assert_allclose(scaler.undo(head).logits(raw), head.logits(scaler.apply(raw)), atol=1e-4)


class ViewsTest(unittest.TestCase):
    def test_views_are_the_photo_its_mirror_image_and_random_parts_of_it(self) -> None:
        image = Image.open(PROJECT / "images" / "cat_1.jpg").convert("RGB")
        found = views.training_views(image, np.random.default_rng(5))
        self.assertEqual(len(found), 2 + views.RANDOM_VIEWS)
        self.assertEqual([view.mode for view in found], ["RGB"] * len(found))
        self.assertEqual(found[0].tobytes(), image.tobytes())
        for view in found[2:]:
            self.assertLess(view.width * view.height, image.width * image.height)

    def test_fewer_views_are_the_first_ones(self) -> None:
        image = Image.open(PROJECT / "images" / "cat_1.jpg").convert("RGB")
        every = [view.tobytes() for view in views.training_views(image, np.random.default_rng(5))]
        for count in range(1, 5):
            found = views.training_views(image, np.random.default_rng(5), count)
            self.assertEqual([view.tobytes() for view in found], every[:count])

    def test_same_seed_makes_the_same_views(self) -> None:
        image = Image.open(PROJECT / "images" / "dog_1.jpg").convert("RGB")
        first, second = (views.training_views(image, np.random.default_rng(6)) for _ in range(2))
        self.assertEqual([view.tobytes() for view in first], [view.tobytes() for view in second])

    def test_pictures_of_one_pixel_or_one_row_have_views_too(self) -> None:
        for size in ((1, 1), (300, 1), (1, 300)):
            with self.subTest(size=size):
                found = views.training_views(Image.new("RGB", size), np.random.default_rng(7))
                self.assertEqual(len(found), 2 + views.RANDOM_VIEWS)


class ExportTest(FolderCase):
    def test_version_folder_appears_whole_or_not_at_all(self) -> None:
        target = self.model / "1"
        with self.assertRaises(RuntimeError), export.folder_written_beside(target) as folder:
            folder.mkdir()
            (folder / "saved_model.pb").write_bytes(b"half")
            raise RuntimeError
        self.assertEqual(list(self.model.iterdir()), [])

    def test_failure_leaves_no_empty_folder_of_a_new_model(self) -> None:
        (self.model / "mine").mkdir()
        for error in (RuntimeError, KeyboardInterrupt):
            for name in ("new/models/birds", "mine"):
                with self.assertRaises(error), export.folder_written_beside(self.model / name / "1"):
                    raise error
        self.assertEqual(list(self.model.rglob("*")), [self.model / "mine"])

    def test_full_disk_is_said_and_leaves_nothing(self) -> None:
        said = self.assertRaisesRegex(export.ExportError, "No space left")
        with said, export.folder_written_beside(self.model / "1") as folder:
            folder.mkdir()
            raise OSError(28, "No space left on device")
        self.assertEqual(list(self.model.iterdir()), [])

    def test_next_version_is_one_above_the_highest(self) -> None:
        self.assertEqual(export.next_version(self.model), 1)
        for name in ("3", "12", "notes"):
            (self.model / name).mkdir()
        self.assertEqual(export.next_version(self.model), 13)


class LabelsTest(unittest.TestCase):
    def test_labels_that_are_out_of_order_or_too_few_are_refused(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "labels.txt"
        for text in ("1 Dog\n0 Cat\n", "0 Cat\n", "", "Cat\nDog\n", "0 Cat\n1\n"):
            with self.subTest(text):
                path.write_text(text, "utf-8")
                with self.assertRaisesRegex(photos.PhotosError, "labels.txt"):
                    photos.read_labels(path)


if __name__ == "__main__":
    unittest.main()
