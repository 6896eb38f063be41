"""Tests that no client can push the model server's memory over its container's limit or lock out other clients."""

import contextlib
import functools
import gzip
import json
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np
import psutil
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_service.api import health_service, http_protocol
from unit_test import processes
from unit_test.model_service.fixtures import predict_request

ROOT = Path(__file__).parents[2]
METRICS = "/monitoring/prometheus/metrics"
PREDICT = "/v1/models/CAT-DOG:predict"
TIMEOUT_S = 60
# The container's memory limit in app/docker-compose.embedded.yml, in MB.
CONTAINER_MB = 512
MESSAGE_BYTES = 16 << 20
# Far above the usual time: even a slow machine answers within it. Without the limits there is no answer at all.
ANSWER_S = 10

PICTURE = predict_request({"pixels": np.zeros((1, 240, 240, 3), np.uint8)}, signature="pixels")


def field(number: int, content: bytes) -> bytes:
    """Return a protobuf field that holds bytes."""
    length, size = len(content), bytearray()
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2]) + bytes(size) + bytes([length]) + content


def request_with(tensor: bytes) -> bytes:
    """Return a request with one input, whose TensorProto is `tensor`."""
    spec = field(1, b"CAT-DOG") + field(3, b"pixels")
    return field(1, spec) + field(2, field(1, b"pixels") + field(2, tensor))


def without_values(rows: int) -> bytes:
    """Return a request for `rows` pictures without any values: about 60 bytes."""
    request = predict_request({"pixels": np.zeros((0, 240, 240, 3), np.uint8)}, signature="pixels")
    request.inputs["pixels"].tensor_shape.dim[0].size = rows
    message: bytes = request.SerializeToString()
    return message


