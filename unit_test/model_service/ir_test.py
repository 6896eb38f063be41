"""A version folder with a network in OpenVINO's own format is served from that, and checked like a graph."""

import json
import tempfile
import unittest
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_service.engines import factory
from model_service.engines import openvino as openvino_engine
from model_service.engines.lazy import LazyEngine
from model_service.engines.parallelism import Threads
from model_service.errors import ServingError, StartError
from model_service.models import saved_model
from serving_common.tensorflow_protos import saved_model_pb2, types_pb2
from unit_test import processes

THREADS = Threads(compute=1, streams=1)


def write_version(folder: Path, answer_to: Callable[[Any], Any] | None = None) -> Path:
    """A version whose network answers `answer_to(image)`, or the double. Its graph has nothing but the signature."""
    openvino = openvino_engine.import_openvino()
    from openvino import opset13 as ops

    image = ops.parameter([-1, 3], np.float32, name="image")
    image.output(0).set_names({"image"})
    answer = answer_to(image) if answer_to else ops.multiply(image, np.float32(2))
    answer.output(0).set_names({"answer"})
    (folder / "openvino").mkdir(parents=True)
    network = openvino.Model([ops.result(answer)], [image], "made")
    openvino.save_model(network, str(folder / "openvino" / "model.xml"), compress_to_fp16=False)

    message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = message.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    signature = meta_graph.signature_def["serving_default"]
    for tensors, name in ((signature.inputs, "image"), (signature.outputs, "answer")):
        node = meta_graph.graph_def.node.add(name=name, op="Placeholder")
        node.attr["dtype"].type = tensors[name].dtype = types_pb2.DT_FLOAT
        tensors[name].name = f"{name}:0"
        for size in (-1, 3):
            tensors[name].tensor_shape.dim.add(size=size)
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())
    return folder


class IrTest(unittest.TestCase):
    def setUp(self) -> None:
        self.version = Path(self.enterContext(tempfile.TemporaryDirectory())) / "m" / "1"
        write_version(self.version)
        self.xml = self.version / "openvino" / "model.xml"

    def read(self, refuse_unsafe: bool = True) -> saved_model.SavedModel:
        return saved_model.read_saved_model(self.version, 1, refuse_unsafe)

    def change(self, old: str, new: str) -> None:
        text = self.xml.read_text("utf-8")
        self.assertIn(old, text)
        self.xml.write_text(text.replace(old, new), "utf-8")

    def test_the_network_is_computed_and_not_the_graph(self) -> None:
        engines = factory.load_engines(self.read(), THREADS, {"serving_default"})
        numbers = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
        answer = engines["serving_default"].run({"image": numbers}, ["answer"])["answer"]
        np.testing.assert_array_equal(answer, numbers * 2)

    def test_a_signature_of_constants_needs_no_network(self) -> None:
        """Such as the recipe of a version."""
        message = saved_model.read_message(self.version)
        (meta_graph,) = message.meta_graphs
        node = meta_graph.graph_def.node.add(name="text", op="Const")
        node.attr["dtype"].type = node.attr["value"].tensor.dtype = types_pb2.DT_STRING
        node.attr["value"].tensor.string_val.append(b"a")
        told = meta_graph.signature_def["about"].outputs["text"]
        told.name, told.dtype = "text:0", types_pb2.DT_STRING
        (self.version / "saved_model.pb").write_bytes(message.SerializeToString())
        engines = factory.load_engines(self.read(), THREADS, {"serving_default", "about"})
        self.assertEqual(engines["about"].run({}, ["text"])["text"].tolist(), b"a")

    def test_the_model_server_serves_it(self) -> None:
        with processes.model_server(self.version.parent, "m", "--refuse_unsafe_operations") as server:
            body = json.dumps({"instances": [[1, 2, 3]]}).encode()
            with urllib.request.urlopen(f"{server.url}/v1/models/m:predict", body, timeout=60) as response:
                self.assertEqual(json.load(response), {"predictions": [[2.0, 4.0, 6.0]]})

    def test_what_keeps_state_or_is_of_no_operation_set_is_refused(self) -> None:
        for new in ('type="ReadValue" version="opset1"', 'type="Assign" version="opset6"', 'type="X" version="mine"'):
            with self.subTest(new):
                self.change('type="Multiply" version="opset1"', new)
                with self.assertRaisesRegex(StartError, "--refuse_unsafe_operations: .* has the operation"):
                    self.read()
                self.read(refuse_unsafe=False)
                self.change(new, 'type="Multiply" version="opset1"')

    def test_a_document_type_and_a_broken_file_are_refused(self) -> None:
        whole = self.xml.read_bytes()
        self.xml.write_bytes(b'<!DOCTYPE net [<!ENTITY a "aaaa">]>' + whole.partition(b"?>")[2])
        with self.assertRaisesRegex(StartError, "document type"):
            self.read()
        self.xml.write_bytes(whole[: len(whole) // 2])
        with self.assertRaisesRegex(StartError, "is broken"):
            self.read()

    def test_weights_that_are_cut_off_are_a_start_error_and_tensorflow_is_not_asked(self) -> None:
        (self.version / "openvino" / "model.bin").write_bytes(b"")
        with self.assertRaisesRegex(StartError, "can't compute its own network"):
            factory.load_engines(self.read(), THREADS, {"serving_default"})

    def test_another_network_after_the_load_is_refused_at_the_first_call(self) -> None:
        model = self.read()
        engine = LazyEngine(model, model.signatures["serving_default"], THREADS)
        other = Path(self.enterContext(tempfile.TemporaryDirectory())) / "1"
        write_version(other, lambda image: image)
        (self.version / "openvino" / "model.bin").write_bytes((other / "openvino" / "model.bin").read_bytes())
        with self.assertRaises(ServingError):
            engine.run({"image": np.zeros((1, 3), np.float32)}, ["answer"])

    def test_a_signature_that_the_network_does_not_have_is_unsupported(self) -> None:
        model = self.read()
        one: Any = model.signatures["serving_default"]
        with self.assertRaises(openvino_engine.Unsupported):
            openvino_engine.check(model, saved_model.Signature("other", one.inputs, one.outputs))


if __name__ == "__main__":
    unittest.main()
