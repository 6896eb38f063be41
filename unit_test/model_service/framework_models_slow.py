"""Tests that models of Keras 3, `tf.distribute` and TensorFlow 1 and 2 are served, with TensorFlow's own results."""

import contextlib
import unittest

import grpc
import numpy as np

from serving_common import tensorflow_protos as protos
from unit_test import processes
from unit_test.model_service import fixtures

TIMEOUT_S = 120
# TensorFlow is imported while the server starts.
START_S = 300
SIGNATURES = {
    "keras": ["serving_default"],
    "keras_lambda": ["serving_default"],
    "distributed": ["serving_default"],
    "ragged": ["serving_default", "sums"],
    "tables": ["serving_default"],
    "control_flow": ["serving_default"],
    "version_1": ["serving_default"],
}


class FrameworkModelsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = fixtures.made_by("framework_models.py")
        config = cls.folder / "models.config"
        models = "".join(
            f"config {{ name: '{name}' base_path: '{cls.folder / name}' model_platform: 'tensorflow' }} "
            for name in SIGNATURES
        )
        config.write_text(f"model_config_list {{ {models} }}")
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(
                processes.model_server(
                    cls.folder, "-", f"--model_config_file={config}", "--refuse_unsafe_operations", timeout=START_S
                )
            )
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
            cls.addClassCleanup(stack.pop_all().close)
        cls.predictions = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def test_each_signature_has_tensorflows_results(self) -> None:
        for model, signatures in SIGNATURES.items():
            for signature in signatures:
                with self.subTest(model, signature=signature):
                    inputs, outputs = fixtures.expected(model, signature, self.folder)
                    request = fixtures.predict_request(inputs, model, signature)
                    response = self.predictions.Predict(request, timeout=TIMEOUT_S)
                    self.assertEqual(response.outputs.keys(), outputs.keys())
                    for alias, array in outputs.items():
                        self.assert_same(fixtures.tensors.to_array(response.outputs[alias], 1 << 20), array)

    def assert_same(self, found: fixtures.Array, array: fixtures.Array) -> None:
        self.assertEqual((found.dtype, found.shape), (array.dtype, array.shape))
        if array.dtype == np.float32:
            np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(found, array)


if __name__ == "__main__":
    unittest.main()
