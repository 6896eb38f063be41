"""Tests a quantized network, built by TensorFlow and computed by OpenVINO."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np

from tools import service
from unit_test.tools.programs import PROJECT

SIZE = 64
# Writes the rounded and the plain backbone, and what TensorFlow computes with each. It is a program, because the
# tests never load TensorFlow.
BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np, tensorflow as tf
from tools.training import export
from tools.training.backbone import efficientnet_lite, quantization
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
        """Return the largest value of 1 - cosine between rows."""
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
        # If OpenVINO did not fuse them, each convolution would still have its FakeQuantize.
        self.assertLessEqual(kinds.count("FakeQuantize"), 1)
        if "INT8" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            self.skipTest("this processor has no instructions for it")
        precisions = [
            operation.get_rt_info()["runtimePrecision"].astype(str)
            for operation, kind in zip(operations, kinds, strict=True)
            if kind == "Convolution"
        ]
        self.assertEqual(set(precisions), {"u8"})


if __name__ == "__main__":
    unittest.main()
