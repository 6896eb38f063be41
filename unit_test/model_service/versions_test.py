"""Tests that versions can change while the server works: no call fails, and the reported states are true."""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_service.api import health_service
from model_service.models import saved_model
from serving_common import tensorflow_protos
from unit_test import processes
from unit_test.model_service.fixtures import copy_of_model, expected, predict_request, saved_models

TIMEOUT_S = 30
# Each caller has its own thread and sends its next call as soon as the last one is answered.
CALLERS = 3
STATES = health_pb2.HealthCheckResponse


def eventually(condition: Callable[[], bool], server: processes.Running) -> None:
    """Wait until the condition holds, for long enough on a slow machine."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came to that:\n{server.output()}")
        time.sleep(0.02)


class Load:
    """Callers that ask for predictions without a pause, and the answers that they got."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self._over = threading.Event()
        self.versions: list[int] = []
        self.refusals: list[str] = []

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Call until the end of the block."""
        threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _call(self) -> None:
        request = predict_request(expected("image")[0])
        while not self._over.is_set():
            try:
                self.versions.append(self._stub.Predict(request, timeout=TIMEOUT_S).model_spec.version.value)
            except grpc.RpcError as exc:
                self.refusals.append(f"{exc.code()}: {exc.details()}")


class VersionsTest(unittest.TestCase):
    flags: tuple[str, ...] = ("--max_num_load_retries=0",)
    model = "image"

    def setUp(self) -> None:
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.first = copy_of_model(self.model, self.folder)
        self.server = self.enterContext(processes.model_server(self.first.parent, "CAT-DOG", *self.flags))
        channel = self.enterContext(grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}"))
        self.predictions = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def deliver(self, version: int, spoil: Callable[[Path], object] = lambda folder: None) -> None:
        """Copy the model to a temporary name, change it with `spoil`, and rename it to its version."""
        copy = Path(self.folder, "delivery")
        shutil.copytree(saved_models() / self.model / "1", copy)
        spoil(copy)
        copy.rename(self.first.with_name(str(version)))

    def take_away(self, version: int) -> None:
        """Remove a version by renaming its folder."""
        self.first.with_name(str(version)).rename(Path(self.folder, f"taken {version}"))

    def statuses(self) -> dict[int, dict[str, Any]]:
        answer = requests.get(f"{self.server.url}/v1/models/CAT-DOG", timeout=TIMEOUT_S).json()
        return {int(one["version"]): one for one in answer["model_version_status"]}

    def states(self) -> list[tuple[int, str]]:
        return [(version, one["state"]) for version, one in self.statuses().items()]

    def wait_for(self, *states: tuple[int, str]) -> None:
        """Wait until exactly these versions are listed, in this order, in these states."""
        eventually(lambda: self.states() == list(states), self.server)

    def predict(self) -> int:
        version: int = self.predictions.Predict(
            predict_request(expected(self.model)[0]), timeout=TIMEOUT_S
        ).model_spec.version.value
        return version


class UnderLoadTest(VersionsTest):
    def test_a_new_version_takes_over_without_a_failed_call(self) -> None:
        load = Load(self.predictions)
        with load.going_on():
            eventually(lambda: len(load.versions) > CALLERS, self.server)
            self.deliver(2)
            self.wait_for((2, "AVAILABLE"), (1, "END"))
            answered = len(load.versions)
            eventually(lambda: len(load.versions) > answered + CALLERS, self.server)
        self.assertEqual(load.refusals, [])
        self.assertEqual(set(load.versions), {1, 2})
        # Calls of different callers may overtake each other, but the answers of each caller come in order.
        self.assertEqual(set(load.versions[: CALLERS + 1]), {1})
        self.assertEqual(set(load.versions[answered + CALLERS :]), {2})
        log = self.server.output()
        for line in ("Successfully loaded", "Quiescing", "Done unloading"):
            version = 2 if line == "Successfully loaded" else 1
            self.assertIn(f"{line} servable version {{name: CAT-DOG version: {version}}}", log)

    def test_a_broken_version_is_reported_and_the_old_one_serves(self) -> None:
        load = Load(self.predictions)
        with load.going_on():
            self.deliver(2, lambda folder: (folder / "saved_model.pb").write_bytes(b"x" * 99))
            self.wait_for((2, "END"), (1, "AVAILABLE"))
            answered = len(load.versions)
            eventually(lambda: len(load.versions) > answered + CALLERS, self.server)
        self.assertEqual(load.refusals, [])
        self.assertEqual(set(load.versions), {1})
        status = self.statuses()[2]["status"]
        self.assertEqual(status["error_code"], "DATA_LOSS")
        self.assertRegex(status["error_message"], "saved_model.pb is broken")
        self.assertIn("Loading servable: {name: CAT-DOG version: 2} failed: DATA_LOSS: ", self.server.output())
        self.assertEqual(requests.get(f"{self.server.url}/readyz", timeout=TIMEOUT_S).status_code, 200)

    def wait_for_answers_of(self, version: int, load: Load) -> None:
        eventually(lambda: load.versions[-1:] == [version], self.server)

    def test_versions_come_and_go_without_a_failed_call(self) -> None:
        load = Load(self.predictions)
        with load.going_on():
            for version in (2, 3):
                self.deliver(version)
                self.wait_for_answers_of(version, load)
            self.take_away(3)
            self.wait_for_answers_of(2, load)
        self.assertEqual(load.refusals, [])


def add_reading(folder: Path) -> None:
    message = saved_model.read_message(folder)
    message.meta_graphs[0].graph_def.node.add(name="passwords", op="ReadFile")
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())


def put_pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


@unittest.skipIf(os.name == "nt", "Windows has no pipes in folders")
class HostileVersionsTest(VersionsTest):
    """Whatever the folder of a version holds, the served version goes on, and the next good version is loaded."""

    flags = ("--max_num_load_retries=0", "--refuse_unsafe_operations")
    VARIABLES = "variables/variables.data-00000-of-00001"
    SPOILS: Mapping[str, tuple[Callable[[Path], object], str]] = {
        "an operation with a file": (add_reading, 'operation "ReadFile" \\("passwords"\\)'),
        "a pipe for the graph": (lambda folder: put_pipe(folder, "saved_model.pb"), "is neither a file nor a folder"),
        "a pipe for the variables": (
            lambda folder: put_pipe(folder, HostileVersionsTest.VARIABLES),
            "is neither a file nor a folder",
        ),
        "an empty graph of 10 GB": (
            lambda folder: os.truncate(folder / "saved_model.pb", 10 << 30),
            "10737418240|free",
        ),
        "a graph of zeros": (lambda folder: (folder / "saved_model.pb").write_bytes(bytes(9 << 20)), "is broken"),
        "an index of zeros": (
            lambda folder: (folder / "variables/variables.index").write_bytes(bytes(9 << 20)),
            "can't be loaded",
        ),
        "an index of nothing": (
            lambda folder: (folder / "variables/variables.index").write_bytes(b""),
            "can't be loaded",
        ),
        "variables of nothing": (lambda folder: (folder / HostileVersionsTest.VARIABLES).write_bytes(b""), "."),
        "a link to elsewhere": (
            lambda folder: (folder / "assets.extra").symlink_to(tempfile.gettempdir()),
            "assets.extra is a link to a place outside",
        ),
    }

    def test_they_are_refused_in_turn_without_a_word_of_the_servers_folders(self) -> None:
        for version, (case, (spoil, reason)) in enumerate(self.SPOILS.items(), start=2):
            with self.subTest(case):
                self.deliver(version, spoil)
                eventually(lambda version=version: self.statuses().get(version, {}).get("state") == "END", self.server)
                message = self.statuses()[version]["status"]["error_message"]
                self.assertRegex(message, reason)
                for folder in (self.folder, tempfile.gettempdir(), sys.prefix):
                    self.assertNotIn(folder, message)
                self.assertEqual(self.predict(), 1)
                self.take_away(version)
        self.deliver(99)
        eventually(lambda: self.predict() == 99, self.server)
        self.assertIn(str(self.first.parent), self.server.output())


class WithoutVersionsTest(VersionsTest):
    def health_states(self) -> set[int]:
        checks = [health_pb2.HealthCheckRequest(service=service) for service in health_service.HEALTH_SERVICES]
        return {self.health.Check(check, timeout=TIMEOUT_S).status for check in checks}

    def test_the_model_is_gone_with_its_last_version_and_back_with_it(self) -> None:
        watch = self.health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        self.assertEqual(next(watch).status, STATES.SERVING)
        self.take_away(1)
        self.wait_for((1, "END"))
        with self.assertRaises(grpc.RpcError) as caught:
            self.predict()
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(caught.exception.details(), "Servable not found for request: Latest(CAT-DOG)")
        ready = requests.get(f"{self.server.url}/readyz", timeout=TIMEOUT_S)
        self.assertEqual(ready.status_code, 503)
        self.assertEqual(ready.json()["failing"], {"model": "no version of CAT-DOG is available"})
        self.assertEqual(requests.get(f"{self.server.url}/livez", timeout=TIMEOUT_S).status_code, 200)
        self.assertEqual(next(watch).status, STATES.NOT_SERVING)
        self.assertEqual(self.health_states(), {STATES.NOT_SERVING})
        self.deliver(1)
        self.wait_for((1, "AVAILABLE"))
        self.assertEqual(self.predict(), 1)
        self.assertEqual(next(watch).status, STATES.SERVING)
        self.assertEqual(self.health_states(), {STATES.SERVING})
        self.assertTrue(processes.answers(f"{self.server.url}/readyz"))


class RetriesTest(VersionsTest):
    flags = ("--max_num_load_retries=1000", "--load_retry_interval_micros=50000")

    def test_a_version_whose_copy_is_completed_is_served(self) -> None:
        """The folder is not renamed but filled in place. Half full it fails; complete it is served."""
        data = Path("variables", "variables.index")
        self.deliver(2, lambda folder: (folder / data).rename(Path(self.folder, "late")))
        eventually(lambda: "retry: 2" in self.server.output(), self.server)
        self.assertEqual(self.states(), [(2, "LOADING"), (1, "AVAILABLE")])
        self.assertEqual(self.predict(), 1)
        Path(self.folder, "late").rename(self.first.with_name("2") / data)
        self.wait_for((2, "AVAILABLE"), (1, "END"))
        self.assertEqual(self.predict(), 2)


class CallsUnderWayTest(VersionsTest):
    model = "slow"

    def setUp(self) -> None:
        config = Path(self.enterContext(tempfile.TemporaryDirectory()), "monitoring.config")
        config.write_text('prometheus_config { enable: true, path: "/metrics" }')
        self.flags = (f"--monitoring_config_file={config}",)
        super().setUp()

    def is_computing(self) -> bool:
        return "model_server_computing 1.0\n" in requests.get(f"{self.server.url}/metrics", timeout=TIMEOUT_S).text

    def test_a_version_is_not_unloaded_before_its_last_call_has_ended(self) -> None:
        """The call takes minutes here. That the version is unloaded after its last call is tested elsewhere."""
        self.addCleanup(self.server.process.kill)
        call = self.predictions.Predict.future(predict_request({"steps": np.array(200_000_000, np.int32)}))
        eventually(self.is_computing, self.server)
        self.deliver(2)
        self.wait_for((2, "AVAILABLE"), (1, "UNLOADING"))
        self.assertFalse(call.done())
        self.assertNotIn("Done unloading", self.server.output())


class OtherEngineTest(VersionsTest):
    model = "two_signatures"

    def test_a_version_that_only_tensorflow_computes_takes_over_and_gives_way_again(self) -> None:
        """TensorFlow itself is imported while the server serves."""
        self.deliver(2, lambda folder: shutil.copytree(saved_models() / "fallback" / "1", folder, dirs_exist_ok=True))
        self.wait_for((2, "AVAILABLE"), (1, "END"))
        inputs, outputs = expected("fallback")
        answer = self.predictions.Predict(predict_request(inputs), timeout=TIMEOUT_S)
        self.assertEqual(answer.model_spec.version.value, 2)
        self.assertEqual(list(answer.outputs["number"].int64_val), outputs["number"].tolist())
        self.deliver(3)
        self.wait_for((3, "AVAILABLE"), (2, "END"), (1, "END"))
        self.assertEqual(self.predict(), 3)


class PollingTest(VersionsTest):
    flags = ("--file_system_poll_wait_seconds=0",)

    def test_at_zero_the_start_is_the_only_time_to_look(self) -> None:
        self.deliver(2)
        # Longer than the default interval, so that a poll would show.
        time.sleep(2)
        self.assertEqual(self.states(), [(1, "AVAILABLE")])
        self.assertNotIn("version: 2", self.server.output())


class ThreadsTest(VersionsTest):
    @unittest.skipUnless(hasattr(os, "sched_getaffinity"), "reads /proc")
    def test_versions_that_are_gone_leave_no_threads_behind(self) -> None:
        threads = Path(f"/proc/{self.server.process.pid}/task")

        def count() -> int:
            return len(list(threads.iterdir()))

        def swap(version: int) -> int:
            self.deliver(version)
            eventually(lambda: self.states()[0] == (version, "AVAILABLE"), self.server)
            self.predict()
            return count()

        settled = max(swap(version) for version in (2, 3))
        for version in (4, 5, 6):
            swap(version)
        # A thread that only helped to load a version ends soon. Three threads that stay would be noticed.
        eventually(lambda: count() <= settled + 1, self.server)


if __name__ == "__main__":
    unittest.main()
