"""Runs training from end to end, with TensorFlow and the network's weights."""

import unittest

from tools import model_folder, service
from tools.evaluation.predictors.version import VersionPredictor
from unit_test.tools import train_test
from unit_test.tools.programs import run_tool
from unit_test.tools.train_test import write_data
from unit_test.tools.training.classifier_test import write_photos


class WholeTrainTest(train_test.FolderCase):
    def test_photos_become_a_version_folder_that_tells_the_classes_apart(self) -> None:
        import openvino

        write_data(self.data)
        (self.data / "train" / "cat" / "torn.png").write_bytes(b"\x89PNG, and then nothing")
        code, out, err = self.train("--penalty", "0.3", "0.1")
        self.assertEqual(code, 0, err)
        self.assertIn("skipped 1 broken", err)
        self.assertIn("torn.png", err)
        self.assertRegex(out, r"garden +100.00%")
        self.assertEqual(sorted(path.name for path in self.model.iterdir()), ["1"])

        compiled = openvino.Core().compile_model(str(self.model / "1"), "CPU")
        self.assertEqual(compiled.inputs[0].names, {"image"})
        self.assertEqual(
            {name for output in compiled.outputs for name in output.names},
            {"probabilities", "domain_score", "attention"},
        )
        # The recipe adds this signature.
        self.assertIn(b"pixels", (self.model / "1" / "assets.extra" / "tf_serving_warmup_requests").read_bytes())
        picture = service.read_config(self.config).picture
        brought = model_folder.read_recipe(self.model / "1")
        self.assertEqual((brought.labels, brought.preprocessor_config), (("CAT", "DOG"), picture))
        for label, expected in (("cat", 0), ("dog", 1)):
            image = service.decode_image((self.data / "val" / label / "0.png").read_bytes(), 10**6)
            answer = compiled(service.to_tensor(image, picture)[None])
            probabilities = answer["probabilities"][0]
            self.assertTrue(0 <= float(answer["domain_score"][0]) <= 1)
            self.assertEqual(answer["attention"].shape, (1, 2, 2))
            self.assertAlmostEqual(float(probabilities.sum()), 1.0, places=5)
            self.assertEqual(int(probabilities.argmax()), expected, label)

        before = {path: path.stat().st_ino for path in self.cache.glob("*.npz")}
        code, out, err = self.train("--penalty", "0.1")
        self.assertEqual(code, 0, err)
        self.assertEqual({path: path.stat().st_ino for path in self.cache.glob("*.npz")}, before)
        self.assertTrue((self.model / "2" / "saved_model.pb").is_file())

    def test_photos_that_are_all_broken_are_named_and_nothing_is_written(self) -> None:
        write_data(self.data)
        for path in (self.data / "train" / "dog").iterdir():
            path.write_bytes(b"no picture")
        code, _, err = self.train("--version", "1")
        self.assertEqual(code, 2)
        self.assertIn("train: a class has no readable photo", err)
        self.assertIn("skipped 4 broken", err)
        self.assertFalse((self.model / "1").exists())

    def test_own_photos_become_a_version_that_is_served_as_it_was_trained(self) -> None:
        photos = self.folder / "my phot\u00f6s"
        write_photos(photos, {"a": 30, "b c": 30, "d\u00e9": 30})
        places = ("--models", self.model.parent, "--cache", self.cache)
        done = run_tool("training.train", photos, "--name", "COLOURS", *places)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"written to {self.model.parent / 'COLOURS' / '1'}", done.stdout)
        folder = self.model.parent / "COLOURS" / "1"
        recipe = model_folder.read_recipe(folder)
        self.assertEqual(recipe.labels, ("a", "b c", "d\u00e9"))
        self.assertEqual(len(recipe.golden), 3)
        self.assertEqual(recipe.preprocessor_config.domain_threshold, 0.5)
        predictor = VersionPredictor(folder)
        for golden in recipe.golden:
            found = predictor.look(golden.photo)
            for label, expected in golden.probabilities.items():
                self.assertAlmostEqual(found.probabilities[label], expected, delta=1e-3)
            assert found.attention is not None and found.domain_score is not None
            self.assertEqual(found.attention.shape, (8, 8))
            self.assertGreaterEqual(found.domain_score, 0.5)
        wrong = [
            path
            for path in sorted(photos.rglob("*.png"))
            if recipe.labels[int(predictor.predict(path.read_bytes()).probabilities.argmax())] != path.parent.name
        ]
        self.assertLessEqual(len(wrong), 4, wrong)


if __name__ == "__main__":
    unittest.main()
