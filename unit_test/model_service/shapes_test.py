"""Tests inputs of a shape that the signature does not foresee: TensorFlow computes them, if it is installed."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np
import requests

from model_service import errors
from model_service.engines import factory, parallelism
from model_service.engines import tensorflow as tensorflow_engine
from model_service.models import saved_model
from serving_common import tensorflow_protos as protos
from unit_test.model_service.fixtures import copy_of_model, predict_request, saved_models, shared_server

TIMEOUT_S = 60
THREADS = parallelism.Threads(compute=2, streams=2)


class ServedTest(unittest.TestCase):
    def test_the_first_example_of_the_manual_is_answered(self) -> None:
        server = shared_server("half_plus_two")
        url = f"{server.url}/v1/models/CAT-DOG:predict"
        for body, answer in (
            ({"instances": [[1.0], [2.0]]}, {"predictions": [[2.5], [3.0]]}),
            ({"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
            ({"inputs": 2.0}, {"outputs": 3.0}),
        ):
            with self.subTest(str(body)):
                self.assertEqual(requests.post(url, json=body, timeout=TIMEOUT_S).json(), answer)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(predict_request({"x": np.array([2], np.float32)}), timeout=TIMEOUT_S)
        self.assertEqual(list(response.outputs["y"].float_val), [3.0])

    def test_what_tensorflow_refuses_too_gets_its_text(self) -> None:
        server = shared_server("two_signatures")
        url = f"{server.url}/v1/models/CAT-DOG:predict"
        response = requests.post(url, json={"instances": [[1.0, 2.0]]}, timeout=TIMEOUT_S)
        self.assertEqual(response.status_code, 400)
        self.assertIn("Matrix size-incompatible: In[0]: [1,2], In[1]: [3,2]", response.json()["error"])

    def test_no_shape_ends_the_process(self) -> None:
        """oneDNN's convolution would do so."""
        server = shared_server("image")
        shapes = [(), (3,), (3, 0), (2, 24, 24, 4), (0, 0, 0, 3), (1, 24, 24, 3, 1), (2**40, 0), (2**40, 2**40, 0)]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for shape in [*shapes, (1,) * 65, (1,) * 300]:
                request = predict_request({"image": np.zeros(0, np.float32)})
                dimensions = request.inputs["image"].tensor_shape
                dimensions.Clear()
                for size in shape:
                    dimensions.dim.add(size=size)
                with self.subTest(len(shape)):
                    try:
                        stub.Predict(request, timeout=TIMEOUT_S)
                    except grpc.RpcError as exc:
                        self.assertEqual(exc.code(), grpc.StatusCode.INVALID_ARGUMENT, exc.details())
        self.assertIsNone(server.process.poll())


class EngineTest(unittest.TestCase):
    def load(self, folder: Path) -> Any:
        loaded = factory.load_engines(saved_model.read_saved_model(folder, 1), THREADS, ["serving_default"])
        return loaded["serving_default"]

    def assert_refused(self, engine: Any) -> None:
        self.assertEqual(engine.run({"x": np.ones((1, 1), np.float32)}, ["y"])["y"], 2.5)
        with self.assertRaises(errors.ServingError) as caught:
            engine.run({"x": np.ones(3, np.float32)}, ["y"])
        self.assertEqual(caught.exception.message, "Expects input x to have shape [?,1] but [3] is provided")

    def test_without_tensorflow_other_shapes_are_refused(self) -> None:
        with mock.patch.object(factory, "has_tensorflow", return_value=False):
            self.assert_refused(self.load(saved_models() / "half_plus_two" / "1"))

    def test_without_the_memory_for_tensorflow_other_shapes_are_refused(self) -> None:
        with (
            mock.patch.object(factory, "free_bytes", return_value=300 << 20),
            self.assertLogs(tensorflow_engine.logger, "WARNING") as logs,
        ):
            self.assert_refused(self.load(saved_models() / "half_plus_two" / "1"))
        self.assertIn("TensorFlow needs 1536 MiB, and 300 MiB of memory are free", logs.output[0])

    def test_shapes_that_fit_need_no_tensorflow(self) -> None:
        with mock.patch.object(tensorflow_engine, "open_session", side_effect=AssertionError):
            engine = self.load(saved_models() / "half_plus_two" / "1")
            self.assertEqual(engine.run({"x": np.ones((1, 1), np.float32)}, ["y"])["y"], 2.5)

    def test_files_that_have_changed_since_the_load_are_not_read(self) -> None:
        folder = copy_of_model("half_plus_two", self.enterContext(tempfile.TemporaryDirectory()))
        engine = self.load(folder)
        (folder / "saved_model.pb").write_bytes((saved_models() / "image" / "1" / "saved_model.pb").read_bytes())
        with self.assertLogs(tensorflow_engine.logger, "WARNING") as logs:
            self.assert_refused(engine)
        self.assertIn("has changed since it was loaded", logs.output[0])


class TagsTest(unittest.TestCase):
    def test_the_tags_choose_the_graph(self) -> None:
        folder = copy_of_model("half_plus_two", self.enterContext(tempfile.TemporaryDirectory()))
        message = saved_model.read_message(folder)
        message.meta_graphs.add().CopyFrom(message.meta_graphs[0])
        message.meta_graphs[1].meta_info_def.tags[:] = ["gpu", "serve"]
        message.meta_graphs[1].signature_def["more"].CopyFrom(message.meta_graphs[1].signature_def["serving_default"])
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        model = saved_model.read_saved_model(folder, 1, tags=frozenset({"serve", "gpu"}))
        loaded = factory.load_engines(model, THREADS, ["serving_default", "more"])
        self.assertEqual(loaded["more"].run({"x": np.ones((1, 1), np.float32)}, ["y"])["y"], 2.5)
        self.assertNotIn("more", saved_model.read_saved_model(folder, 1).signatures)
        with self.assertRaisesRegex(errors.StartError, 'no graph with the tag "a,b"'):
            saved_model.read_saved_model(folder, 1, tags=frozenset("ba"))


if __name__ == "__main__":
    unittest.main()
