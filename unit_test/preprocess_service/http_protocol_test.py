"""Tests hostile use of one connection: trailers, chunks, pipelining, odd paths, and bytes that are not HTTP."""

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import requests

from preprocess_service.app import app_server, config
from preprocess_service.app.middleware import cors
from preprocess_service.app.server import admission, connection_limits, http_protocol, received_bytes
from unit_test.preprocess_service.app_server_test import FakeRunner, HeldRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.uvicorn_server_test import BODY, HEAD, LIVEZ, WHOLE, SocketTest, whole

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
MALFORMED = b"meow\r\n\r\n"
KEY = "0123456789abcdef"
UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0\r\nUpgrade: irc\r\n",
    b"Upgrade: h2c\r\n",
)


def chunks(body: bytes, size: int) -> bytes:
    """Return a chunked body without its last chunk."""
    return b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (body[i : i + size] for i in range(0, len(body), size))
    )


class ConnectionTest(SocketTest):
    def serve_with(self, runner: Any = None, **environment: str) -> None:
        self.url = self.enterContext(serving(app_server.create_app(config.load_config(environment), FakeRunner())))
        host, port = self.url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def ask(self, sent: bytes) -> bytes:
        """Return everything that the server sends until the connection ends."""
        client = self.connect()
        client.sendall(sent)
        return self.read_to_the_end(client)

    def statuses(self, sent: bytes) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", self.ask(sent))]

    def check_flood_is_cut_off(self, start: bytes, flood: bytes) -> None:
        """Assert that the server takes only a small part of the flood: what fits into the system's buffers."""
        client = self.connect()
        client.sendall(start)
        sent = 0
        part = flood * (100_000 // len(flood))
        try:
            while sent < 50e6:
                client.sendall(part)
                sent += len(part)
        except ConnectionError:
            pass
        self.assertLess(sent, 50e6)


class FramingTest(ConnectionTest):
    def test_what_belongs_to_no_body_is_bounded_wherever_it_comes(self) -> None:
        self.serve(body_bytes=4_500_000)
        begun = CHUNKED + b"\r\n" + chunks(b"x" * 1000, 1000)
        for name, start, flood in (
            ("trailers", begun + b"0\r\n", b"a:b\r\n"),
            ("trailers after a large body", begun + chunks(b"x" * 4_000_000, 60_000) + b"0\r\n", b"a:b\r\n"),
            ("trailers that nobody waits for", b"GET /livez" + begun[13:] + b"0\r\n", b"a:b\r\n"),
            ("a trailer without end", begun + b"0\r\na: ", b"b"),
            ("one after a large body", begun + chunks(b"x" * 4_000_000, 60_000) + b"0\r\na: ", b"b"),
            ("the name of a trailer without end", begun + b"0\r\n", b"b"),
            ("a chunk's extension without end", begun + b"5;", b"b"),
            ("a chunk's size without end", begun, b"0"),
            ("tiny chunks", begun, b"1\r\nx\r\n"),
            ("tiny chunks that nobody waits for", b"GET /livez" + begun[13:], b"1\r\nx\r\n"),
            (
                "a body that is no part of the request",
                b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
                b"x",
            ),
            ("a body that was refused", HEAD + b"Content-Length: 999999999\r\n\r\n", b"x"),
            ("blank lines before a request", b"", b"\r\n"),
            ("blank lines after a request", LIVEZ, b"\r\n"),
            ("many requests", b"", LIVEZ),
            ("many requests that are refused", b"", whole(b"x").replace(b"/predict", b"/cats")),
        ):
            with self.subTest(name):
                self.check_flood_is_cut_off(start, flood)
        self.check_alive()

    def test_a_large_body_is_no_leave_for_large_trailers(self) -> None:
        it = received_bytes.ReceivedBytes(settings(header_bytes=10_000).limits)
        it.mark_boundary(is_begin=True)
        for payload, framing, is_too_much in ((4_000_000, 50_000, False), (0, 9000, False), (0, 2000, True)):
            it.begin_read()
            it.add_body(payload)
            it.end_read(payload + framing)
            with self.subTest(framing):
                self.assertEqual(it.has_too_much_framing(), is_too_much)

    def test_a_chunked_body_of_usual_parts_is_taken(self) -> None:
        self.serve()
        for size in (200, 4096, 100_000):
            with self.subTest(size):
                status = self.statuses(CHUNKED + b"Connection: close\r\n\r\n" + chunks(BODY, size) + b"0\r\n\r\n")
                self.assertEqual(status, [200])
        sent = CHUNKED + b"Connection: close\r\n\r\n" + chunks(BODY[:-3], 4096) + chunks(BODY[-3:], 1)
        self.assertEqual(self.statuses(sent + b"0\r\nDigest: x\r\n\r\n"), [200])

    def test_many_headers_are_too_many_however_short(self) -> None:
        self.serve()
        for count, status in ((50, 200), (200, 431)):
            sent = LIVEZ[:-2] + b"Connection: close\r\n" + b"a:b\r\n" * count + b"\r\n"
            with self.subTest(count):
                self.assertEqual(self.statuses(sent), [status])

    def test_a_trailer_says_nothing(self) -> None:
        self.serve_with(SERVICE_API_KEYS=KEY)
        trailers = b"X-API-Key: %b\r\nX-Request-ID: mine\r\nExpect: 100-continue\r\n" % KEY.encode()
        sent = CHUNKED + b"\r\n" + chunks(BODY, 4096) + b"0\r\n" + trailers + b"\r\n"
        client = self.connect()
        for method in (b"POST /predict", b"GET /livez"):
            client.sendall(sent.replace(b"POST /predict", method))
            status, told = self.read_answer(client)
            self.assertEqual(status, 401 if method.startswith(b"POST") else 200)
            self.assertNotEqual(told.get("request_id"), "mine")
        # The trailers do not become part of the next request either.
        client.sendall(LIVEZ.replace(b"/livez", b"/model"))
        self.assertEqual(self.read_answer(client)[0], 401)

    def test_a_trailer_about_the_message_itself_is_refused(self) -> None:
        self.serve()
        for name in (
            b"Connection: close",
            b"content-length: 5",
            b"Transfer-Encoding: chunked",
            b"Host: y",
            b"UPGRADE: h2c",
        ):
            with self.subTest(name):
                sent = CHUNKED + b"\r\n" + chunks(BODY, 4096) + b"0\r\n" + name + b"\r\n\r\n" + LIVEZ
                self.check_refusal(self.ask(sent), 400, "invalid_http")

    def test_who_sends_in_tiny_parts_is_read_only_so_often(self) -> None:
        self.serve()
        client = self.connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with patch.object(
            http_protocol.LimitedHttpProtocol,
            "on_body",
            autospec=True,
            side_effect=http_protocol.LimitedHttpProtocol.on_body,
        ) as it:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY))
            begin = time.monotonic()
            for i in range(500):
                client.sendall(BODY[i : i + 1])
                time.sleep(0.001)
            client.sendall(BODY[500:])
            self.assertEqual(self.read_answer(client)[0], 200)
            took = time.monotonic() - begin
        self.assertLess(it.call_count, 2 * received_bytes.SMALL_READS + 5 * took / http_protocol.PAUSE)


