"""Tests that an exported model with a recipe takes pixels: the same network, with the scaling in the graph."""

import unittest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model_service.engines import openvino as openvino_engine
from model_service.engines import parallelism
from model_service.models import saved_model
from model_service.prediction import warmup
from serving_common import tensorflow_protos
from tools import model_folder, service
from unit_test.model_service.fixtures import Array

PROJECT = Path(__file__).parents[2]
THREADS = parallelism.Threads(compute=2, streams=1)


def answers(folder: Path, signature: str, array: Array) -> dict[str, Array]:
    """Return what the embedded model server's engine computes for a model's one input."""
    definition = saved_model.read_saved_model(folder, 1).signatures[signature]
    engine = openvino_engine.load(saved_model.read_saved_model(folder, 1), definition, THREADS)
    (name,) = definition.inputs
    found: dict[str, Array] = engine.run({name: array}, list(definition.outputs))
    return found


def warm_up_request(folder: Path) -> Any:
    """Return the only request in a version folder's warm-up file."""
    path = folder / warmup.WARMUP_FILE
    (record,) = warmup.read_records(path.read_bytes(), path)
    return tensorflow_protos.load_prediction_log().PredictionLog.FromString(record).predict_log.request


class ShippedModelTest(unittest.TestCase):
    version: Path

    @classmethod
    def setUpClass(cls) -> None:
        (cls.version,) = (PROJECT / "prev_trained_models" / "CAT-DOG").glob("[0-9]*")

    def test_its_pixels_are_scaled_by_its_recipe(self) -> None:
        picture = model_folder.read_recipe(self.version).preprocessor_config
        geometry = picture.geometry()
        size = (geometry.width, geometry.height)
        files = sorted((PROJECT / "images").glob("*_?.jpg"))
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize(size)) for path in files])
        image = service.normalise(pixels, picture)
        expected = answers(self.version, "serving_default", image)
        for name, values in answers(self.version, "pixels", pixels).items():
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-6)

    def test_its_warm_up_asks_by_pixels(self) -> None:
        self.assertEqual(warm_up_request(self.version).model_spec.signature_name, "pixels")


if __name__ == "__main__":
    unittest.main()
