"""Tests that OpenVINO computes what TensorFlow computes, or rejects the model."""

import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import grpc
import numpy as np

from model_service import errors
from model_service.engines import openvino as openvino_engine
from model_service.engines import parallelism
from model_service.models import saved_model
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import copy_of_model, expected, saved_models

THREADS = parallelism.Threads(compute=2, streams=1)


def load(folder: Path, signature: str = "serving_default") -> openvino_engine.OpenVinoEngine:
    """Compile one signature of the model in this version folder."""
    model = saved_model.read_saved_model(folder, 1)
    return openvino_engine.load(model, model.signatures[signature], THREADS)


def check(folder: Path, signature: str = "serving_default") -> None:
    """Read one signature of the model in this version folder, without compiling it."""
    model = saved_model.read_saved_model(folder, 1)
    openvino_engine.check(model, model.signatures[signature])


class OpenVinoEngineTest(unittest.TestCase):
    def test_it_computes_what_tensorflow_computes(self) -> None:
        for name, signature in (
            ("image", "serving_default"),
            ("two_inputs", "serving_default"),
            ("two_signatures", "serving_default"),
            ("two_signatures", "features"),
            ("many_outputs", "serving_default"),
            ("kept_types", "serving_default"),
            ("fallback", "floats"),
        ):
            with self.subTest(f"{name}.{signature}"):
                inputs, outputs = expected(name, signature)
                results = load(saved_models() / name / "1", signature).run(inputs, list(outputs))
                self.assertEqual(results.keys(), outputs.keys())
                for alias, array in outputs.items():
                    np.testing.assert_allclose(results[alias], array, rtol=1e-5, atol=1e-6)
                    self.assertEqual(results[alias].dtype, array.dtype)

    def test_it_takes_any_number_of_rows(self) -> None:
        inputs, outputs = expected("image")
        engine = load(saved_models() / "image" / "1")
        for rows in (2, 0, 3, 1):
            with self.subTest(rows=rows):
                results = engine.run({"image": inputs["image"][:rows]}, ["probabilities"])
                np.testing.assert_allclose(results["probabilities"], outputs["probabilities"][:rows], rtol=1e-5)

    def test_it_takes_memory_that_cannot_be_written(self) -> None:
        """The bytes of a message are read-only."""
        inputs, outputs = expected("image")
        image = np.frombuffer(inputs["image"].tobytes(), np.float32).reshape(inputs["image"].shape)
        results = load(saved_models() / "image" / "1").run({"image": image}, ["probabilities"])
        np.testing.assert_allclose(results["probabilities"], outputs["probabilities"], rtol=1e-5)

    def test_results_stay_what_they_are_when_the_next_call_comes(self) -> None:
        engine = load(saved_models() / "two_signatures" / "1")
        values = expected("two_signatures")[0]["values"]
        first = engine.run({"values": values}, ["probabilities"])["probabilities"]
        kept = first.copy()
        for _ in range(engine.infer_requests):
            engine.run({"values": values * 0}, ["probabilities"])
        np.testing.assert_array_equal(first, kept)

    def test_callers_at_the_same_time_get_their_own_results(self) -> None:
        engine = load(saved_models() / "two_inputs" / "1")
        wrong: list[int] = []

        def call(number: int) -> None:
            inputs = {"values": np.full((1, 3), number, np.float32), "counts": np.array([2], np.int32)}
            for _ in range(50):
                if not np.array_equal(engine.run(inputs, ["products"])["products"], inputs["values"] * 2):
                    wrong.append(number)

        started = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        self.assertEqual(wrong, [])

    def test_inputs_that_do_not_fit_each_other_are_the_requests_fault(self) -> None:
        """A signature can't state that two inputs must have the same number of rows. The engine works on afterwards."""
        engine = load(saved_models() / "two_inputs" / "1")
        with self.assertRaises(errors.ServingError) as caught:
            engine.run({"values": np.zeros((2, 3), np.float32), "counts": np.zeros(5, np.int32)}, ["products"])
        self.assertEqual(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
        self.assertNotIn("\n", caught.exception.message)
        inputs, outputs = expected("two_inputs")
        for _ in range(engine.infer_requests):
            np.testing.assert_allclose(engine.run(inputs, ["products"])["products"], outputs["products"])


class FakeRequest:
    """An infer request that records whether it was used, and computes until it is released."""

    def __init__(self) -> None:
        self.is_used = False
        self.let_go = threading.Event()

    def infer(self) -> None:
        self.is_used = True
        self.let_go.wait(10)


class FakeCompiled:
    """A compiled model that keeps its infer requests."""

    def __init__(self) -> None:
        self.requests: list[FakeRequest] = []

    def create_infer_request(self) -> FakeRequest:
        self.requests.append(FakeRequest())
        return self.requests[-1]

    def used(self) -> int:
        return sum(request.is_used for request in self.requests)


class AloneTest(unittest.TestCase):
    def setUp(self) -> None:
        self.shared, self.alone = FakeCompiled(), FakeCompiled()
        self.engine = openvino_engine.OpenVinoEngine(unittest, self.shared, self.alone, {}, {}, callers=2)

    def warm_up(self) -> None:
        for request in (*self.shared.requests, *self.alone.requests):
            request.let_go.set()
        for _ in range(self.engine.infer_requests):
            self.engine.run({}, [])

    def test_the_warm_up_reaches_every_request(self) -> None:
        self.warm_up()
        self.assertEqual((self.shared.used(), self.alone.used()), (2, 1))

    def test_a_call_that_is_alone_gets_all_threads_and_one_beside_it_does_not(self) -> None:
        self.warm_up()
        for request in (*self.shared.requests, *self.alone.requests):
            request.is_used = False
        self.alone.requests[0].let_go.clear()
        first = threading.Thread(target=self.engine.run, args=({}, []))
        first.start()
        while not self.alone.used():
            time.sleep(0.001)
        self.engine.run({}, [])
        self.assertEqual(self.shared.used(), 1)
        self.alone.requests[0].let_go.set()
        first.join()
        self.alone.requests[0].is_used = False
        self.engine.run({}, [])
        self.assertEqual((self.shared.used(), self.alone.used()), (1, 1))

    def test_both_ways_compute_the_same(self) -> None:
        model = saved_model.read_saved_model(saved_models() / "image" / "1", 1)
        both = parallelism.Threads(compute=2, streams=2, has_latency_model=True)
        engine = openvino_engine.load(model, model.signatures["serving_default"], both)
        self.assertEqual(engine.infer_requests, both.callers + 1)
        inputs, outputs = expected("image")
        for _ in range(engine.infer_requests):
            results = engine.run(inputs, ["probabilities"])
            np.testing.assert_allclose(results["probabilities"], outputs["probabilities"], rtol=1e-5)

    def test_weights_that_fill_the_memory_are_there_only_once(self) -> None:
        model = saved_model.read_saved_model(saved_models() / "image" / "1", 1)
        both = parallelism.Threads(compute=2, streams=2, has_latency_model=True)
        with mock.patch.object(openvino_engine, "_MOST_BYTES_TWICE", 0):
            engine = openvino_engine.load(model, model.signatures["serving_default"], both)
        self.assertEqual(engine.infer_requests, both.callers)


class CompiledTwiceTest(unittest.TestCase):
    def test_the_variables_count_whatever_the_signature_is_called(self) -> None:
        model = saved_model.read_saved_model(saved_models() / "two_signatures" / "1", 1)
        size = sum(file.stat().st_size for file in model.folder.rglob("*") if file.is_file())
        both = parallelism.Threads(compute=2, streams=2, has_latency_model=True)
        for name in ("serving_default", "features"):
            for most, extra in ((size, 1), (size - 1, 0)):
                with self.subTest(name, most=most), mock.patch.object(openvino_engine, "_MOST_BYTES_TWICE", most):
                    engine = openvino_engine.load(model, model.signatures[name], both)
                    self.assertEqual(engine.infer_requests, both.callers + extra)


class UnsupportedTest(unittest.TestCase):
    def test_types_that_it_would_not_keep_exactly_are_left_to_tensorflow(self) -> None:
        cases = {"serving_default": "string", "wide": "int64", "every_type": "double"}
        for signature, text in cases.items():
            for read in (load, check):
                with self.subTest(signature, by=read.__name__):
                    with self.assertRaises(openvino_engine.Unsupported) as caught:
                        read(saved_models() / "fallback" / "1", signature)
                    if signature != "every_type":
                        self.assertIn(text, str(caught.exception))

    def test_a_graph_that_does_not_fit_its_signature_is_left_to_tensorflow(self) -> None:
        """The signature has another number of inputs, another type of output, or another shape than the graph."""
        types = tensorflow_protos.types_pb2

        def add_input(signature: object) -> None:
            signature.inputs["more"].CopyFrom(signature.inputs["values"])  # type: ignore[attr-defined]
            signature.inputs["more"].name = "elsewhere:0"  # type: ignore[attr-defined]

        def drop_input(signature: object) -> None:
            del signature.inputs["counts"]  # type: ignore[attr-defined]

        def change_type(signature: object) -> None:
            signature.outputs["products"].dtype = types.DT_HALF  # type: ignore[attr-defined]

        def change_shape(signature: object) -> None:
            signature.inputs["values"].tensor_shape.dim[1].size = 4  # type: ignore[attr-defined]

        for spoil in (add_input, drop_input, change_type, change_shape):
            with self.subTest(spoil.__name__), tempfile.TemporaryDirectory() as base:
                folder = copy_of_model("two_inputs", base)
                message = saved_model.read_message(folder)
                spoil(saved_model.serving_graph(message, folder).signature_def["serving_default"])
                (folder / "saved_model.pb").write_bytes(message.SerializeToString())
                for read in (load, check):
                    with self.assertRaisesRegex(openvino_engine.Unsupported, "OpenVINO"):
                        read(folder)

    def test_a_graph_that_openvino_cannot_read_is_left_to_tensorflow(self) -> None:
        with tempfile.TemporaryDirectory() as base:
            folder = copy_of_model("image", base)
            data = folder / "variables" / "variables.data-00000-of-00001"
            data.write_bytes(data.read_bytes()[:100])
            for read in (load, check):
                with self.subTest(read.__name__), self.assertRaisesRegex(openvino_engine.Unsupported, "can't read it"):
                    read(folder)

    def test_a_graph_that_has_more_inputs_than_the_signature_is_left_to_tensorflow(self) -> None:
        """The result would depend on the value of the extra input, which is not in the request."""
        openvino = openvino_engine.import_openvino()
        folder = saved_models() / "two_inputs" / "1"
        ports = openvino.Core().read_model(str(folder)).inputs
        specs = dict(saved_model.read_saved_model(folder, 1).signatures["serving_default"].inputs)
        self.assertEqual(openvino_engine.match_ports(openvino, ports, specs).keys(), {"values", "counts"})
        del specs["counts"]
        with self.assertRaises(openvino_engine.Unsupported):
            openvino_engine.match_ports(openvino, ports, specs)


if __name__ == "__main__":
    unittest.main()
