"""Tests which signatures are compiled at load and which at their first call, and what falls back to TensorFlow."""

import shutil
import tempfile
import threading
import unittest
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np

from model_service import errors, flags, loading
from model_service.engines import factory, lazy, parallelism
from model_service.engines import openvino as openvino_engine
from model_service.engines import tensorflow as tensorflow_engine
from model_service.models import saved_model
from model_service.observability import metrics
from model_service.prediction import warmup
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import Array, copy_of_model, expected, saved_models, warmup_record

THREADS = parallelism.Threads(compute=2, streams=2, has_latency_model=True)
CALLERS = 8


def load_engines(folder: Path, *at_load: str) -> dict[str, Any]:
    """Return the engines of the model in this version folder. The signatures in `at_load` are compiled at load."""
    engines_by_name: dict[str, Any] = factory.load_engines(saved_model.read_saved_model(folder, 1), THREADS, at_load)
    return engines_by_name


class WatchedLoads(unittest.TestCase):
    """Records which signatures OpenVINO compiles."""

    def setUp(self) -> None:
        self.folder = copy_of_model("two_signatures", self.enterContext(tempfile.TemporaryDirectory()))
        self.inputs = expected("two_signatures")[0]
        load = mock.patch.object(openvino_engine, "load", wraps=openvino_engine.load)
        self.load = self.enterContext(load)

    def compiled(self) -> list[str]:
        return [call.args[1].name for call in self.load.call_args_list]

    def features(self) -> Any:
        """Return the engine of `features`, which is not compiled yet."""
        return load_engines(self.folder, "serving_default")["features"]


class LazyEngineTest(WatchedLoads):
    def test_only_what_is_asked_for_is_compiled_at_load(self) -> None:
        loaded = load_engines(self.folder, "serving_default")
        self.assertEqual(loaded.keys(), {"serving_default", "features"})
        self.assertEqual(self.compiled(), ["serving_default"])
        self.assertEqual(loaded["features"].infer_requests, 0)

    def test_the_first_call_compiles_and_says_so_and_no_other_does(self) -> None:
        features = self.features()
        with self.assertLogs(lazy.logger, "INFO") as logs:
            for _ in range(3):
                features.run(self.inputs, ["features"])
        self.assertEqual(self.compiled(), ["serving_default", "features"])
        expected_line = rf"^INFO:{lazy.__name__}:features: compiled at its first call, in \d+\.\d\d s$"
        self.assertRegex("\n".join(logs.output), expected_line)
        self.assertEqual(features.infer_requests, THREADS.callers + 1)

    def test_callers_at_the_same_time_compile_once_and_all_are_answered(self) -> None:
        features = self.features()
        expected_features = expected("two_signatures", "features")[1]["features"]
        together = threading.Barrier(CALLERS)

        def call(_: int) -> Array:
            together.wait(10)
            results: Mapping[str, Array] = features.run(self.inputs, ["features"])
            return results["features"]

        with ThreadPoolExecutor(CALLERS) as pool:
            for answer in pool.map(call, range(CALLERS)):
                np.testing.assert_allclose(answer, expected_features, rtol=1e-5)
        self.assertEqual(self.compiled(), ["serving_default", "features"])

    def test_its_answers_are_those_of_what_is_compiled_at_load(self) -> None:
        """The answers are equal to the last bit, whichever infer request computes."""
        at_load = load_engines(self.folder, "serving_default", "features")["features"]
        features = self.features()
        for _ in range(at_load.infer_requests):
            np.testing.assert_array_equal(
                features.run(self.inputs, ["features"])["features"], at_load.run(self.inputs, ["features"])["features"]
            )

    def test_inputs_that_the_graph_refuses_are_the_requests_fault(self) -> None:
        with self.assertRaises(errors.ServingError) as caught:
            self.features().run({"values": np.zeros((2, 7), np.float32)}, ["features"])
        self.assertEqual(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)


