"""Eight bits: ranges that lose least, and a graph that both runtimes compute alike, OpenVINO in whole numbers."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np

from tools import service
from tools.evaluation import photos
from tools.training import calibration, efficientnet_lite, quantization
from unit_test.tools.programs import PROJECT

SIZE = 64

# Writes the rounded and the plain backbone, and what TensorFlow computes with each; a program, since the tests hold no
# TensorFlow.
BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np, tensorflow as tf
from tools.training import efficientnet_lite, export, quantization
folder, size = Path(sys.argv[2]), int(sys.argv[3])
network = efficientnet_lite.load_network(efficientnet_lite.VARIANTS["lite0"])
pictures = np.load(folder / "pictures.npy")
ranges = quantization.calibrate(network, pictures, (-127 / 128, 1.0))
graphs = {"plain": lambda image: efficientnet_lite.pooled_features(network, image),
          "rounded": lambda image: quantization.quantized_features(network, image, ranges)}
for name, graph in graphs.items():
    export.write_saved_model(folder / name, (size, size), lambda image: {"features": graph(image)})
    signature = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
    np.save(folder / f"{name}.npy", signature(image=tf.constant(pictures))["features"].numpy())
"""


class RangeTest(unittest.TestCase):
    def test_numbers_on_the_steps_are_not_changed(self) -> None:
        values = (np.arange(256, dtype=np.float32) - 100) * 0.5
        self.assertAlmostEqual(quantization.rounding_error(values, -50.0, 77.5), 0.0, places=9)

    def test_error_is_that_of_rounding_to_a_step(self) -> None:
        values = np.random.default_rng(1).uniform(0, 255, 100_000).astype(np.float32)
        self.assertAlmostEqual(quantization.rounding_error(values, 0.0, 255.0), 1 / 12, places=3)

    def test_a_lonely_number_far_away_is_cut_off(self) -> None:
        values = np.append(np.random.default_rng(2).normal(size=1_000_000), 20.0).astype(np.float32)
        low, high = quantization.best_range(values)
        self.assertLess(high, 15)
        self.assertLess(low, 0)

    def test_range_holds_nought_whatever_the_numbers(self) -> None:
        for values in (np.full(5, 3.0, np.float32), np.zeros(5, np.float32), np.full(5, -3.0, np.float32)):
            with self.subTest(values=values[0]):
                low, high = quantization.best_range(values)
                self.assertLessEqual(low, 0)
                self.assertGreater(high, 0)


class GraphTest(unittest.TestCase):
    folder: Path
    core: Any
    models: dict[str, Any]
    pictures: np.ndarray[Any, Any]

    @classmethod
    def setUpClass(cls) -> None:
        import openvino

        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = Path(scratch.name)
        config = service.read_config(None)
        picture = config.with_picture(size={"width": SIZE, "height": SIZE}).picture
        images = sorted((PROJECT / "images").glob("*_?.jpg"))
        tensors = [service.to_tensor(service.decode_image(path.read_bytes(), 10**8), picture) for path in images]
        cls.pictures = np.stack(tensors)
        np.save(cls.folder / "pictures.npy", cls.pictures)
        command = [sys.executable, "-c", BUILD, str(PROJECT), str(cls.folder), str(SIZE)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        cls.core = openvino.Core()
        cls.models = {
            name: cls.core.compile_model(str(cls.folder / name), "CPU", settings) for name in ("plain", "rounded")
        }

    def features(self, name: str) -> np.ndarray[Any, Any]:
        return np.array(self.models[name](self.pictures)["features"])

    def largest_angle(self, found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
        """1 - the cosine between rows, the largest."""
        products = (found * expected).sum(1)
        return float((1 - products / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)).max())

    def test_rounded_features_point_where_those_of_32_bits_do(self) -> None:
        plain, rounded = self.features("plain"), self.features("rounded")
        self.assertLess(self.largest_angle(rounded, plain), 0.05)
        self.assertGreater(float(np.abs(rounded - plain).max()), 0.0)

    def test_tensorflow_and_openvino_agree(self) -> None:
        for name, most in (("plain", 1e-6), ("rounded", 1e-2)):
            with self.subTest(name):
                expected = np.load(self.folder / f"{name}.npy")
                self.assertLess(self.largest_angle(self.features(name), expected), most)

    def test_answer_does_not_depend_on_what_else_is_in_the_batch(self) -> None:
        together = self.features("rounded")
        alone = np.concatenate([self.models["rounded"](picture[None])["features"] for picture in self.pictures])
        self.assertLess(self.largest_angle(alone, together), 1e-6)

    def test_openvino_computes_the_convolutions_in_whole_numbers(self) -> None:
        operations = self.models["rounded"].get_runtime_model().get_ops()
        kinds = [str(operation.get_rt_info()["layerType"].astype(str)) for operation in operations]
        # Where it did not, each would stay beside its convolution.
        self.assertLessEqual(kinds.count("FakeQuantize"), 1)
        if "INT8" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            self.skipTest("this processor has no instructions for it")
        precisions = [
            operation.get_rt_info()["runtimePrecision"].astype(str)
            for operation, kind in zip(operations, kinds, strict=True)
            if kind == "Convolution"
        ]
        self.assertEqual(set(precisions), {"u8"})


class CalibrationTest(unittest.TestCase):
    def test_every_source_gives_as_many_photos_as_it_can(self) -> None:
        images = sorted((PROJECT / "images").glob("*_?.jpg"))
        many = [photos.Photo(images[0], 0, "many")] * (2 * calibration.CALIBRATION_PHOTOS)
        few = [photos.Photo(images[1], 0, "few")] * 3
        chosen = calibration.calibration_pictures([*many, *few], service.read_config(None))
        self.assertEqual(len(chosen), calibration.CALIBRATION_PHOTOS)
        rare = sum(np.array_equal(picture, chosen[0]) for picture in chosen)
        self.assertIn(rare, (3, calibration.CALIBRATION_PHOTOS - 3))

    def test_no_readable_photo_is_said(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "torn.jpg"
            path.write_bytes(b"torn")
            with self.assertRaisesRegex(calibration.CalibrationError, "no readable photo"):
                calibration.calibration_pictures([photos.Photo(path, 0, "any")], service.read_config(None))


class ReadTest(unittest.TestCase):
    def test_every_convolution_but_no_sum_is_given_what_it_reads(self) -> None:
        network = efficientnet_lite.load_network(efficientnet_lite.VARIANTS["lite0"])
        names: list[str] = []

        def read(name: str, value: float) -> float:
            names.append(name)
            return value

        efficientnet_lite.apply_network(network, 0.0, lambda value, _: value, read)
        convolutions = 2 + sum(len(block.convolutions) for block in network.blocks)
        self.assertEqual(len(names), convolutions)
        self.assertEqual(len(set(names)), convolutions)


if __name__ == "__main__":
    unittest.main()