class AdmissionTest(ConnectionTest):
    def test_no_spelling_of_a_path_passes_by_where_there_is_no_place(self) -> None:
        with self.serving_without_a_free_slot():
            for target in (
                *(b"/predict", b"/%70redict", b"/predic%74?a=b", b"/predict#a", b"/predict?", b"/predict/batch?"),
                *(
                    b"http://x/predict",
                    b"http://elsewhere/%70redict?a",
                    b"/predict%2Fbatch",
                    b"/cat%2ddog_classification",
                    b"/predict/",
                    b"/predict%2F?a",
                    b"/predict/batch/",
                ),
            ):
                with self.subTest(target):
                    sent = WHOLE.replace(b"/predict", target).replace(b"Host", b"Connection: close\r\nHost")
                    self.assertEqual(self.statuses(sent), [503])
            for target in (b"//predict", b"/predict//", b"/predict;a", b"/./predict", b"/predict%00", b"/%c1%b0redict"):
                with self.subTest(target):
                    sent = WHOLE.replace(b"/predict", target).replace(b"Host", b"Connection: close\r\nHost")
                    self.assertEqual(self.statuses(sent), [404])
            with patch.object(connection_limits.ConnectionLimits, "route", return_value=None):
                sent = WHOLE.replace(b"Host", b"Connection: close\r\nHost")
                self.assertEqual(self.statuses(sent), [503], "the route itself asks whether there is a place")

    def test_silent_bodies_keep_nobody_out(self) -> None:
        self.serve(in_flight=1, deadline_seconds=600, body_grace_seconds=600)
        silent = [self.connect() for _ in range(5 * admission.BODIES_PER_SLOT)]
        for client in silent:
            client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
            time.sleep(2 * admission.RESERVATION_GRACE_SECONDS)
        for _ in range(5):
            self.assertEqual(requests.post(f"{self.url}/predict", BODY, timeout=30).status_code, 200)
        self.check_refusal(self.read_to_the_end(silent[0]), 408, "request_timeout")
        silent[-1].settimeout(0.1)
        with self.assertRaises(TimeoutError):
            silent[-1].recv(1)

    def test_bodies_that_stand_still_make_room_for_others(self) -> None:
        self.serve(buffered_bytes=3_000_000, body_bytes=1_000_000)
        stalled = [self.connect() for _ in range(4)]
        for client in stalled:
            client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 990_000)
        time.sleep(0.2)
        for _ in range(3):
            self.assertEqual(requests.post(f"{self.url}/predict", BODY, timeout=30).status_code, 200)

    def test_a_body_below_the_least_rate_is_cut_off_before_its_deadline(self) -> None:
        self.serve(deadline_seconds=600, body_grace_seconds=0.1, body_bytes_per_second=1000)
        client = self.connect()
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        self.check_refusal(self.read_to_the_end(client), 408, "request_timeout")