class FailedFirstCallTest(WatchedLoads):
    def assert_refused(self, features: Any, reason: str) -> None:
        """Assert that the call's error names no folder of the server, and that the log has the reason."""
        with self.assertLogs(lazy.logger, "ERROR") as logs, self.assertRaises(errors.ServingError) as caught:
            features.run(self.inputs, ["features"])
        self.assertEqual(caught.exception.code, grpc.StatusCode.FAILED_PRECONDITION)
        self.assertIn('"features" can\'t be loaded any more', caught.exception.message)
        self.assertNotIn(str(self.folder), caught.exception.message)
        self.assertRegex(logs.output[0], reason)

    def test_a_folder_that_is_gone_refuses_the_call_and_the_next_one_tries_again(self) -> None:
        loaded = load_engines(self.folder, "serving_default")
        self.folder.rename(self.folder.with_name("away"))
        for _ in range(2):
            self.assert_refused(loaded["features"], "saved_model.pb can't be read")
        loaded["serving_default"].run(self.inputs, ["probabilities"])
        self.folder.with_name("away").rename(self.folder)
        self.assertEqual(loaded["features"].run(self.inputs, ["features"]).keys(), {"features"})

    def test_a_file_that_is_not_what_it_was_refuses_the_call(self) -> None:
        """For example another model under the same version number: it would answer as a version that it is not."""

        def break_graph() -> None:
            (self.folder / "saved_model.pb").write_bytes(b"x" * 99)

        def cut_variables() -> None:
            data = self.folder / "variables" / "variables.data-00000-of-00001"
            data.write_bytes(data.read_bytes()[:-1])

        def bring_another_model() -> None:
            shutil.copytree(saved_models() / "two_inputs" / "1", self.folder, dirs_exist_ok=True)

        features = self.features()
        for spoil in (break_graph, cut_variables, bring_another_model):
            with self.subTest(spoil.__name__):
                spoil()
                self.assert_refused(features, "has changed since it was loaded")
                shutil.copytree(saved_models() / "two_signatures" / "1", self.folder, dirs_exist_ok=True)
        features.run(self.inputs, ["features"])

    def test_whatever_stops_the_compilation_refuses_the_call_and_the_next_one_tries_again(self) -> None:
        features = self.features()
        for exc in (openvino_engine.Unsupported("no"), OSError(28, "No space left"), errors.StartError("no graph")):
            with self.subTest(type(exc).__name__):
                self.load.side_effect = exc
                self.assert_refused(features, str(exc).replace("[", r"\["))
        self.load.side_effect = None
        features.run(self.inputs, ["features"])


class UnsupportedTest(unittest.TestCase):
    def test_what_openvino_cannot_compute_is_tensorflows_from_the_load_on(self) -> None:
        # TensorFlow is not loaded here: in this process, other tests have already loaded the messages without it.
        with (
            mock.patch.object(tensorflow_engine, "open_session"),
            self.assertLogs(factory.logger, "WARNING") as logs,
        ):
            loaded = load_engines(saved_models() / "fallback" / "1", "floats")
        served = {name: type(engine).__name__ for name, engine in loaded.items()}
        names = ("serving_default", "every_type", "wide", "parsed")
        self.assertEqual(served, {**dict.fromkeys(names, "TensorFlowEngine"), "floats": "AnyShapeEngine"})
        self.assertEqual(len(logs.output), len(names))
        self.assertRegex(logs.output[0], r": OpenVINO .*; TensorFlow serves it instead$")

    def test_a_start_without_the_tensorflow_that_it_needs_fails_at_once(self) -> None:
        missing = tensorflow_protos.TensorFlowMissing("TensorFlow is not installed")
        with (
            mock.patch.object(tensorflow_engine, "open_session", side_effect=missing),
            self.assertLogs(factory.logger, "WARNING"),
            self.assertRaisesRegex(errors.StartError, "needs TensorFlow"),
        ):
            load_engines(saved_models() / "fallback" / "1", "floats")


class LoadVersionTest(WatchedLoads):
    def load_version(self, *arguments: str) -> Any:
        options = flags.parse(["--port=1", f"--model_base_path={self.folder.parent}", *arguments])
        return loading.load_version(options, THREADS, metrics.Monitoring(), "M", 1, self.folder)

    def write_warmup(self, content: bytes) -> None:
        (self.folder / "assets.extra").mkdir()
        (self.folder / warmup.WARMUP_FILE).write_bytes(content)

    def test_a_warm_up_file_says_what_is_compiled(self) -> None:
        self.write_warmup(warmup_record("features", self.inputs))
        servable = self.load_version()
        self.assertEqual(self.compiled(), ["features"])
        self.assertEqual(servable.engines.keys(), {"serving_default", "features"})

    def test_without_a_file_all_signatures_are_compiled(self) -> None:
        self.load_version()
        self.assertEqual(set(self.compiled()), {"serving_default", "features"})

    def test_without_a_warm_up_all_signatures_are_compiled(self) -> None:
        self.write_warmup(warmup_record("features", self.inputs))
        self.load_version("--enable_model_warmup=false")
        self.assertEqual(set(self.compiled()), {"serving_default", "features"})

    def test_a_broken_warm_up_file_is_named(self) -> None:
        self.write_warmup(warmup_record("features", self.inputs)[:-1])
        with self.assertRaisesRegex(errors.StartError, "verify your warmup data is in TFRecord format"):
            self.load_version()


if __name__ == "__main__":
    unittest.main()
