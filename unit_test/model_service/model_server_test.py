"""Tests that the model server starts quickly or says in one line why it can't, and stops without losing a call."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_service.prediction import warmup
from serving_common import tensorflow_protos
from unit_test import processes
from unit_test.model_service.fixtures import (
    copy_of_model,
    expected,
    predict_request,
    saved_models,
    shared_server,
    warmup_record,
)

TIMEOUT_S = 30
# A line of our log, or one that TensorFlow prints when it is imported. The latter can't be disabled.
LOG_LINE = re.compile(
    r'\{"time": "[\dT:.+-]+", "level": "(INFO|WARNING)", '
    r"|[IWE]0000 |WARNING: All log messages before absl"
)
# About a second on one core: long enough to stop the server during the call.
STEPS = {"steps": np.array(120_000, np.int32)}


def start(*flags: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    command = [sys.executable, str(processes.MODEL_SERVER), "--bind_address=127.0.0.1", *flags]
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=variables, check=False)


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """Yield a port on which another program listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


class RefusedStartTest(unittest.TestCase):
    def assert_one_line(self, done: subprocess.CompletedProcess[str], text: str) -> None:
        """Assert that the process failed, and that it wrote only one line beside the log."""
        self.assertNotEqual(done.returncode, 0)
        lines = [line for line in done.stderr.splitlines() if not LOG_LINE.match(line)]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertRegex(lines[0], text)

    def flags(self, base_path: Path, port: int | None = None) -> list[str]:
        return ["--model_name=M", f"--port={port or processes.free_port()}", f"--model_base_path={base_path}"]

    def test_a_taken_port_is_named_before_the_model_is_loaded(self) -> None:
        image = saved_models() / "image"
        with taken_port() as port:
            self.assert_one_line(start(*self.flags(image, port)), f"127.0.0.1:{port} .*--port=")
            done = start(*self.flags(image), f"--rest_api_port={port}")
            self.assert_one_line(done, f"127.0.0.1:{port} .*--rest_api_port=")
            self.assertNotIn("Successfully loaded", done.stderr)

    def test_a_second_server_on_the_same_port_is_refused(self) -> None:
        """Each port of a running server is taken; none is shared."""
        image = saved_models() / "image"
        with processes.model_server(image) as server:
            self.assert_one_line(start(*self.flags(image, server.grpc_port)), f"127.0.0.1:{server.grpc_port}")
            done = start(*self.flags(image), f"--rest_api_port={server.rest_port}")
            self.assert_one_line(done, f"127.0.0.1:{server.rest_port}")

    def test_a_model_that_cannot_be_served_is_named(self) -> None:
        """One fault for each step of the start. saved_model_test has the other faults of reading a model."""

        def cut_variables(version: Path) -> None:
            data = version / "variables" / "variables.data-00000-of-00001"
            data.write_bytes(data.read_bytes()[:100])

        def break_warmup(version: Path) -> None:
            (version / warmup.WARMUP_FILE).parent.mkdir()
            (version / warmup.WARMUP_FILE).write_bytes(b"no records")

        cases: dict[str, tuple[Any, str]] = {
            "no_base_path": (lambda version: shutil.rmtree(version.parent), "Could not find base path"),
            "no_version": (lambda version: version.rename(version.with_name("v1")), "No versions of servable M found"),
            "broken_graph": (lambda version: (version / "saved_model.pb").write_bytes(b"x" * 99), "is broken"),
            "half_of_the_variables": (cut_variables, "can't be loaded"),
            "broken_warmup_file": (break_warmup, "verify your warmup data is in TFRecord format"),
        }
        for case, (spoil, text) in cases.items():
            with self.subTest(case), tempfile.TemporaryDirectory() as folder:
                version = copy_of_model("image", folder)
                spoil(version)
                self.assert_one_line(start(*self.flags(version.parent)), text)

    def test_a_config_file_with_a_mistake_is_named(self) -> None:
        path = Path(self.enterContext(tempfile.TemporaryDirectory()), "models.config")
        path.write_text("improperly formatted file")
        done = start(f"--port={processes.free_port()}", f"--model_config_file={path}")
        self.assert_one_line(done, "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:1 : ")

    def test_a_bad_flag_is_named_above_the_usage(self) -> None:
        done = start("--port=web")
        self.assertEqual(done.returncode, 255)
        first, *usage = done.stderr.splitlines()
        self.assertEqual(first, "Couldn't interpret value web for flag port.")
        self.assertIn('\t--model_name="default"', "\n".join(usage))
        self.assertNotIn("Traceback", done.stderr)

    def test_an_unsupported_flag_is_refused(self) -> None:
        done = start(*self.flags(saved_models() / "image"), "--ssl_config_file=/ssl.cfg")
        self.assert_one_line(done, "--ssl_config_file is not supported")