class RequestTest(ConnectionTest):
    def test_a_request_names_one_host_and_a_version_that_is_spoken(self) -> None:
        self.serve()
        for name, sent in (
            ("no host", b"GET /livez HTTP/1.1\r\n\r\n"),
            ("two hosts", b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
            ("two hosts in HTTP/1.0", b"GET /livez HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n"),
            ("HTTP/0.9", b"GET /livez\r\n\r\n"),
            ("HTTP/0.9 in words", b"GET /livez HTTP/0.9\r\nHost: x\r\n\r\n"),
            ("HTTP/2.0", b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n"),
            ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ("HTTP/1.2", b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n"),
            ("CONNECT", b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("no path in an absolute form", b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n"),
        ):
            with self.subTest(name):
                self.check_refusal(self.ask(sent), 400, "invalid_http")
        self.assertEqual(self.statuses(b"GET /livez HTTP/1.0\r\n\r\n"), [200])
        self.assertEqual(self.statuses(b"GET /livez HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"), [200])

    def test_nobody_is_sent_to_the_host_that_was_named(self) -> None:
        self.serve()
        for target in (
            b"/docs//",
            b"/static",
            b"/samples",
            b"/livez//",
            b"/static/../docs/",
            b"//docs",
            b"/static-offline-docs",
        ):
            with self.subTest(target):
                sent = LIVEZ.replace(b"/livez", target).replace(b": x", b": elsewhere.example\r\nConnection: close")
                answer = self.ask(sent)
                self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), answer)
                self.assertNotIn(b"elsewhere", answer)

    def test_what_came_before_a_request_that_is_refused_is_answered_first(self) -> None:
        self.serve()
        for name, bad, status in (
            ("no HTTP", MALFORMED, 400),
            ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
            ("too many headers", LIVEZ[:-2] + b"a:b\r\n" * 200, 431),
            ("a broken chunk", CHUNKED + b"\r\nzz", 400),
        ):
            for good in (WHOLE, LIVEZ, WHOLE + LIVEZ):
                with self.subTest(name, good=good[:10]):
                    expected = [200] * (1 + good.endswith(LIVEZ) * good.startswith(WHOLE))
                    self.assertEqual(self.statuses(good + bad), [*expected, status])

    def test_a_body_that_breaks_off_is_refused_at_once(self) -> None:
        self.serve(deadline_seconds=600, body_grace_seconds=600)
        begin = time.monotonic()
        for part in (b"zz\r\n", b"5\r\nabcdefgh", b"-1\r\n"):
            with self.subTest(part):
                client = self.connect()
                client.sendall(CHUNKED + b"\r\n" + chunks(b"{", 1))
                client.sendall(part)
                self.check_refusal(self.read_to_the_end(client), 400, "invalid_http")
        self.assertLess(time.monotonic() - begin, 30)
        self.check_alive()

    def test_of_many_requests_at_once_the_first_are_answered_in_order(self) -> None:
        self.serve()
        answers = self.ask(LIVEZ * 1000)
        count = answers.count(b"HTTP/1.1 200")
        self.assertTrue(1 <= count <= http_protocol.MAX_PIPELINED + 1, count)
        self.assertTrue(answers.endswith(b"}"))

    def test_who_asks_for_another_protocol_is_answered_in_this_one(self) -> None:
        self.serve()
        client = self.connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        chunked = CHUNKED + b"\r\n" + chunks(BODY, 5000) + b"0\r\nDigest: x\r\n\r\n"
        for upgrade in (*UPGRADES, b""):
            for request in (WHOLE, chunked):
                photo = request.replace(b"Host", upgrade + b"Host")
                sent = photo + LIVEZ.replace(b"Host", upgrade + b"Host") + LIVEZ
                head = photo.index(b"\r\n\r\n") + 4
                # All in one part, and cut in each place that matters.
                for cut in (0, 1, 40, head - 50, head - 2, head, head + 1, len(photo) - 1, len(photo)):
                    with self.subTest(upgrade, request=request[:90], cut=cut):
                        for part in filter(None, (sent[:cut], sent[cut:])):
                            client.sendall(part)
                        self.assertEqual([self.read_answer(client)[0] for _ in range(3)], [200, 200, 200])

    def test_what_no_request_may_do_it_may_not_do_with_an_upgrade_either(self) -> None:
        self.serve(header_bytes=10_000)
        for name, sent, status, code in (
            ("no host", LIVEZ.replace(b"Host: x", UPGRADES[0].strip()), 400, "invalid_http"),
            (
                "large",
                LIVEZ.replace(b"Host", UPGRADES[0] + b"A: " + b"b" * 10_000 + b"\r\nHost"),
                431,
                "headers_too_large",
            ),
            ("many", LIVEZ.replace(b"Host", UPGRADES[0] + b"a:b\r\n" * 101 + b"Host"), 431, "headers_too_large"),
            ("a tunnel", b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n" + UPGRADES[1] + b"\r\n", 400, "invalid_http"),
            ("a broken chunk", CHUNKED + UPGRADES[0] + b"\r\nzz", 400, "invalid_http"),
        ):
            with self.subTest(name):
                self.check_refusal(self.ask(sent), status, code)
        self.check_alive()

    def test_the_line_and_the_headers_are_counted_as_they_come(self) -> None:
        self.serve(header_bytes=10_000)
        line, end = b"GET /livez HTTP/1.1\r\n", b"Host: x\r\nConnection: close\r\n\r\n"
        room = 10_000 - len(line + end)
        for name, headers, status in (
            ("all that there is room for", b"A: " + b"b" * (room - 5) + b"\r\n", 200),
            ("one more", b"A: " + b"b" * (room - 4) + b"\r\n", 431),
            ("many", (b"A: " + b"b" * (room // 50 - 4) + b"\r\n") * 50, 431),
            ("blanks", b"A:" + b" " * room + b"b\r\n", 431),
            ("blanks behind", b"A: b" + b"\t" * room + b"\r\n", 431),
        ):
            with self.subTest(name):
                self.assertEqual(self.statuses(line + headers + end), [status])
        target = b"GET /livez?" + b"a" * room
        self.assertEqual(self.statuses(line.replace(b"GET /livez", target) + end), [431])
        body = HEAD + b"A:" + b" " * room + b"b\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
        self.assertEqual(self.statuses(body), [431])
        # A large body in one part with its headers is none of them.
        self.assertEqual(self.statuses(WHOLE.replace(b"Host", b"Connection: close\r\nHost")), [200])

    def test_a_page_from_elsewhere_reads_every_refusal_like_an_answer(self) -> None:
        self.serve_with(SERVICE_CORS_ORIGINS="https://example.org")
        origin = b"Origin: https://example.org\r\n"
        for name, sent, status in (
            ("an answer", LIVEZ.replace(b"Host", b"Connection: close\r\n" + origin + b"Host"), 200),
            ("no host", b"GET / HTTP/1.1\r\n" + origin + b"\r\n", 400),
            ("a broken chunk", CHUNKED + origin + b"\r\nzz", 400),
            ("large headers", LIVEZ.replace(b"Host", origin + b"A: " + b"b" * 40_000 + b"\r\nHost"), 431),
            ("many headers", LIVEZ.replace(b"Host", origin + b"a:b\r\n" * 200 + b"Host"), 431),
            ("a large body", HEAD + origin + b"Connection: close\r\nContent-Length: 99999999\r\n\r\n", 413),
            (
                "no route",
                LIVEZ.replace(b"livez", b"cats").replace(b"Host", b"Connection: close\r\n" + origin + b"Host"),
                404,
            ),
        ):
            with self.subTest(name):
                head = self.ask(sent).partition(b"\r\n\r\n")[0].decode().lower()
                self.assertTrue(head.startswith(f"http/1.1 {status} "), head)
                self.assertIn("x-request-id: ", head)
                self.assertIn("access-control-allow-origin: https://example.org", head)
                exposed = head.partition("access-control-expose-headers: ")[2].partition("\r\n")[0]
                self.assertEqual(exposed, ", ".join(cors.EXPOSED_HEADERS).lower())

    def test_so_it_reads_that_there_is_no_place_or_no_time(self) -> None:
        shipped = config.load_config({"SERVICE_CORS_ORIGINS": "*"})
        limits = shipped.limits.model_copy(update={"in_flight": 1, "header_seconds": 0.5})
        runner = HeldRunner()
        app = app_server.create_app(shipped.model_copy(update={"limits": limits}), runner)
        self.url = self.enterContext(serving(app))
        host, port = self.url.removeprefix("http://").split(":")
        self.address = host, int(port)
        origin = b"Origin: https://example.org\r\n"
        with ThreadPoolExecutor(1) as senders:
            held = senders.submit(requests.post, f"{self.url}/predict", BODY)
            self.assertTrue(runner.wait_for(1))
            for sent, status in (
                (WHOLE.replace(b"Host", b"Connection: close\r\n" + origin + b"Host"), 503),
                (LIVEZ.replace(b"Host", origin + b"Host")[:-2], 408),
            ):
                with self.subTest(status):
                    head = self.ask(sent).partition(b"\r\n\r\n")[0].decode().lower()
                    self.assertTrue(head.startswith(f"http/1.1 {status} "), head)
                    self.assertIn("access-control-allow-origin: https://example.org", head)
                    self.assertRegex(head, "access-control-expose-headers: [^\r]*x-request-id")
            runner.release()
            self.assertEqual(held.result().status_code, 200)

    def test_what_is_no_request_is_one_line_a_second_in_the_log(self) -> None:
        self.serve()
        with self.assertLogs(level="INFO") as log:
            for _ in range(30):
                self.ask(MALFORMED)

            def lines() -> list[Any]:
                return [vars(record) for record in log.records if record.name == "request"]

            self.wait_until(lambda: sum(line["requests"] for line in lines()) == 30)
        self.assertLess(len(log.records), 10)
        self.assertEqual({line["code"] for line in lines()}, {"invalid_http"})


class HeldBytesTest(ConnectionTest):
    LARGE = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"

    def block(self, count: int, requests_each: int) -> list[socket.socket]:
        """Open connections that do not read their answers."""
        clients = []
        for _ in range(count):
            client = self.connect()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(requests_each * self.LARGE)
            clients.append(client)
        return clients

    def open_connections(self) -> float:
        text = requests.get(f"{self.url}/metrics", timeout=30).text
        return float(re.findall(r"^catdog_connections (\S+)", text, re.MULTILINE)[0])

    def test_who_does_not_take_the_answer_makes_room_for_a_new_connection(self) -> None:
        self.serve(connections=4)
        self.block(4, 1)
        time.sleep(1)
        for _ in range(10):
            self.check_alive()

    def test_what_all_connections_hold_is_bounded(self) -> None:
        self.enterContext(patch.object(connection_limits, "BUFFERED_BYTES", 500_000))
        self.serve()
        self.block(40, 8)
        self.wait_until(lambda: self.open_connections() < 30)
        self.check_alive()

    def test_who_sends_half_a_head_and_much_of_it_is_bounded_too(self) -> None:
        self.enterContext(patch.object(connection_limits, "BUFFERED_BYTES", 200_000))
        self.serve(header_seconds=300)
        for i in range(40):
            self.connect().sendall(LIVEZ * (i % 2) + LIVEZ[:-2] + b"A: " + b"b" * 20_000)
        self.wait_until(lambda: self.open_connections() < 20)
        self.check_alive()


class AddressTest(ConnectionTest):
    def logged(self, **environment: str) -> list[Any]:
        self.serve_with(**environment)
        with self.assertLogs("request", "INFO") as log:
            self.ask(
                LIVEZ.replace(b"/livez", b"/cats").replace(
                    b"Host", b"Connection: close\r\nX-Forwarded-For: 192.0.2.7\r\nHost"
                )
            )
            self.ask(b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.8\r\n\r\n")

            def lines() -> list[Any]:
                return [vars(record) for record in log.records]

            self.wait_until(lambda: len(lines()) == 2)
        return [line.get("client", line.get("clients")) for line in lines()]

    def test_no_address_is_logged_unless_asked_for(self) -> None:
        self.assertEqual(self.logged(SERVICE_TRUSTED_PROXIES="127.0.0.1"), [None, None])

    def test_the_address_is_in_the_line_of_a_request_and_of_refusals(self) -> None:
        found = self.logged(SERVICE_LOG_CLIENT_ADDRESS="true")
        self.assertEqual(found, ["127.0.0.1", {"127.0.0.1": 1}])

    def test_that_of_a_named_proxys_client_is_what_the_proxy_says(self) -> None:
        found = self.logged(SERVICE_LOG_CLIENT_ADDRESS="true", SERVICE_TRUSTED_PROXIES="10.0.0.0/8, 127.0.0.1")
        self.assertEqual(found, ["192.0.2.7", {"192.0.2.8": 1}])


if __name__ == "__main__":
    import unittest

    unittest.main()
