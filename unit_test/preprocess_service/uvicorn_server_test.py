"""Tests the server's limits before the app sees a request, over real sockets: slow, rude and many clients."""

import contextlib
import gc
import json
import socket
import threading
import time
import tracemalloc
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import requests

from preprocess_service.app import app_server
from preprocess_service.app.server import uvicorn_server
from serving_common import sockets
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, HeldRunner, settings
from unit_test.preprocess_service.http_server import serving

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = json.dumps({"image_b64": CAT}).encode()


def whole(body: bytes) -> bytes:
    """Return a complete predict request with this body."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


WHOLE = whole(BODY)


class SocketTest(unittest.TestCase):
    """Shared by tests over plain sockets."""

    def serve(self, runner: Any = None, **limits: Any) -> None:
        app = app_server.create_app(settings(**limits), runner or FakeRunner())
        self.url = self.enterContext(serving(app))
        host, port = self.url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def connect(self) -> socket.socket:
        return self.enterContext(socket.create_connection(self.address, timeout=60))

    def read_to_the_end(self, client: socket.socket) -> bytes:
        parts = []
        try:
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def read_answer(self, client: socket.socket) -> tuple[int, dict[str, Any]]:
        """Return status and body of the next answer on a connection that stays open."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(1)
        length = next(line for line in data.lower().split(b"\r\n") if line.startswith(b"content-length"))
        body = b""
        while len(body) < int(length.split(b":")[1]):
            body += client.recv(1)
        return int(data.split()[1]), json.loads(body)

    def check_refusal(self, answer: bytes, status: int, code: str) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), answer)
        for header in (b"connection: close", b"x-content-type-options: nosniff", b"content-type: application/json"):
            self.assertIn(header, head)
        self.assertEqual(int(head.lower().partition(b"content-length: ")[2].split()[0]), len(body))
        told = json.loads(body)
        self.assertEqual((told["status"], told["code"]), ("Failed", code))
        self.assertIn(b"x-request-id: " + told["request_id"].encode(), head)

    @contextlib.contextmanager
    def serving_without_a_free_slot(self) -> Iterator[None]:
        """Occupy the only slot until the block ends. Then the request that has it is answered."""
        runner = HeldRunner()
        self.serve(runner, in_flight=1)
        with ThreadPoolExecutor(1) as senders:
            held = senders.submit(requests.post, f"{self.url}/predict", BODY)
            try:
                self.assertTrue(runner.wait_for(1))
                yield
            finally:
                runner.release()
            self.assertEqual(held.result().status_code, 200)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        self.assertTrue(condition())

    def check_alive(self) -> None:
        self.assertEqual(requests.get(f"{self.url}/livez", timeout=30).status_code, 200)


