"""A signature that returns a constant is answered without TensorFlow and without OpenVINO."""

import json
import tempfile
import unittest
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np

from model_service.engines import constants, factory, parallelism, tensorflow
from model_service.models import saved_model
from preprocess_service.app import recipe
from serving_common.tensorflow_protos import (
    get_model_metadata_pb2,
    prediction_service_pb2_grpc,
    saved_model_pb2,
    types_pb2,
)
from unit_test import processes
from unit_test.model_service.fixtures import predict_request
from unit_test.tiny_models import FLOAT, INT32, constant, info, write_model

STRING = types_pb2.DT_STRING
THREADS = parallelism.Threads(compute=1, streams=1, has_latency_model=False)


def text(graph: Any, name: str, *values: bytes, shape: tuple[int, ...] = ()) -> None:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = node.attr["value"].tensor.dtype = STRING
    node.attr["value"].tensor.string_val.extend(values)
    for side in shape:
        node.attr["value"].tensor.tensor_shape.dim.add(size=side)


class ReadTest(unittest.TestCase):
    """Which graphs are read, and what they answer."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()), "1")
        self.folder.mkdir()
        self.message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        meta = self.message.meta_graphs.add()
        meta.meta_info_def.tags.append("serve")
        self.graph = meta.graph_def
        self.signature = meta.signature_def["about"]
        node = self.graph.node.add(name="count", op="Placeholder")
        node.attr["dtype"].type = INT32
        info(self.signature.inputs["count"], "count", INT32, (-1,))

    def load(self, output: str, dtype: int = STRING) -> constants.ConstantEngine:
        self.signature.outputs["it"].name, self.signature.outputs["it"].dtype = output, dtype
        (self.folder / "saved_model.pb").write_bytes(self.message.SerializeToString())
        model = saved_model.read_saved_model(self.folder, 1, refuse_unsafe=True)
        return constants.load(model, model.signatures["about"])

    def answer(self, output: str, count: int = 2) -> Any:
        return self.load(output).run({"count": np.zeros(count, np.int32)}, ["it"])["it"].tolist()

    def add(self, name: str, op: str, *inputs: str) -> None:
        self.graph.node.add(name=name, op=op, input=inputs)

    def test_a_constant_behind_identities(self) -> None:
        text(self.graph, "text", b"a", b"b", shape=(2,))
        self.add("one", "Identity", "text")
        self.add("two", "Identity", "one:0", "^count")
        self.assertEqual(self.answer("two:0"), [b"a", b"b"])

    def test_a_fill_by_the_shape_of_the_input_or_by_a_constant(self) -> None:
        text(self.graph, "text", b"a")
        self.add("passed", "Identity", "count")
        self.add("shape", "Shape", "passed")
        self.add("by_input", "Fill", "shape", "text")
        constant(self.graph, "three", np.array([3], np.int32), INT32)
        self.add("by_constant", "Fill", "three", "text")
        self.assertEqual(self.answer("by_input:0"), [b"a"] * 2)
        self.assertEqual(self.answer("by_input:0", 0), [])
        self.assertEqual(self.answer("by_constant:0"), [b"a"] * 3)

    def test_what_is_computed_is_left_to_a_runtime(self) -> None:
        text(self.graph, "text", b"a")
        text(self.graph, "texts", b"a", b"b", shape=(2,))
        constant(self.graph, "negative", np.array([-1], np.int32), INT32)
        self.add("shape", "Shape", "count")
        for name, op, *inputs in (
            ("joined", "StringJoin", "text", "text"),
            ("of_many", "Fill", "shape", "texts"),
            ("less_than_none", "Fill", "negative", "text"),
            ("of_no_shape", "Fill", "text", "text"),
            ("of_nothing", "Fill", "absent", "text"),
        ):
            self.add(name, op, *inputs)
            with self.subTest(name), self.assertRaises(constants.NoConstant):
                self.load(f"{name}:0")
        for output, dtype in (("text:1", STRING), ("text:0", FLOAT), ("count:0", INT32), ("absent:0", STRING)):
            with self.subTest(output), self.assertRaises(constants.NoConstant):
                self.load(output, dtype)

    def test_an_input_may_be_fed_in_the_place_of_a_constant(self) -> None:
        text(self.graph, "text", b"a")
        info(self.signature.inputs["text"], "text", STRING, ())
        with self.assertRaises(constants.NoConstant):
            self.load("text:0")

    def test_neither_runtime_is_asked_and_nothing_is_warmed_up(self) -> None:
        text(self.graph, "text", b"a")
        self.load("text:0")
        with mock.patch.object(tensorflow, "open_session", side_effect=AssertionError):
            engines = factory.load_engines(saved_model.read_saved_model(self.folder, 1), THREADS, ["about"])
        self.assertEqual(engines["about"].infer_requests, 0)


class ServedTest(unittest.TestCase):
    """A recipe from a server that refuses unsafe operations and would have to import TensorFlow for strings."""

    @classmethod
    def setUpClass(cls) -> None:
        base = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_model(base / "1", ["R", "G"], [0, 1])
        flags = ("--refuse_unsafe_operations", "--max_message_bytes=100000")
        cls.server = cls.enterClassContext(processes.model_server(base, "M", *flags))
        cls.channel = cls.enterClassContext(grpc.insecure_channel(f"localhost:{cls.server.grpc_port}"))
        cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)

    def ask(self, count: int) -> Any:
        inputs = {recipe.SIGNATURE_INPUT: np.zeros(count, np.int32)}
        return self.stub.Predict(predict_request(inputs, "M", recipe.SIGNATURE), timeout=30)

    def test_over_grpc(self) -> None:
        answer = self.ask(2)
        self.assertEqual(answer.model_spec.version.value, 1)
        documents = answer.outputs[recipe.SIGNATURE_OUTPUT].string_val
        self.assertEqual(len(documents), 2)
        self.assertEqual(recipe.parse_recipe(documents[0]).labels, ("R", "G"))

    def test_over_rest(self) -> None:
        body = json.dumps({"signature_name": recipe.SIGNATURE, "instances": [0]}).encode()
        url = f"http://localhost:{self.server.rest_port}/v1/models/M:predict"
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            (document,) = json.load(answer)["predictions"]
        self.assertEqual(recipe.parse_recipe(document).labels, ("R", "G"))

    def test_the_metadata_lists_it(self) -> None:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "M"
        signatures = get_model_metadata_pb2.SignatureDefMap()
        self.stub.GetModelMetadata(request, timeout=30).metadata["signature_def"].Unpack(signatures)
        self.assertEqual(sorted(signatures.signature_def), ["pixels", recipe.SIGNATURE])

    def test_a_text_asked_for_many_times_is_refused_before_it_fills_the_memory(self) -> None:
        with self.assertRaises(grpc.RpcError) as caught:
            self.ask(20_000)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        body = json.dumps({"signature_name": recipe.SIGNATURE, "instances": [0] * 2000}).encode()
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://localhost:{self.server.rest_port}/v1/models/M:predict", body, timeout=30)
        with refused.exception:
            self.assertEqual(refused.exception.code, 429)


if __name__ == "__main__":
    unittest.main()
