"""Runs training from end to end, with TensorFlow and the network's weights."""

import unittest

from tools import model_folder, service
from unit_test.tools import train_test
from unit_test.tools.train_test import write_data


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


if __name__ == "__main__":
    unittest.main()
