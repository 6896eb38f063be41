"""Models of every format are imported by one command, and served as their framework and their author's code say."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model_service.engines import openvino as openvino_engine
from model_service.engines.parallelism import Threads
from model_service.models.saved_model import read_saved_model
from preprocess_service.app.imaging.resize import resize
from preprocess_service.app.recipe import Recipe
from tools.model_folder import read_recipe
from unit_test import processes

PROJECT = Path(__file__).parents[3]
PROGRAM = "unit_test.tools.importing.made_models"
REST = ("teachable_zip", "fixed_batch", "onnx_fixed_batch")
# What the line about each refusal has to say.
REFUSED = {
    "truncated_h5": "is the file complete",
    "truncated_keras": "is the file complete",
    "truncated_tflite": "the file may be incomplete, or have operations",
    "truncated_onnx": "the file may be incomplete, or have operations",
    "truncated_zip": "is the file complete",
    "truncated_savedmodel": "saved_model.pb is broken",
    "truncated_tfjs": "are all files there",
    "no_variables": "variables.index is missing",
    "lambda_h5": "Lambda layer .* Python code",
    "lambda_keras": "Lambda layer .* Python code",
    "custom_object": "custom object 'Mine'",
    "function_of_a_module": "module 'os'",
    "only_weights": "only weights: save it with model.save",
    "writes_files": '"WriteFile"',
    "encoded_files": "export a signature that takes pixels",
    "labels_fewer": "2 labels, but the model has 3 classes",
    "labels_more": "4 labels, but the model has 3 classes",
    "labels_repeated": "'a' is more than once",
    "labels_none": "add --labels FILE",
    "says_what_no_recipe_gives": "the nearest is --resize .* off by 0",
    "says_another_label": "'dog'; the labels are: ant, bee, cow",
    "name_with_a_path": "is not a valid name",
    "no_such_output": "there are: boxes",
    "two_alike": "--output NAME .first .*second",
    "independent": "independent of each other .* train it with softmax$",
    "independent_softmax": "independent of each other .* train it with softmax$",
    "mask": "is .batch, 40, 48, 3., a map",
    "made_by_another_version": "'later'.* made by another version of Keras",
    "cut_variables": "the folder may be incomplete",
    "disk_full": "can't be written .* is the disk full",
    "disk_full_onnx": "can't be written .* is the disk full",
    "disk_full_zip": "can't be unpacked into",
}


def served(folder: Path, recipe: Recipe, images: list[Image.Image]) -> Any:
    """What the embedded model server computes of photos that are prepared as the recipe says, all at once if it can."""
    model = read_saved_model(folder, 1, refuse_unsafe=True)
    engine = openvino_engine.load(model, model.signatures["serving_default"], Threads(compute=2, streams=1))
    pixels = np.stack([resize(image, recipe.preprocessor_config.geometry()) for image in images])
    size = model.signatures["serving_default"].inputs["image"].shape[0]
    parts = np.split(pixels, len(pixels)) if size == 1 else [pixels]
    return np.concatenate([engine.run({"image": part}, ["probabilities"])["probabilities"] for part in parts])


class ImportTest(unittest.TestCase):
    folder: Path
    results: dict[str, Any]
    images: list[Image.Image]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        command = [sys.executable, "-m", PROGRAM, str(cls.folder)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=1800)
        if done.returncode:
            raise RuntimeError(done.stderr)
        cls.results = json.loads((cls.folder / "results.json").read_text(encoding="utf-8"))
        photos = sorted(cls.folder.glob("made_*.jpg"))
        cls.images = [Image.open(path).convert("RGB") for path in photos]

    def imported(self) -> dict[str, dict[str, Any]]:
        return {name: result for name, result in self.results.items() if result["expected"]}

    def test_every_model_is_served_as_its_framework_and_its_authors_code_say(self) -> None:
        self.assertGreaterEqual(len(self.imported()), 25)
        self.assertGreaterEqual(sum("tensorflow" in result for result in self.imported().values()), 20)
        for name, result in self.imported().items():
            with self.subTest(name):
                self.assertEqual(result["code"], 0, result["err"])
                folder = self.folder / "models" / name / "1"
                recipe = read_recipe(folder)
                answers = served(folder, recipe, self.images)
                expected = np.array(result["expected"])
                if "teachable" in name:
                    self.assertEqual(recipe.labels, ("Güvercin", "Serçe"))
                if name == "sigmoid_swapped":
                    self.assertEqual(recipe.labels, ("yes", "no"))
                    expected = expected[:, ::-1]
                # docs/models.md has the difference of 8 bits.
                limit = 0.05 if "8bit" in name else 1e-3
                self.assertLess(np.abs(answers - expected).max(), limit)
                # As TensorFlow Serving would.
                if "tensorflow" in result:
                    self.assertLess(np.abs(np.array(result["tensorflow"]) - expected).max(), limit)
                # Answers that are all the same would be right whatever became of the photos.
                self.assertGreater(np.ptp(expected, axis=0).max(), 0.01)

    def test_a_recipe_is_found_from_photos_or_said_to_be_assumed(self) -> None:
        for name, result in self.imported().items():
            with self.subTest(name):
                found = "gives the known answers" in result["out"] or "preprocessor_config.json" in result["out"]
                self.assertTrue(found or "assumed:            --resize" in result["out"], result["out"])
                self.assertIn(str(Path("models", name, "1")), result["out"])
        for name in ("teachable_tflite", "onnx_logits"):
            self.assertIn("needs the embedded model server", self.results[name]["out"])
        self.assertIn("it computes in 8 bits", self.results["teachable_8bit"]["out"])
        self.assertIn("its batch is fixed to 1", self.results["one_at_a_time"]["out"])
        self.assertIn("is_training is bound to False", self.results["tf1"]["out"])

    def test_golden_photos_have_the_answers_of_the_framework(self) -> None:
        for name in self.imported():
            with self.subTest(name):
                folder = self.folder / "models" / name / "1"
                recipe = read_recipe(folder)
                self.assertIn(len(recipe.golden), (2, 3))
                made = [golden.name.startswith("made_") for golden in recipe.golden]
                self.assertEqual(any(made), "known answers of" not in self.results[name]["out"])
                for golden in recipe.golden:
                    path = folder / "assets.extra" / "golden" / golden.name
                    with Image.open(path) as image:
                        (answer,) = served(folder, recipe, [image.convert("RGB")])
                    for label, probability in golden.probabilities.items():
                        self.assertAlmostEqual(answer[recipe.labels.index(label)], probability, delta=1e-3)

    def test_each_refusal_is_one_line_and_leaves_no_folder(self) -> None:
        refused = {name: result for name, result in self.results.items() if not result["expected"]}
        windows = {"disk_full", "disk_full_onnx", "disk_full_zip"} if os.name == "nt" else set()
        self.assertEqual(refused.keys(), REFUSED.keys() - windows)
        for name, result in refused.items():
            with self.subTest(name):
                self.assertEqual(result["code"], 1, result["out"])
                self.assertRegex(result["err"], REFUSED[name])
                self.assertEqual(result["err"].count("\n"), 1)
                self.assertNotIn("Traceback", result["err"])
                model = self.folder / "models" / name
                self.assertEqual(list(model.iterdir()) if model.exists() else [], [])
        self.assertFalse(list((self.folder / "sources").rglob("written")))

    def test_the_model_server_answers_with_the_recipe_and_the_probabilities(self) -> None:
        for name in REST:
            with self.subTest(name):
                folder = self.folder / "models" / name
                recipe = read_recipe(folder / "1")
                pixels = np.stack([resize(image, recipe.preprocessor_config.geometry()) for image in self.images])
                with processes.model_server(folder, name, "--refuse_unsafe_operations") as server:
                    address = f"{server.url}/v1/models/{name}:predict"
                    answer = _post(address, {"instances": pixels.tolist()})
                    document = {"signature_name": "preprocessor_config", "instances": [0]}
                    (told,) = _post(address, document)["predictions"]
                expected = np.array(self.results[name]["expected"])
                self.assertLess(np.abs(np.array(answer["predictions"]) - expected).max(), 1e-3)
                self.assertEqual(json.loads(told)["labels"], list(recipe.labels))

    def test_tensorflow_serving_tells_that_the_embedded_server_is_needed(self) -> None:
        self.assertIn("needs_the_embedded_model_server", (self.folder / "tensorflow_says.txt").read_text("utf-8"))

    def test_no_variables_and_no_functions_are_left(self) -> None:
        for name in self.imported():
            with self.subTest(name):
                folder = self.folder / "models" / name / "1"
                self.assertFalse((folder / "variables").exists())
                # Whether TensorFlow computes channels first depends on the processor.
                if not name.startswith("channels_first"):
                    self.assertEqual((folder / "openvino").exists(), "needs the embedded" in self.results[name]["out"])


def _post(address: str, body: Any) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


if __name__ == "__main__":
    unittest.main()
