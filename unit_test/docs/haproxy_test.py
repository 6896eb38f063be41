"""The shipped settings of HAProxy: a request whose pod ends is sent to another, and its own errors have our form."""

import re
import socket
import subprocess
import unittest
from typing import Any

from tools.chaos import stage
from tools.system_packages import find, why_skipped
from unit_test.docs.proxy_test import BackendsTest, ask_at

HAPROXY_CFG = stage.PROJECT / "app" / "proxy" / "haproxy.cfg"


@unittest.skipUnless(find("haproxy"), why_skipped("haproxy"))
class HaproxyTest(BackendsTest):
    def start(self, ports: list[int], client_rate: int = 10_000) -> None:
        """Start HAProxy with these addresses in place of the pods'."""
        self.port = stage.free_port()
        place = self.enterContext(stage.Stage())
        text = HAPROXY_CFG.read_text(encoding="utf-8").replace("bind :8080", f"bind 127.0.0.1:{self.port}")
        servers = "\n    ".join(f"server pod{port} 127.0.0.1:{port}" for port in ports)
        text, count = re.subn("server-template .*", servers, text)
        self.assertEqual(count, 1)
        text = text.replace(" resolvers cluster resolve-prefer ipv4 init-addr none", "")
        settings = place.folder / "haproxy.cfg"
        settings.write_text(text, encoding="utf-8")
        environment = {"SOCKET": str(place.folder / "socket"), "CLIENT_RATE": str(client_rate)}
        url = f"http://127.0.0.1:{self.port}/haproxy"
        command = [find("haproxy") or "", "-db", "-f", settings]
        place.process("haproxy", command, environment, lambda: stage.answers(url)).start()

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, Any]:
        return ask_at(self.port, method, path, body, headers)

    def photos(self) -> list[bytes]:
        return [body for backend in self.backends for path, _, body in backend.asked if path == "/predict"]

    def test_it_accepts_the_shipped_file(self) -> None:
        environment = {"SOCKET": "/tmp/x", "CLIENT_RATE": "1", "PODS": "pods.example:7998"}
        done = subprocess.run(
            [find("haproxy") or "", "-c", "-f", HAPROXY_CFG],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_ends_a_service_reaches_three_at_most_and_a_photo_is_not_lost(self) -> None:
        self.start([backend.server_port for backend in self.backends])
        status, headers, answer = self.ask("POST", "/predict", b"bomb")
        self.assertEqual((status, answer["code"]), (502, "service_lost"))
        self.assertEqual(headers["X-Request-ID"], answer["request_id"])
        self.assertEqual(len(self.photos()), 3)
        self.backends[0].breaks_off = True
        for _ in range(4):
            self.assertEqual(self.ask("POST", "/predict", b"x" * 400_000)[0], 200)

    def test_a_request_that_is_too_large_to_be_kept_is_passed_on(self) -> None:
        self.start([backend.server_port for backend in self.backends])
        self.assertEqual(self.ask("POST", "/predict", b"x" * 20_000_000)[0], 200)

    def test_a_service_that_is_away_costs_no_request(self) -> None:
        self.start([stage.free_port(), self.backends[0].server_port])
        for _ in range(6):
            self.assertEqual(self.ask("POST", "/predict", b"photo")[0], 200)

    def test_without_a_service_the_error_has_our_form_in_both_languages(self) -> None:
        self.start([stage.free_port()])
        for language, word in (("en", "service"), ("pt-BR", "serviço")):
            with self.subTest(language):
                status, headers, answer = self.ask("POST", "/predict", b"photo", **{"Accept-Language": language})
                self.assertEqual((status, answer["status"], answer["code"]), (503, "Failed", "service_lost"))
                self.assertIn(word, answer["msg"])
                self.assertEqual((headers["X-Request-ID"], headers["Retry-After"]), (answer["request_id"], "1"))

    def test_the_metrics_are_closed_however_they_are_written(self) -> None:
        self.start([backend.server_port for backend in self.backends])
        for path in ("/metrics", "//metrics", "/%6Detrics", "/METRICS"):
            with self.subTest(path):
                status, _, answer = self.ask("GET", path)
                self.assertEqual((status, answer["code"]), (404, "not_found"))

    def test_what_is_no_request_reaches_no_service(self) -> None:
        self.start([self.backends[0].server_port])
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sender:
            sender.sendall(b"NONSENSE\r\n\r\n")
            self.assertTrue(sender.makefile("rb").read().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.backends[0].paths(), [])

    def test_each_address_has_a_rate(self) -> None:
        self.start([backend.server_port for backend in self.backends], client_rate=5)
        statuses = [self.ask("GET", "/")[0] for _ in range(12)]
        self.assertEqual(set(statuses), {200, 429})
        self.assertEqual(statuses, sorted(statuses))

    def test_headers_that_name_an_address_are_the_proxys_own(self) -> None:
        self.start([self.backends[0].server_port])
        self.ask("GET", "/", Forwarded="for=6.6.6.6", **{"X-Forwarded-For": "6.6.6.6", "Host": "evil.example"})
        (headers,) = [headers for path, headers, _ in self.backends[0].asked if path == "/"]
        self.assertEqual((headers["host"], headers["x-forwarded-for"]), ("preprocess-service", "127.0.0.1"))
        self.assertNotIn("forwarded", headers)


if __name__ == "__main__":
    unittest.main()