class ServerTest(SocketTest):
    def test_a_head_that_comes_too_slowly_is_cut_off(self) -> None:
        self.serve(header_seconds=0.5)
        for name, parts in (("drop by drop", [HEAD, *[b"X-A: b\r\n"] * 100]), ("stopped", [HEAD[:7]])):
            with self.subTest(name):
                client = self.connect()
                client.settimeout(0.1)
                answer = b""
                for part in parts:
                    client.sendall(part)
                    try:
                        answer = client.recv(65536)
                        break
                    except TimeoutError:
                        continue
                client.settimeout(60)
                self.check_refusal(answer + self.read_to_the_end(client), 408, "request_timeout")

    def test_a_connection_without_a_request_is_closed(self) -> None:
        self.serve(idle_seconds=0.5)
        for name, sent in (("new", b""), ("blank lines", b"\r\n\r\n"), ("after an answer", LIVEZ)):
            with self.subTest(name):
                client = self.connect()
                client.sendall(sent)
                self.assertEqual(b"200 OK" in self.read_to_the_end(client), sent == LIVEZ)

    def test_a_head_that_is_too_large_is_refused_however_it_comes(self) -> None:
        self.serve(header_bytes=10_000)
        for name, sent in (
            ("many headers", HEAD + b"X-A: b\r\n" * 1500 + b"\r\n"),
            ("one header", HEAD + b"X-A: " + b"b" * 12_000 + b"\r\n\r\n"),
            ("a header without end", HEAD + b"X-A: " + b"b" * 12_000),
            ("a path without end", b"GET /" + b"b" * 12_000),
        ):
            with self.subTest(name):
                client = self.connect()
                client.sendall(sent)
                self.check_refusal(self.read_to_the_end(client), 431, "headers_too_large")
        # If the client goes on sending, the reset of the connection may arrive before the answer.
        with contextlib.suppress(ConnectionError):
            client = self.connect()
            client.sendall(HEAD + b"X-A: " + b"b" * 100_000_000)
            self.fail("all of it was taken")
        self.check_alive()

    def test_after_a_burst_of_bodies_the_heap_is_trimmed_once_and_no_garbage_is_collected(self) -> None:
        self.enterContext(patch.object(uvicorn_server, "TRIM_DELAY_SECONDS", 0.1))
        trimmed = threading.Semaphore(0)
        self.enterContext(patch.object(uvicorn_server, "trim_malloc", trimmed.release))
        self.serve()
        collections = self.without_garbage_collection()
        for size, is_burst in ((1_000_000, False), (17_000_000, True)):
            with self.subTest(size):
                headers = {"Content-Type": "image/png"}
                answer = requests.post(f"{self.url}/predict", data=bytes(size), headers=headers, timeout=60)
                self.assertEqual(answer.status_code, 400)
                self.assertEqual(trimmed.acquire(timeout=30 if is_burst else 3), is_burst)
        self.assertFalse(trimmed.acquire(timeout=2))
        self.assertEqual(collections, [])

    def without_garbage_collection(self) -> list[str]:
        """Disable automatic garbage collection; return a list that grows with each explicit one."""
        collections: list[str] = []

        def note(phase: str, _: dict[str, int]) -> None:
            collections.append(phase)

        gc.callbacks.append(note)
        self.addCleanup(gc.callbacks.remove, note)
        gc.disable()
        self.addCleanup(gc.enable)
        return collections

    def test_bodies_that_are_cut_off_leave_nothing_for_the_garbage_collector(self) -> None:
        form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        size = 1_000_000
        self.without_garbage_collection()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)

        def taken() -> int:
            return tracemalloc.get_traced_memory()[0]

        for cause, limits in (("the client leaves", {}), ("too slow", {"body_bytes_per_second": 1e9})):
            self.serve(body_grace_seconds=0.5, **limits)
            for media_type, start in (
                ("application/json", b'{"image_b64": "'),
                ("multipart/form-data; boundary=b", form),
                ("image/png", b""),
            ):
                head = HEAD + f"Content-Type: {media_type}\r\nContent-Length: {2 * size}\r\n\r\n".encode()
                with self.subTest(f"{cause}: {media_type}"):
                    body = start + bytes(size)
                    before = taken()
                    clients = [self.connect() for _ in range(4)]
                    for client in clients:
                        client.sendall(head + body)
                    if limits:
                        for client in clients:
                            self.check_refusal(self.read_to_the_end(client), 408, "request_timeout")
                    else:
                        self.wait_until(lambda before=before: taken() > before + 3 * size)
                    for client in clients:
                        client.close()
                    self.wait_until(lambda before=before: taken() < before + size / 2)

    def test_what_is_no_http_is_told_so(self) -> None:
        self.serve()
        client = self.connect()
        client.sendall(b"meow\r\n\r\n")
        self.check_refusal(self.read_to_the_end(client), 400, "invalid_http")

    def test_a_body_that_comes_too_slowly_is_cut_off(self) -> None:
        self.serve(deadline_seconds=0.5, in_flight=1)
        client = self.connect()
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        self.check_refusal(self.read_to_the_end(client), 408, "request_timeout")
        # If a client has set its own deadline, the error is 504, whatever stage took the time.
        client = self.connect()
        client.sendall(HEAD + b"X-Request-Timeout-Ms: 200\r\nContent-Length: 1000\r\n\r\n{")
        status, told = self.read_answer(client)
        self.assertEqual((status, told["code"]), (504, "deadline_exceeded"))
        self.assertEqual(requests.post(f"{self.url}/predict", BODY, timeout=30).status_code, 200)

    def test_slow_bodies_hold_no_places(self) -> None:
        self.serve(in_flight=2)
        for _ in range(8):
            self.connect().sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        statuses = [requests.post(f"{self.url}/predict", BODY, timeout=30).status_code]
        while statuses[-1] != 200 and len(statuses) < 50:
            time.sleep(0.1)
            statuses.append(requests.post(f"{self.url}/predict", BODY, timeout=30).status_code)
        self.assertEqual(statuses[-1], 200)

    def test_the_rest_of_a_body_that_nobody_wants_is_not_taken_for_ever(self) -> None:
        self.serve(header_seconds=0.5)
        client = self.connect()
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        end = time.monotonic() + 60
        with self.assertRaises(ConnectionError):
            while time.monotonic() < end:
                client.sendall(b"x")
                time.sleep(0.05)

    def test_whoever_does_not_take_the_answers_is_let_go(self) -> None:
        self.serve(idle_seconds=0.5)
        client = self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end = time.monotonic() + 60
        with self.assertRaises(ConnectionError):
            while time.monotonic() < end:
                client.sendall(b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
                time.sleep(0.05)
        self.check_alive()

    def test_a_thousand_silent_connections_keep_nobody_out(self) -> None:
        count = 1000
        # This process holds both ends of each connection.
        sockets.allow_open_files(3 * count)
        for name, sent in (("idle", b""), ("with half a head", HEAD)):
            with self.subTest(name):
                self.serve(connections=count // 2)
                clients = [self.connect() for _ in range(count)]
                for client in clients[-count // 4 :]:
                    client.sendall(sent)
                self.check_alive()
                self.assertEqual(requests.post(f"{self.url}/predict", BODY, timeout=30).status_code, 200)
                # The first connections were evicted; the last ones are still open.
                self.assertEqual(clients[0].recv(10), b"")
                clients[-1].sendall((b"\r\n" if sent else b"") + LIVEZ)
                self.assertTrue(clients[-1].recv(10).startswith(b"HTTP/1.1"))

    def test_where_nobody_can_make_room_the_next_is_refused(self) -> None:
        runner = HeldRunner()
        self.serve(runner, connections=1)
        held = self.connect()
        held.sendall(WHOLE)
        self.assertTrue(runner.wait_for(1))
        self.check_refusal(self.read_to_the_end(self.connect()), 503, "overloaded")
        runner.release()
        self.assertEqual(self.read_answer(held)[0], 200)

    def test_a_refused_request_costs_neither_its_connection_nor_the_next_one(self) -> None:
        with self.serving_without_a_free_slot():
            client = self.connect()
            for header, start in (
                (b"", "The service"),
                (b"Accept-Language: pt\r\nX-Request-ID: mine\r\n", "O servi\u00e7o"),
            ):
                client.sendall(WHOLE.replace(b"Host: x\r\n", b"Host: x\r\n" + header))
                status, told = self.read_answer(client)
                self.assertEqual((status, told["code"]), (503, "overloaded"))
                self.assertTrue(told["msg"].startswith(start))
            self.assertEqual(told["request_id"], "mine")
        client.sendall(WHOLE)
        self.assertEqual(self.read_answer(client)[0], 200)
        text = requests.get(f"{self.url}/metrics", timeout=30).text
        self.assertIn("catdog_rejected_total 2.0", text)
        self.assertIn('catdog_requests_total{route="/predict",status="503"} 2.0', text)

    def test_what_waits_at_the_port_when_it_is_closed_is_answered(self) -> None:
        shipped = settings()
        loaded = shipped.model_copy(update={"server": shipped.server.model_copy(update={"drain_seconds": 0.1})})
        clients: list[socket.socket] = []
        shutdown = uvicorn_server.Server.shutdown

        async def late(server: uvicorn_server.Server, sockets: list[socket.socket]) -> None:
            # This code blocks the event loop, so that nothing is accepted meanwhile.
            clients.extend(self.connect() for _ in range(3))
            for client in clients[:2]:
                client.sendall(WHOLE)
            timer = threading.Timer(0.2, clients[2].sendall, (WHOLE,))
            timer.start()
            await shutdown(server, sockets)
            timer.join()

        with patch.object(uvicorn_server.Server, "shutdown", late):
            with serving(app_server.create_app(loaded, FakeRunner())) as self.url:
                host, port = self.url.removeprefix("http://").split(":")
                self.address = host, int(port)
            for client in clients:
                self.assertIn(b" 200 OK", self.read_to_the_end(client)[:20])
        with self.assertRaises(ConnectionRefusedError):
            self.connect()

    def test_requests_that_come_to_nothing_keep_no_places(self) -> None:
        self.serve(in_flight=1)
        bad = [HEAD + header + b"Content-Length: 2\r\n\r\n{}" for header in (b"", b"X-Request-Timeout-Ms: soon\r\n")]
        client = self.connect()
        statuses = set()
        for _ in range(20):
            for request in (*bad, bad[0].replace(b"POST", b"GET")):
                client.sendall(request)
                statuses.add(self.read_answer(client)[0])
        self.assertEqual(statuses, {422, 405})

    def test_whoever_asks_before_sending_the_body_is_refused_without_it(self) -> None:
        with self.serving_without_a_free_slot():
            client = self.connect()
            client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
            self.check_refusal(self.read_to_the_end(client), 503, "overloaded")

    def test_requests_of_one_connection_that_dont_wait_for_answers_get_them_in_order(self) -> None:
        self.serve(in_flight=1)
        client = self.connect()
        client.sendall(WHOLE + LIVEZ + WHOLE)
        self.assertEqual([self.read_answer(client)[0] for _ in range(3)], [200, 200, 200])
