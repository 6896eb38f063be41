"""Tests that a full server rejects at once, drops calls without a waiting client, and reports both in its metrics."""

import contextlib
import json
import re
import socket
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving_common import tensorflow_protos
from unit_test import processes
from unit_test.model_service.fixtures import predict_request, saved_models

TIMEOUT_S = 30
METRICS = "/monitoring/prometheus/metrics"
FULL = "The batch scheduling queue to which this task was submitted is full"
# With one stream, one call computes and one more is given to the engine. Further calls wait.
CALLERS = 2
# Minutes of computing on any machine of today. The end of the test cuts these calls off.
ENDLESS = 200_000_000


class OverloadTestCase(unittest.TestCase):
    """A server with metrics, of the model whose calls take as long as they are told to."""

    flags: tuple[str, ...] = ()

    def setUp(self) -> None:
        config = Path(self.enterContext(tempfile.TemporaryDirectory()), "monitoring.config")
        config.write_text("prometheus_config { enable: true }")
        flags = ("--tensorflow_inter_op_parallelism=1", f"--monitoring_config_file={config}", *self.flags)
        self.server = self.enterContext(processes.model_server(saved_models() / "slow", "CAT-DOG", *flags))
        # It may still be computing; do not wait for that.
        self.addCleanup(self.server.process.kill)
        channel = self.enterContext(grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}"))
        self.predictions = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.calls: list[Any] = []
        self.health = health_pb2_grpc.HealthStub(channel)

    def begin(self, steps: int, timeout: float | None = None) -> Any:
        """Begin a call and return its future. The future is kept, because gRPC cancels a call without references."""
        request = predict_request({"steps": np.array(steps, np.int32)})
        self.calls.append(self.predictions.Predict.future(request, timeout=timeout))
        return self.calls[-1]

    def post(self, steps: int, name: str = "CAT-DOG") -> requests.Response:
        return requests.post(f"{self.server.url}/v1/models/{name}:predict", json={"inputs": steps}, timeout=TIMEOUT_S)

    def metrics(self) -> dict[str, float]:
        """Return each value of the metrics page by its name and labels; raises ValueError for any other line."""
        numbers = {}
        for line in requests.get(self.server.url + METRICS, timeout=TIMEOUT_S).text.splitlines():
            if not re.fullmatch(r"# (TYPE [a-zA-Z_:][\w:]* (counter|gauge|histogram)|HELP [a-zA-Z_:][\w:]* .+)", line):
                name, _, number = line.rpartition(" ")
                if not re.fullmatch(r'[a-zA-Z_:][\w:]*({([a-zA-Z_]\w*="[^"]*",?)+})?', name):
                    raise ValueError(line)
                numbers[name] = float(number)
        return numbers

    def wait_for(self, condition: Callable[[dict[str, float]], bool]) -> None:
        """Wait until the condition holds for the metrics, for long enough on a slow machine."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(metrics := self.metrics()):
            if time.monotonic() > deadline:
                raise AssertionError(f"it never came to that: {metrics}")
            time.sleep(0.02)


class QueueTest(OverloadTestCase):
    flags = ("--max_queued_requests=1",)

    def fill(self) -> list[Any]:
        """Fill the threads and the queue with calls that don't end."""
        calls = [self.begin(ENDLESS) for _ in range(CALLERS + 1)]
        self.wait_for(lambda numbers: numbers["model_server_queue_length"] == 1)
        self.assertEqual(self.metrics()["model_server_computing"], CALLERS)
        return calls

    def test_what_finds_the_queue_full_is_refused_at_once(self) -> None:
        calls = self.fill()
        with self.assertRaises(grpc.RpcError) as caught:
            self.begin(1).result()
        self.assertEqual((caught.exception.code(), caught.exception.details()), (grpc.StatusCode.UNAVAILABLE, FULL))
        response = self.post(1)
        self.assertEqual((response.status_code, response.json()), (503, {"error": FULL}))
        self.assertEqual([call.done() for call in calls], [False] * len(calls))
        metrics = self.metrics()
        self.assertEqual(metrics["model_server_rejected_total"], 2)
        refused = ':tensorflow:serving:request_count{model_name="CAT-DOG",status="UNAVAILABLE"}'
        self.assertEqual(metrics[refused], 2)

    def test_status_and_liveness_are_not_refused(self) -> None:
        self.fill()
        for path in ("/livez", "/readyz", "/v1/models/CAT-DOG"):
            with self.subTest(path):
                self.assertEqual(requests.get(self.server.url + path, timeout=TIMEOUT_S).status_code, 200)

    def test_a_call_that_waits_past_its_deadline_is_dropped_and_counted(self) -> None:
        for _ in range(CALLERS):
            self.begin(ENDLESS)
        self.wait_for(lambda numbers: numbers["model_server_computing"] == CALLERS)
        self.assertEqual(self.begin(1, timeout=2).code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        # On a slow machine it may be either of the two, because the client's deadline is well before the server's.
        dropped = ("model_server_expired_total", "model_server_cancelled_total")
        self.wait_for(lambda numbers: sum(numbers[name] for name in dropped) == 1)
        self.assertEqual(self.metrics()["model_server_queue_length"], 0)

    def test_a_call_whose_client_has_gone_leaves_the_queue_on_either_face(self) -> None:
        for _ in range(CALLERS):
            self.begin(ENDLESS)
        self.wait_for(lambda numbers: numbers["model_server_computing"] == CALLERS)
        body = json.dumps({"inputs": 1}).encode()
        head = f"POST /v1/models/CAT-DOG:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.server.rest_port))) as client:
            client.sendall(head.encode() + body)
            self.wait_for(lambda numbers: numbers["model_server_queue_length"] == 1)
        self.wait_for(lambda numbers: numbers["model_server_queue_length"] == 0)
        call = self.begin(1)
        self.wait_for(lambda numbers: numbers["model_server_queue_length"] == 1)
        call.cancel()
        self.wait_for(lambda numbers: numbers["model_server_queue_length"] == 0)
        self.assertEqual(self.metrics()["model_server_cancelled_total"], 2)
        cancelled = ':tensorflow:serving:request_count{model_name="CAT-DOG",status="CANCELLED"}'
        self.wait_for(lambda numbers: numbers.get(cancelled) == 2)


class MetricsTest(OverloadTestCase):
    def test_they_have_tensorflow_servings_names_and_labels(self) -> None:
        self.begin(1).result()
        self.post(1)
        self.post(1, "M")
        requests.get(f"{self.server.url}/v1/models/CAT-DOG", timeout=TIMEOUT_S)
        requests.get(f"{self.server.url}/v1/foo", timeout=TIMEOUT_S)
        numbers = self.metrics()
        prefix = ":tensorflow:serving:"
        expected = {
            f'{prefix}request_count{{model_name="CAT-DOG",status="OK"}}': 3,
            f'{prefix}request_count{{model_name="(others)",status="NOT_FOUND"}}': 1,
            f'{prefix}request_count{{model_name="",status="INVALID_ARGUMENT"}}': 1,
            f'{prefix}request_latency_count{{API="Predict",entrypoint="GRPC",model_name="CAT-DOG"}}': 1,
            f'{prefix}request_latency_count{{API="predict",entrypoint="REST",model_name="CAT-DOG"}}': 1,
            f'{prefix}request_latency_count{{API="",entrypoint="REST",model_name="CAT-DOG"}}': 1,
            # The two predictions, and one warm-up for each infer request of the engine.
            f'{prefix}runtime_latency_count{{API="Predict",model_name="CAT-DOG",runtime="TF1"}}': 2 + CALLERS,
            'model_server_loaded_version{model_name="CAT-DOG"}': 1,
            "model_server_ready": 1,
            "model_server_rejected_total": 0,
        }
        self.assertEqual({name: numbers.get(name) for name in expected}, expected)
        latency = [name for name in numbers if name.startswith(f"{prefix}request_latency_sum")]
        self.assertTrue(all(numbers[name] > 0 for name in latency))

    def test_they_are_plain_text_at_their_path_only(self) -> None:
        response = requests.get(self.server.url + METRICS, timeout=TIMEOUT_S)
        self.assertEqual(response.headers["content-type"].partition(";")[0], "text/plain")
        self.assertEqual(requests.get(f"{self.server.url}{METRICS}/x", timeout=TIMEOUT_S).status_code, 404)

    def test_without_the_flag_there_are_none(self) -> None:
        with processes.model_server(saved_models() / "slow") as server:
            self.assertEqual(requests.get(server.url + METRICS, timeout=TIMEOUT_S).status_code, 404)


class StuckCallTest(OverloadTestCase):
    flags = ("--stuck_call_seconds=1",)

    def test_a_call_that_computes_too_long_shows_in_the_health(self) -> None:
        watch = self.health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        self.begin(ENDLESS)
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        ready = requests.get(f"{self.server.url}/readyz", timeout=TIMEOUT_S)
        self.assertEqual(ready.status_code, 503)
        self.assertIn("--stuck_call_seconds", ready.json()["failing"]["model"])
        self.assertEqual(self.metrics()["model_server_ready"], 0)

    def test_the_health_is_back_when_the_call_returns(self) -> None:
        watch = self.health.Watch(health_pb2.HealthCheckRequest(), timeout=4 * TIMEOUT_S)
        began = time.monotonic()
        self.begin(200_000).result()
        # Ten times the limit, so that it holds even if the machine is ten times as fast by then.
        self.begin(int(200_000 * 10 / (time.monotonic() - began)))
        states: Any = health_pb2.HealthCheckResponse
        seen = [next(watch).status for _ in range(3)]
        self.assertEqual(seen, [states.SERVING, states.NOT_SERVING, states.SERVING])
        self.calls[-1].result()
        self.assertTrue(processes.answers(f"{self.server.url}/readyz"))


class ExitWhenStuckTest(OverloadTestCase):
    flags = ("--stuck_call_seconds=1", "--exit_when_stuck")

    def test_a_server_that_is_asked_to_ends_after_a_stuck_call_and_says_why(self) -> None:
        self.begin(1).result()
        call = self.begin(ENDLESS)
        self.assertEqual(self.server.process.wait(TIMEOUT_S), 1, self.server.output())
        self.assertIn("a call computes for more than 1 s (--stuck_call_seconds): exiting", self.server.output())
        self.assertEqual(call.code(), grpc.StatusCode.UNAVAILABLE)


if __name__ == "__main__":
    unittest.main()
