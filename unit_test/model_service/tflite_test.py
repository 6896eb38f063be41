"""Tests networks of TensorFlow Lite: their signatures, inputs of other shapes, and broken files."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import requests

from model_service import errors
from model_service.engines import factory, openvino, parallelism, tflite
from unit_test import processes
from unit_test.model_service.fixtures import copy_of_model, saved_models

THREADS = parallelism.Threads(compute=2, streams=2)
ROWS = np.array([[1, 1], [0, 2]], np.float32)
PRODUCTS = [[4, 6], [6, 8]]


def load(folder: Path, refuse_unsafe: bool = False) -> dict[str, Any]:
    """Return the engines of a version."""
    return factory.load_engines(tflite.read_tflite(folder, 1, refuse_unsafe), THREADS, ())


class TfliteTest(unittest.TestCase):
    def test_a_network_without_signatures_has_one_with_its_own_names(self) -> None:
        model = tflite.read_tflite(saved_models() / "tflite" / "lite" / "1", 1)
        definition = model.signature_defs.signature_def["serving_default"]
        self.assertEqual((list(definition.inputs), definition.method_name), (["x"], "tensorflow/serving/predict"))
        (output,) = definition.outputs
        (engine,) = load(model.folder, refuse_unsafe=True).values()
        np.testing.assert_allclose(engine.run({"x": ROWS[:1]}, [output])[output], PRODUCTS[:1])

    def test_the_signatures_in_the_metadata_count(self) -> None:
        engines = load(saved_models() / "tflite" / "lite_named" / "1")
        self.assertEqual(engines.keys(), {"named", "serving_default"})
        for engine in engines.values():
            np.testing.assert_allclose(engine.run({"picture": ROWS[:1]}, ["p"])["p"], PRODUCTS[:1])

    def test_a_network_is_resized_for_other_shapes(self) -> None:
        engine = load(saved_models() / "tflite" / "lite_named" / "1")["named"]
        with mock.patch.object(openvino, "load", wraps=openvino.load) as loads:
            for _ in range(3):
                np.testing.assert_allclose(engine.run({"picture": ROWS}, ["p"])["p"], PRODUCTS)
        self.assertEqual(loads.call_count, 1)
        with self.assertRaisesRegex(errors.ServingError, r"picture to have shape \[1,2\] but \[1,3\] is provided"):
            engine.run({"picture": np.ones((1, 3), np.float32)}, ["p"])

    def test_a_changed_file_is_not_read_for_other_shapes(self) -> None:
        folder = copy_of_model("tflite/lite", self.enterContext(tempfile.TemporaryDirectory()))
        (engine,) = load(folder).values()
        (folder / "model.tflite").write_bytes(
            (saved_models() / "tflite" / "lite_named" / "1" / "model.tflite").read_bytes()
        )
        with self.assertRaises(errors.ServingError):
            engine.run({"x": ROWS}, [])

    def test_a_network_that_keeps_numbers_between_calls_is_refused(self) -> None:
        with self.assertRaisesRegex(errors.StartError, "OpenVINO can't compute its own network"):
            load(saved_models() / "tflite" / "counter" / "1")

    def test_a_broken_file_is_refused(self) -> None:
        folder = copy_of_model("tflite/lite_named", self.enterContext(tempfile.TemporaryDirectory()))
        path = folder / "model.tflite"
        whole = path.read_bytes()
        path.write_bytes(b"")
        with self.assertRaisesRegex(errors.StartError, "model.tflite is broken"):
            load(folder)
        for size in range(0, len(whole), 7):
            with self.subTest(size):
                path.write_bytes(whole[:size])
                try:
                    load(folder)
                except errors.StartError:
                    continue
                self.fail("half a network was loaded")

    def test_the_flag_prefers_it_and_without_the_flag_the_version_is_no_model(self) -> None:
        with processes.model_server(saved_models() / "tflite" / "lite_named", "M", "--prefer_tflite_model") as server:
            url = f"{server.url}/v1/models/M:predict"
            answer = requests.post(url, json={"instances": ROWS.tolist()}, timeout=60).json()
        self.assertEqual(answer, {"predictions": PRODUCTS})
        with self.assertRaisesRegex(AssertionError, "saved_model.pb can't be read"):
            self.enterContext(processes.model_server(saved_models() / "tflite" / "lite_named", "M"))


if __name__ == "__main__":
    unittest.main()