class StartTest(unittest.TestCase):
    def test_the_version_is_printed(self) -> None:
        done = start("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^TensorFlow ModelServer \(embedded stand-in\): \d+\.\d+\.\d+\n$")

    def test_help_is_the_usage_and_no_mistake(self) -> None:
        done = start("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("usage: model_server.py\n"), done.stdout)
        for flag in ("model_base_path", "file_system_poll_wait_seconds", "max_queued_requests", "stuck_call_seconds"):
            self.assertIn(f"\t--{flag}=", done.stdout)

    def test_an_unknown_flag_is_named_and_passed_over(self) -> None:
        with processes.model_server(saved_models() / "image", "CAT-DOG", "--prot=8500") as server:
            self.assertIn("unknown argument: --prot=8500", server.output())
            self.assertIn("usage:", server.output())

    def test_the_highest_version_is_served(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            version = copy_of_model("two_signatures", folder)
            version.rename(version.with_name("2"))
            shutil.copytree(saved_models() / "two_inputs" / "1", version.with_name("010"))
            with processes.model_server(version.parent) as server:
                status = requests.get(f"{server.url}/v1/models/CAT-DOG", timeout=TIMEOUT_S).json()
        self.assertEqual([entry["version"] for entry in status["model_version_status"]], ["10"])

    def test_the_models_own_requests_warm_it_up(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            version = copy_of_model("image", folder)
            (version / "assets.extra").mkdir()
            shutil.copy(saved_models() / "warmup", version / warmup.WARMUP_FILE)
            with processes.model_server(version.parent) as server:
                self.assertNotIn("No warmup data file", server.output())

    def test_a_signature_that_the_warm_up_leaves_alone_is_compiled_by_its_first_call(self) -> None:
        """If its files are broken by then, only this call is rejected, and the next call tries again."""
        inputs, outputs = expected("two_signatures")
        body = {"inputs": inputs["values"].tolist()}
        with tempfile.TemporaryDirectory() as folder:
            version = copy_of_model("two_signatures", folder)
            (version / "assets.extra").mkdir()
            (version / warmup.WARMUP_FILE).write_bytes(warmup_record("features", inputs))
            with processes.model_server(version.parent) as server:

                def predict(signature: str) -> requests.Response:
                    url = f"{server.url}/v1/models/CAT-DOG:predict"
                    return requests.post(url, json={"signature_name": signature, **body}, timeout=TIMEOUT_S)

                graph = (version / "saved_model.pb").read_bytes()
                (version / "saved_model.pb").write_bytes(graph[:1000])
                refused = predict("serving_default")
                self.assertEqual(refused.status_code, 400)
                self.assertIn("can't be loaded any more", refused.json()["error"])
                self.assertEqual(predict("features").status_code, 200)
                self.assertEqual(requests.get(f"{server.url}/readyz", timeout=TIMEOUT_S).status_code, 200)
                (version / "saved_model.pb").write_bytes(graph)
                for _ in range(2):
                    answer = predict("serving_default").json()["outputs"]
                    np.testing.assert_allclose(answer, outputs["probabilities"], rtol=1e-5)
                compiled = re.findall(r'"(\w+): compiled at its first call, in \d+\.\d+ s"', server.output())
        self.assertEqual(compiled, ["serving_default"])

    def test_without_a_rest_port_only_grpc_is_served(self) -> None:
        port = processes.free_port()
        image = saved_models() / "image"
        command = [sys.executable, str(processes.MODEL_SERVER), f"--port={port}", f"--model_base_path={image}"]

        def ready() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        with processes.running(command, ready) as server:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
            self.assertNotIn("REST API", server.output())


class WithoutTensorFlowTest(unittest.TestCase):
    def imported_modules(self, model: str) -> set[str]:
        """Return every module that a server has imported when it has answered a status request."""
        grpc_port, rest_port = processes.free_port(), processes.free_port()
        command = [
            *(sys.executable, "-X", "importtime", str(processes.MODEL_SERVER), "--bind_address=127.0.0.1"),
            *(f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--model_base_path={saved_models() / model}"),
        ]
        with processes.running(command, lambda: processes.answers(f"http://127.0.0.1:{rest_port}/readyz")) as server:
            return set(re.findall(r"import time:.*\| +(\S+)", server.output()))

    def test_tensorflow_is_not_loaded_where_openvino_serves(self) -> None:
        modules = self.imported_modules("image")
        self.assertIn("tensorflow.core.framework.tensor_pb2", modules)
        self.assertNotIn("tensorflow.python", modules)

    def test_tensorflow_is_loaded_where_openvino_cannot_serve(self) -> None:
        """This shows that the test above can fail."""
        self.assertIn("tensorflow.python", self.imported_modules("fallback"))

    def test_nothing_that_reports_to_its_makers_is_loaded(self) -> None:
        """OpenVINO's package would report each import to Google Analytics."""
        modules = self.imported_modules("image")
        self.assertIn("openvino", modules)
        self.assertEqual([name for name in modules if "telemetry" in name], [])

    @unittest.skipIf(sys.platform == "win32", "makes symbolic links")
    def test_it_works_without_tensorflow_and_says_what_a_model_needs_it_for(self) -> None:
        """This is the environment of the container, and of `run.py serve`."""
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-S", str(processes.MODEL_SERVER), "--bind_address=127.0.0.1"]
            environment = {"PYTHONPATH": str(_packages_without_tensorflow(Path(folder, "packages")))}
            port, rest_port = processes.free_port(), processes.free_port()
            flags = [f"--port={port}", f"--rest_api_port={rest_port}"]
            image = [*command, *flags, f"--model_base_path={saved_models() / 'image'}"]
            ready = f"http://127.0.0.1:{rest_port}/readyz"
            with processes.running(image, lambda: processes.answers(ready), environment):
                pass
            fallback = [*command, *flags, f"--model_base_path={saved_models() / 'fallback'}"]
            done = subprocess.run(
                fallback,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                env={**os.environ, **environment},
                check=False,
            )
        self.assertEqual(done.returncode, 255)
        self.assertRegex(
            done.stderr.splitlines()[-1], "needs TensorFlow .* but TensorFlow is not installed: pip install"
        )
        self.assertNotIn("Traceback", done.stderr)


def _packages_without_tensorflow(target: Path) -> Path:
    """Link all installed packages except TensorFlow into `target`."""
    target.mkdir()
    for entry in Path(grpc.__file__).parent.parent.iterdir():
        if entry.name.partition("-")[0] not in ("tensorflow", "tensorflow_protos"):
            (target / entry.name).symlink_to(entry)
    return target


@unittest.skipIf(sys.platform == "win32", "Windows has no SIGTERM to send")
class StopTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(processes.model_server(saved_models() / "slow"))
        self.channel = self.enterContext(grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}"))
        self.predictions = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal; return how long the process took to end, in seconds."""
        began = time.monotonic()
        self.server.process.send_signal(number)
        self.assertEqual(self.server.process.wait(TIMEOUT_S), 0, self.server.output())
        return time.monotonic() - began

    def test_an_idle_server_ends_at_once(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with (
                self.subTest(signal.Signals(number).name),
                processes.model_server(saved_models() / "slow") as self.server,
            ):
                self.assertLess(self.stop(number), 2)
                self.assertNotIn("Traceback", self.server.output())

    def test_calls_under_way_are_finished(self) -> None:
        call = self.predictions.Predict.future(predict_request(STEPS), timeout=TIMEOUT_S)
        answers: list[requests.Response] = []
        url = f"{self.server.url}/v1/models/CAT-DOG:predict"
        rest = threading.Thread(
            target=lambda: answers.append(requests.post(url, json={"inputs": 120_000}, timeout=TIMEOUT_S))
        )
        rest.start()
        time.sleep(0.3)
        self.assertFalse(call.done(), "the call was meant to take longer")
        self.stop()
        rest.join()
        self.assertEqual(len(call.result().outputs["total"].float_val), 1)
        self.assertEqual([answer.status_code for answer in answers], [200])

    def test_a_computation_that_nobody_waits_for_does_not_delay_the_end(self) -> None:
        request = predict_request({"steps": np.array(5_000_000, np.int32)})
        with self.assertRaises(grpc.RpcError) as caught:
            self.predictions.Predict(request, timeout=0.3)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(self.stop(), 3)
        self.assertIn("Stopping although a computation runs", self.server.output())

    def test_new_calls_are_refused_while_old_ones_finish(self) -> None:
        call = self.predictions.Predict.future(predict_request(STEPS), timeout=TIMEOUT_S)
        time.sleep(0.3)
        self.server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}") as channel:
            stub = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Predict(predict_request({"steps": np.array(1, np.int32)}), timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(len(call.result().outputs["total"].float_val), 1)

    def test_whoever_watches_the_health_is_told_and_does_not_delay_the_end(self) -> None:
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest())
        states = [next(watch).status]

        def follow() -> None:
            with contextlib.suppress(grpc.RpcError):
                states.extend(answer.status for answer in watch)

        follower = threading.Thread(target=follow)
        follower.start()
        self.assertLess(self.stop(), 3)
        follower.join()
        state: Any = health_pb2.HealthCheckResponse
        self.assertEqual(states, [state.SERVING, state.NOT_SERVING])


class LoadTest(unittest.TestCase):
    def test_the_server_answers_while_every_thread_computes(self) -> None:
        """Liveness and status do not wait for predictions, even if many of them are queued."""
        server = shared_server("slow")
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            calls = [stub.Predict.future(predict_request(STEPS)) for _ in range(50)]
            time.sleep(0.2)
            for path in ("/livez", "/readyz", "/v1/models/CAT-DOG"):
                with self.subTest(path):
                    response = requests.get(server.url + path, timeout=1)
                    self.assertEqual(response.status_code, 200)
            for call in calls:
                call.cancel()

    def test_a_call_that_waits_past_its_deadline_is_not_computed(self) -> None:
        """Fifty calls, each with half the time that it needs as its deadline: the server is free again soon."""
        server = shared_server("slow")
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_request({"steps": np.array(150_000, np.int32)})
            begin = time.monotonic()
            stub.Predict(request, timeout=TIMEOUT_S)
            one_call = time.monotonic() - begin
            calls = [stub.Predict.future(request, timeout=one_call / 2) for _ in range(50)]
            self.assertIn(grpc.StatusCode.DEADLINE_EXCEEDED, {call.code() for call in calls})
            begin = time.monotonic()
            stub.Predict(predict_request({"steps": np.array(1, np.int32)}), timeout=TIMEOUT_S)
            # Two calls run at a time. Fifty calls would take 25 times as long as one.
            self.assertLess(time.monotonic() - begin, 10 * one_call)


if __name__ == "__main__":
    unittest.main()