class LimitsTestCase(unittest.TestCase):
    """A server of the shipped model, whose memory and answers are watched during an attack."""

    server: ClassVar[processes.ModelServer]
    idle_mb: ClassVar[float]

    @classmethod
    def setUpClass(cls) -> None:
        config = ROOT / "app" / "model_service" / "monitoring.config"
        model = ROOT / "prev_trained_models" / "CAT-DOG"
        cls.server = cls.enterClassContext(
            processes.model_server(
                model, "CAT-DOG", f"--monitoring_config_file={config}", env={"PYTHONPATH": cls.without_tensorflow()}
            )
        )
        cls.process = psutil.Process(cls.server.process.pid)
        # This signature is compiled at its first call, and stays in memory.
        image = predict_request({"image": np.zeros((1, 240, 240, 3), np.float32)})
        with cls.channel() as channel:
            for _ in range(8):
                for request in (image, PICTURE):
                    cls.predict(channel)(request.SerializeToString(), timeout=TIMEOUT_S)
        cls.idle_mb = cls.rss_mb()

    @classmethod
    def without_tensorflow(cls) -> str:
        """Return a folder for PYTHONPATH that hides TensorFlow. The container has none."""
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        program = (
            "import importlib.util as util\n"
            "find = util.find_spec\n"
            "util.find_spec = lambda name, *args: None if name == 'tensorflow' else find(name, *args)\n"
        )
        Path(folder, "sitecustomize.py").write_text(program, encoding="utf-8")
        return folder

    @classmethod
    def rss_mb(cls) -> float:
        return float(cls.process.memory_info().rss) / 1e6

    @classmethod
    def channel(cls, **options: Any) -> Any:
        # Each channel gets its own connection.
        settings = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        settings += [("grpc.max_metadata_size", 1 << 30), ("grpc.absolute_max_metadata_size", 1 << 30)]
        return grpc.insecure_channel(f"127.0.0.1:{cls.server.grpc_port}", options=settings, **options)

    @staticmethod
    def predict(channel: Any) -> Any:
        """Return a Predict call that sends its bytes unchanged."""
        return channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Assert that, while the block attacks, the server's memory stays within bounds and others are answered."""
        ends = threading.Event()
        with ThreadPoolExecutor() as threads:
            peak = threads.submit(self._peak_mb, ends)
            alive = threads.submit(self._slowest, ends, self._look)
            answered = threads.submit(self._slowest, ends, self._ask)
            try:
                # Measure the state before the attack too.
                time.sleep(0.2)
                yield
                time.sleep(0.2)
            finally:
                ends.set()
            self.assertLess(peak.result(), CONTAINER_MB)
            self.assertLess(alive.result(), ANSWER_S)
            self.assertLess(answered.result(), ANSWER_S)

    def _peak_mb(self, ends: threading.Event) -> float:
        peak = 0.0
        while not ends.wait(0.005):
            peak = max(peak, self.rss_mb())
        return peak

    def _slowest(self, ends: threading.Event, ask: Callable[[Any], object]) -> float:
        slowest = 0.0
        with self.channel() as channel:
            while not ends.wait(0.02):
                began = time.perf_counter()
                ask(channel)
                slowest = max(slowest, time.perf_counter() - began)
        return slowest

    def _look(self, _channel: Any) -> None:
        requests.get(f"{self.server.url}/livez", timeout=TIMEOUT_S).raise_for_status()

    def _ask(self, channel: Any) -> None:
        self.predict(channel)(PICTURE.SerializeToString(), timeout=TIMEOUT_S)

    def send(
        self, messages: Sequence[bytes], connections: int = 1, **options: Any
    ) -> list[tuple[grpc.StatusCode, str]]:
        """Send messages to Predict, all at once, over several connections; return how each call ended."""
        with contextlib.ExitStack() as stack:
            channels = [stack.enter_context(self.channel(**options)) for _ in range(connections)]
            calls = [
                self.predict(channels[number % connections]).future(message, timeout=TIMEOUT_S)
                for number, message in enumerate(messages)
            ]
            return [(call.code(), call.details()) for call in calls]

    def connect(self) -> socket.socket:
        """Return a connection to the REST API."""
        return self.enterContext(socket.create_connection(("127.0.0.1", self.server.rest_port), TIMEOUT_S))

    def post(self, body: bytes, **headers: str) -> requests.Response:
        return requests.post(self.server.url + PREDICT, data=body, headers=headers, timeout=TIMEOUT_S)

    def assert_ends(self, connection: socket.socket, statuses: Sequence[int]) -> None:
        """Assert that the server closes the connection, either without an answer or with one of these statuses."""
        connection.settimeout(TIMEOUT_S)
        received = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
        if received:
            self.assertIn(int(received.split()[1]), statuses, received[:200])

    def flood(self, start: bytes, part: bytes, megabytes: int) -> socket.socket:
        """Send `start` and then `part` repeatedly, until the server closes the connection or `megabytes` are sent."""
        connection = self.connect()
        with contextlib.suppress(ConnectionError):
            connection.sendall(start)
            for _ in range(megabytes * 1_000_000 // len(part)):
                connection.sendall(part)
        return connection


class GrpcLimitsTest(LimitsTestCase):
    def test_tensors_without_values_take_what_they_say(self) -> None:
        with self.watched():
            ended = self.send([without_values(388)] * 8)
        self.assertEqual({code for code, _ in ended}, {grpc.StatusCode.INVALID_ARGUMENT})
        self.assertIn("take more than 16777216 bytes", ended[0][1])

    def test_the_biggest_batches_are_computed_in_parts(self) -> None:
        rows = MESSAGE_BYTES // (240 * 240 * 3)
        with self.watched():
            ended = self.send([without_values(rows)] * 12, connections=3)
        self.assertLessEqual(
            {code for code, _ in ended},
            {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE},
        )
        self.assertIn(grpc.StatusCode.OK, {code for code, _ in ended})

    def test_messages_at_work_share_one_memory(self) -> None:
        image = np.zeros((MESSAGE_BYTES // (240 * 240 * 3 * 4), 240, 240, 3), np.float32)
        message = predict_request({"image": image}).SerializeToString()
        for connections in (1, 16):
            with self.subTest(connections=connections), self.watched():
                ended = self.send([message] * 32, connections)
                self.assertLessEqual(
                    {code for code, _ in ended},
                    {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE},
                )
                self.assertIn(grpc.StatusCode.OK, {code for code, _ in ended})

    def test_what_would_expand_is_refused_before_it_is_parsed(self) -> None:
        names = b"".join(field(2, field(1, b"%d" % number)) for number in range(1_000_000))
        entries = field(2, b"") * (8_000_000)
        cases = {
            "names": (field(1, field(1, b"CAT-DOG")) + names, "bytes of names"),
            "entries": (entries, "bytes of names"),
            "dimensions": (request_with(field(2, field(2, b"") * 8_000_000)), "bytes of names"),
            "strings": (request_with(field(8, b"") * 8_000_000), "fields"),
            "resources": (request_with(field(14, b"") * 8_000_000), "bytes of names"),
            "numbers": (request_with(b"\x38\1" * 8_000_000), "fields"),
            "varints": (request_with(field(7, b"\1" * 16_000_000)), "one message may take"),
            "filters": (field(3, b"") * 8_000_000, "bytes of names"),
        }
        for case, (message, text) in cases.items():
            with self.subTest(case), self.watched():
                ended = self.send([message] * 4)
                self.assertTrue(all(text in details or "try again" in details for _, details in ended), ended)
                self.assertTrue(any(text in details for _, details in ended), ended)

    def test_a_picture_in_a_typed_field_is_taken(self) -> None:
        typed = predict_request({"pixels": np.zeros((1, 240, 240, 3), np.uint8)}, signature="pixels")
        typed.inputs["pixels"].ClearField("tensor_content")
        typed.inputs["pixels"].int_val.extend([200] * (240 * 240 * 3))
        with self.watched():
            ended = self.send([typed.SerializeToString()] * 4)
        self.assertEqual({code for code, _ in ended}, {grpc.StatusCode.OK}, ended)

    def test_calls_that_never_send_their_message_keep_nobody_out(self) -> None:
        ends = threading.Event()
        self.addCleanup(ends.set)

        def never() -> Iterator[bytes]:
            ends.wait(TIMEOUT_S)
            yield b""

        with self.watched(), contextlib.ExitStack() as stack:
            calls = []
            for _ in range(4):
                channel = stack.enter_context(self.channel())
                begin = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
                calls += [begin.future(never(), timeout=TIMEOUT_S) for _ in range(30)]
            time.sleep(4)
            ends.set()
            for call in calls:
                call.cancel()

    def test_names_of_any_length_leave_nothing(self) -> None:
        with self.channel() as channel:
            for number in range(200):
                spec = field(1, b"%d" % number + b"n" * 60_000)
                with self.assertRaises(grpc.RpcError) as caught:
                    self.predict(channel)(field(1, spec), timeout=TIMEOUT_S)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
                self.assertLess(len(caught.exception.details()), 1100)
        page = requests.get(self.server.url + METRICS, timeout=TIMEOUT_S).text
        self.assertLess(len(page), 100_000)
        self.assertNotIn("nnn", page)
        self.assertIn('request_count{model_name="(others)",status="NOT_FOUND"}', page)
        self.assertLess(len(self.server.output()), 2_000_000)

    def test_small_methods_take_small_messages_only(self) -> None:
        services = {
            "/tensorflow.serving.PredictionService/GetModelMetadata",
            "/tensorflow.serving.ModelService/GetModelStatus",
            "/grpc.health.v1.Health/Check",
        }
        for method in services:
            with self.subTest(method), self.watched(), self.channel() as channel:
                call = channel.unary_unary(method)
                calls = [call.future(field(1, b"n" * 16_000_000), timeout=TIMEOUT_S) for _ in range(8)]
                self.assertEqual({call.code() for call in calls}, {grpc.StatusCode.RESOURCE_EXHAUSTED})

    def test_a_head_has_a_limit(self) -> None:
        metadata = [(f"name-{number}", "v" * 1000) for number in range(1000)]
        with self.watched(), self.channel() as channel, self.assertRaises(grpc.RpcError) as caught:
            self.predict(channel)(PICTURE.SerializeToString(), metadata=metadata, timeout=TIMEOUT_S)
        self.assertIn(caught.exception.code(), (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE))

    def test_a_compressed_message_is_bounded_as_it_is_unpacked(self) -> None:
        with self.watched():
            ended = self.send([bytes(200_000_000)] * 4, compression=grpc.Compression.Gzip)
        self.assertEqual({code for code, _ in ended}, {grpc.StatusCode.RESOURCE_EXHAUSTED})

    def test_only_so_many_watch_the_health(self) -> None:
        with self.watched(), contextlib.ExitStack() as stack:
            watches = []
            for _ in range(4):
                stub = health_pb2_grpc.HealthStub(stack.enter_context(self.channel()))
                watches += [stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S) for _ in range(90)]
            refused = 0
            for watch in watches:
                try:
                    next(watch)
                except grpc.RpcError as exc:
                    refused += exc.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            self.assertEqual(refused, len(watches) - health_service.MAX_WATCHES)

    def test_what_an_attack_took_is_given_back(self) -> None:
        self.send([without_values(90)] * 12, connections=3)
        self.send([field(1, field(1, bytes(MESSAGE_BYTES - 100)))] * 8)
        deadline = time.monotonic() + TIMEOUT_S
        while self.rss_mb() > 1.2 * self.idle_mb and time.monotonic() < deadline:
            time.sleep(0.5)
        self.assertLess(self.rss_mb(), 1.2 * self.idle_mb)


class RestLimitsTest(LimitsTestCase):
    def test_json_of_countless_items_is_refused_before_it_is_parsed(self) -> None:
        lists = b'{"instances":[' + b"[]," * 5_000_000 + b"[]]}"
        cases = {
            "packed_over_the_limit": (gzip.compress(b'{"instances":[' + b"[]," * 20_000_000 + b"[]]}"), 413),
            "packed": (gzip.compress(lists), 413),
            "lists": (lists, 413),
            "objects": (b'{"instances":[' + b"{}," * 1_000_000 + b"{}]}", 413),
            "strings": (b'{"instances":[' + b'"ab",' * 2_000_000 + b'""]}', 413),
            "fewer_lists": (b'{"instances":[' + b"[]," * 400_000 + b"[]]}", 400),
        }
        for case, (body, status) in cases.items():
            headers = {"Content-Encoding": "gzip"} if case.startswith("packed") else {}
            with self.subTest(case), self.watched(), ThreadPoolExecutor() as threads:
                answers = list(threads.map(functools.partial(self.post, **headers), [body] * 4))
                self.assertLessEqual({answer.status_code for answer in answers}, {status, 429})
                self.assertIn(status, {answer.status_code for answer in answers}, answers[0].text)

    def test_only_what_is_quoted_is_rendered(self) -> None:
        body = b'{"inputs":1,"instances":[' + b"0," * 1_000_000 + b"0]}"
        with self.watched():
            answer = self.post(body)
        self.assertEqual(answer.status_code, 400)
        self.assertLess(len(answer.text), 500)

    def test_what_no_tensor_is_is_refused(self) -> None:
        cases = {
            "deep": b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}",
            "deeper": b'{"instances":' + b"[" * 400_000,
            "digits": b'{"instances":[' + b",".join([b"1" * 600] * 20_000) + b"]}",
            "half_a_pair": b'{"signature_name":"\\ud800","instances":[1]}',
            "half_a_pair_as_base64": b'{"instances":[{"b64":"\\udc00"}]}',
            "long_name": b'{"signature_name":"' + b"n" * 8_000_000 + b'","instances":[1]}',
            "wide_text": b'{"signature_name":"' + b"n" * 6_000_000 + '😀","instances":[1]}'.encode(),
        }
        for case, body in cases.items():
            with self.subTest(case), self.watched():
                answer = self.post(body)
                self.assertEqual(answer.status_code, 400, answer.text)
                self.assertLess(len(answer.text), 1100)

    def test_pictures_as_numbers_share_one_memory(self) -> None:
        picture = json.dumps(np.full((240, 240, 3), 0.1234567).tolist())
        body = f'{{"instances":[{",".join([picture] * 3)}]}}'.encode()
        with self.watched(), ThreadPoolExecutor() as threads:
            answers = list(threads.map(self.post, [body] * 8))
        self.assertLessEqual({answer.status_code for answer in answers}, {200, 429, 503})
        self.assertIn(200, {answer.status_code for answer in answers})

    def test_heads_trailers_and_all_else_that_is_no_body_have_a_limit(self) -> None:
        chunked = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        lines = b"".join(b"name-%d: value\r\n" % number for number in range(4000))
        cases = {
            "headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", lines),
            "one_header": (b"GET /livez HTTP/1.1\r\nHost: ", b"x" * 65536),
            "path": (b"GET /", b"x" * 65536),
            "trailers": (chunked + b"1\r\n{\r\n0\r\n", lines),
            "one_trailer": (chunked + b"1\r\n{\r\n0\r\nname: ", b"x" * 65536),
            "chunk_extension": (chunked + b"1;", b"x" * 65536),
        }
        for case, (start, part) in cases.items():
            with self.subTest(case), self.watched():
                connection = self.flood(start, part, megabytes=50)
                self.assert_ends(connection, (400, 431))

    def test_a_trailer_is_no_header(self) -> None:
        connection = self.connect()
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"1\r\n{\r\n0\r\nContent-Encoding: gzip\r\n\r\n")
        received = b""
        while part := connection.recv(65536):
            received += part
        self.assertIn(b"JSON Parse error", received)

    def test_a_long_head_in_one_part_is_refused(self) -> None:
        size = http_protocol.MAX_HEADER_BYTES
        answer = requests.get(f"{self.server.url}/livez", headers={"name": "v" * size}, timeout=TIMEOUT_S)
        self.assertEqual(answer.status_code, 431)
        answer = requests.get(f"{self.server.url}/livez", headers={"name": "v" * (size // 2)}, timeout=TIMEOUT_S)
        self.assertEqual(answer.status_code, 200)

    def test_requests_ahead_of_their_answers_have_a_limit(self) -> None:
        with self.watched():
            connection = self.flood(b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2000, megabytes=20)
            connection.close()

    def test_slow_bodies_keep_nobody_out(self) -> None:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {MESSAGE_BYTES}\r\n\r\n".encode()
        with self.watched():
            connections = [self.connect() for _ in range(20)]
            for connection in connections:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    connection.sendall(head + b" " * 15_000_000)
            ended = time.monotonic() + 2
            while time.monotonic() < ended:
                answer = self.post(b'{"instances":[1]}')
                self.assertEqual(answer.status_code, 400, answer.text)
        for connection in connections:
            self.assert_ends(connection, (408, 429))

    def test_a_thousand_silent_connections_keep_nobody_out(self) -> None:
        with self.watched():
            for _ in range(4 * http_protocol.CONNECTIONS):
                self.connect()
            self.assertEqual(requests.get(f"{self.server.url}/livez", timeout=TIMEOUT_S).status_code, 200)

    def test_a_name_of_any_kind_in_a_path_is_one_label(self) -> None:
        for number in range(50):
            path = f"/v1/models/%ED%A0%80{number}{'n' * 5000}"
            answer = requests.get(self.server.url + path, timeout=TIMEOUT_S)
            self.assertEqual(answer.status_code, 404)
            self.assertLess(len(answer.text), 2000)
        self.assertNotIn("nnn", requests.get(self.server.url + METRICS, timeout=TIMEOUT_S).text)


if __name__ == "__main__":
    unittest.main()
