"""Tests the shipped nginx settings: which requests pass, with which headers, and which are rejected."""

import contextlib
import http.client
import http.server
import json
import select
import socket
import threading
import time
import unittest
from typing import Any

from tools.chaos import stage

TIMEOUT_S = 60
REFUSALS = {
    429: "too_many_requests",
    502: "service_lost",
    404: "not_found",
    413: "image_too_large",
    400: "invalid_http",
}


class Backend(http.server.ThreadingHTTPServer):
    """Stands in for a service. It records its requests, and closes the connection if the body is a bomb."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks_off = False
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked if path != "/livez"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.path, headers, body))
        if body == b"bomb" or (self.server.breaks_off and body):
            self.close_connection = True
            return
        answer = b'{"status": "Success"}'
        self.send_response(503 if body == b"busy" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-Request-ID", "of-the-service")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def connection_to(port: int) -> contextlib.AbstractContextManager[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S))


def ask_at(
    port: int, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, http.client.HTTPMessage, Any]:
    """Send one request to a proxy at this port; return status, headers and the JSON of the answer."""
    with connection_to(port) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())


class BackendsTest(unittest.TestCase):
    """Two backends for a proxy to stand in front of."""

    def setUp(self) -> None:
        self.backends = [Backend(), Backend()]
        for backend in self.backends:
            threading.Thread(target=backend.serve_forever).start()
            self.addCleanup(backend.server_close)
            self.addCleanup(backend.shutdown)


class ProxyTest(BackendsTest):
    def setUp(self) -> None:
        super().setUp()
        self.start([backend.server_port for backend in self.backends])

    def start(self, upstreams: list[int]) -> None:
        self.port = stage.free_port()
        place = self.enterContext(stage.Stage())
        try:
            place.nginx(self.port, upstreams, "10r/s").start()
        except stage.Missing as exc:
            self.skipTest(str(exc))

    def connection(self) -> contextlib.AbstractContextManager[http.client.HTTPConnection]:
        return connection_to(self.port)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, Any]:
        return ask_at(self.port, method, path, body, headers or {})

    def send(self, data: bytes) -> socket.socket:
        """Send raw bytes over a new connection."""
        sender = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        self.addCleanup(sender.close)
        sender.sendall(data)
        return sender

    def asked(self) -> list[tuple[str, dict[str, str], bytes]]:
        return [one for backend in self.backends for one in backend.asked if one[0] != "/livez"]

    def assert_refused(self, status: int, headers: http.client.HTTPMessage, answer: Any) -> None:
        """Assert that an error of nginx has the same form as an error of the service."""
        self.assertEqual((answer["status"], answer["code"]), ("Failed", REFUSALS[status]))
        self.assertTrue(answer["msg"])
        self.assertEqual(headers.get_all("X-Request-ID"), [answer["request_id"]])
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Retry-After"], "1" if status in (429, 502, 504) else None)
        self.assertNotIn("/", headers["Server"] or "")

    def test_a_request_arrives_under_our_name_and_with_the_address_that_it_comes_from(self) -> None:
        forged = {"Host": "evil.example", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
        forged |= {"Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Forwarded-Prefix": "/evil"}
        status, headers, _ = self.ask("POST", "/predict", b"photo", forged | {"X-API-Key": "key"})
        self.assertEqual((status, headers.get_all("X-Request-ID")), (200, ["of-the-service"]))
        ((path, seen, body),) = self.asked()
        self.assertEqual((path, body), ("/predict", b"photo"))
        self.assertEqual(seen["host"], "preprocess-service")
        self.assertEqual((seen["x-forwarded-for"], seen["x-forwarded-proto"]), ("127.0.0.1", "http"))
        self.assertLessEqual({"forwarded", "x-real-ip", "x-forwarded-prefix"} & seen.keys(), set())
        self.assertEqual(seen["x-api-key"], "key")

    def test_what_comes_after_the_last_chunk_is_no_header(self) -> None:
        sender = self.send(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"5\r\nphoto\r\n0\r\nX-API-Key: forged\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        )
        self.assertTrue(sender.makefile("rb").readline().startswith(b"HTTP/1.1 200"))
        ((_, seen, body),) = self.asked()
        self.assertEqual((body, seen["x-forwarded-for"]), (b"photo", "127.0.0.1"))
        self.assertNotIn("x-api-key", seen)

    def test_metrics_are_closed_however_they_are_asked_for(self) -> None:
        paths = ("/metrics", "/metrics/", "/%6detrics", "//metrics", "/docs/../metrics", "/metrics?x=1", "/./metrics")
        for path in (*paths, f"http://127.0.0.1:{self.port}/metrics"):
            with self.subTest(path):
                status, headers, answer = self.ask("GET", path)
                self.assertEqual(status, 404)
                self.assert_refused(status, headers, answer)
        self.assertEqual(self.asked(), [])

    def test_what_ended_a_service_is_not_sent_to_the_next_one(self) -> None:
        for number in range(1, 4):
            status, headers, answer = self.ask("POST", "/predict", b"bomb")
            self.assertEqual(status, 502)
            self.assert_refused(status, headers, answer)
            self.assertEqual(len(self.asked()), number)

    def test_a_service_that_cannot_be_reached_is_not_missed(self) -> None:
        away = self.backends[0]
        self.start([stage.free_port(), self.backends[1].server_port])
        for _ in range(6):
            self.assertEqual(self.ask("POST", "/predict", b"photo")[0], 200)
        self.assertEqual((away.paths(), len(self.backends[1].paths())), ([], 6))

    def test_where_none_can_be_reached_the_refusal_says_so(self) -> None:
        status, headers, answer = 0, http.client.HTTPMessage(), None
        for backend in self.backends:
            backend.shutdown()
            backend.server_close()
        status, headers, answer = self.ask("POST", "/predict", b"photo", {"Accept-Language": "pt-BR"})
        self.assertEqual(status, 502)
        self.assert_refused(status, headers, answer)
        self.assertIn("fora do ar", answer["msg"])

    def test_a_services_own_refusal_goes_to_the_sender(self) -> None:
        status, _, answer = self.ask("POST", "/predict", b"busy")
        self.assertEqual((status, answer), (503, {"status": "Success"}))
        self.assertEqual(len(self.asked()), 1)

    def many(self, path: str, count: int) -> list[int]:
        """Send `count` requests over one connection, as fast as possible; return the statuses."""
        statuses = []
        with self.connection() as connection:
            for _ in range(count):
                connection.request("POST", path, b"photo", {"Accept-Language": "en"})
                answer = connection.getresponse()
                body = json.loads(answer.read())
                statuses.append(answer.status)
                if answer.status != 200:
                    self.assert_refused(answer.status, answer.headers, body)
        return statuses

    def test_who_asks_too_often_is_refused_and_soon_answered_again(self) -> None:
        statuses = self.many("/predict", 300)
        self.assertEqual(set(statuses[:30]), {200})
        self.assertEqual(set(statuses), {200, 429})
        self.assertEqual(len(self.asked()), statuses.count(200))
        time.sleep(0.5)
        self.assertEqual(self.ask("GET", "/readyz")[0], 200)

    def test_batches_count_for_more(self) -> None:
        statuses = self.many("/predict/batch", 30)
        self.assertEqual(statuses[:5], [200] * 5)
        self.assertIn(429, statuses)
        self.assertEqual(self.ask("POST", "/predict", b"photo")[0], 200)
        # The other paths of a batch have the same limit. Single photos have more left.
        for path in ("/predict/batch/", "/models/CAT-DOG/predict/batch", "/models/%41/predict%2Fbatch"):
            with self.subTest(path):
                self.assertIn(429, self.many(path, 8))
        self.assertEqual(self.ask("POST", "/models/CAT-DOG/predict", b"photo")[0], 200)

    def test_of_many_requests_at_a_time_only_some_are_taken(self) -> None:
        """The requests are silent: headers that announce a body, and then nothing."""
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        senders = [self.send(head) for _ in range(30)]
        refused: list[socket.socket] = []
        while len(refused) < 10:
            waiting = [sender for sender in senders if sender not in refused]
            answered, _, _ = select.select(waiting, [], [], TIMEOUT_S)
            self.assertTrue(answered)
            refused += answered
        for sender in refused:
            self.assertTrue(sender.makefile("rb").readline().startswith(b"HTTP/1.1 429"))
        self.assertEqual(self.asked(), [])
        taken = [sender for sender in senders if sender not in refused]
        self.assertEqual(len(taken), 20)
        for sender in taken:
            sender.sendall(b"photo")
            self.assertTrue(sender.makefile("rb").readline().startswith(b"HTTP/1.1 200"))
        self.assertEqual(self.ask("POST", "/predict", b"photo")[0], 200)

    def test_a_body_over_the_limit_is_refused_before_it_comes(self) -> None:
        sender = self.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 22020097\r\n\r\n")
        answer = http.client.HTTPResponse(sender)
        answer.begin()
        self.assertEqual(answer.status, 413)
        self.assert_refused(413, answer.headers, json.loads(answer.read()))

    def test_what_is_no_http_is_refused_in_our_form(self) -> None:
        for data in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        ):
            with self.subTest(data[:40]):
                answer = http.client.HTTPResponse(self.send(data))
                answer.begin()
                self.assertEqual(answer.status, 400)
                self.assert_refused(400, answer.headers, json.loads(answer.read()))
        self.assertEqual(self.asked(), [])

    def test_health_is_that_of_the_services(self) -> None:
        for path in ("/livez", "/readyz"):
            with self.subTest(path):
                status, headers, _ = self.ask("GET", path)
                self.assertEqual((status, headers["X-Request-ID"]), (200, "of-the-service"))


if __name__ == "__main__":
    unittest.main()
