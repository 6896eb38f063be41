"""Tests the REST API as a client sees it: paths, bodies, statuses and texts."""

import base64
import gzip
import json
import socket
import time
import unittest
from typing import Any, ClassVar

import grpc
import numpy as np
import requests

from model_service.api import http_protocol, rest_api
from unit_test import processes
from unit_test.model_service.fixtures import expected, shared_server

TIMEOUT_S = 10


class RestTestCase(unittest.TestCase):
    """A test case with a server for `model`, and an HTTP client."""

    model: ClassVar[str] = "image"
    flags: ClassVar[tuple[str, ...]] = ()
    server: ClassVar[processes.ModelServer]
    http: ClassVar[requests.Session]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = shared_server(cls.model, *cls.flags)
        cls.http = cls.enterClassContext(requests.Session())

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request to `path`, exactly as it is written."""
        request = self.http.prepare_request(requests.Request(method, self.server.url, **options))
        request.url = self.server.url + path
        return self.http.send(request, timeout=TIMEOUT_S)

    def predict(self, body: Any, path: str = "/v1/models/CAT-DOG:predict") -> requests.Response:
        """POST a body: text unchanged, anything else as JSON."""
        return self.call("POST", path, data=body if isinstance(body, str | bytes) else json.dumps(body))

    def assert_refused(self, response: requests.Response, status: int, text: str) -> None:
        """Assert that the answer is an error with this status and this text."""
        self.assertEqual((response.status_code, response.json()), (status, {"error": text}))
        self.assertEqual(response.headers["content-type"], "application/json")


class PathsTest(RestTestCase):
    def test_the_status_is_tensorflow_servings(self) -> None:
        """Paths ignore case, names do not. A label is ignored here, as in TensorFlow Serving."""
        available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for path in (
            "/v1/models/CAT-DOG",
            "/V1/Models/CAT-DOG",
            "/v1/models/CAT%2DDOG",
            "/v1/models/CAT-DOG?x=1",
            "/v1/models/CAT-DOG/versions/1",
            "/v1/models/CAT-DOG/versions/001",
            "/v1/models/CAT-DOG/labels/stable",
        ):
            with self.subTest(path):
                response = self.call("GET", path)
                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.json(), {"model_version_status": [available]})

    def test_the_metadata_is_nested_twice_and_shows_every_field(self) -> None:
        answer = self.call("GET", "/v1/models/CAT-DOG/metadata").json()
        self.assertEqual(answer["model_spec"], {"name": "CAT-DOG", "signature_name": "", "version": "1"})
        signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
        self.assertEqual(signature["method_name"], "tensorflow/serving/predict")
        image = signature["inputs"]["image"]
        self.assertEqual((image["name"], image["dtype"]), ("serving_default_image:0", "DT_FLOAT"))
        sizes = [{"size": size, "name": ""} for size in ("-1", "24", "24", "3")]
        self.assertEqual(image["tensor_shape"], {"dim": sizes, "unknown_rank": False})

    def test_wrong_paths_are_refused_with_tensorflow_servings_texts(self) -> None:
        cases = {
            ("GET", "/v1/foo"): (400, "Malformed request: GET /v1/foo"),
            ("GET", "/v1/models/CAT-DOG/"): (400, "Malformed request: GET /v1/models/CAT-DOG/"),
            ("GET", "/v1/models/CAT-DOG:predict"): (400, "Malformed request: GET /v1/models/CAT-DOG:predict"),
            ("POST", "/v1/models/CAT-DOG"): (400, "Malformed request: POST /v1/models/CAT-DOG"),
            ("PUT", "/v1/models/CAT-DOG"): (400, "Malformed request: PUT /v1/models/CAT-DOG"),
            ("DELETE", "/v1/models/CAT-DOG"): (400, "Malformed request: DELETE /v1/models/CAT-DOG"),
            ("GET", "/v1/models"): (400, "Missing model name in request."),
            ("GET", "/v1/models/M"): (404, "Could not find any versions of model M; served here: CAT-DOG"),
            ("GET", "/v1/models/CAT-DOG/versions/7"): (404, "Could not find version 7 of model CAT-DOG"),
            ("GET", "/v1/models/M/metadata"): (404, "Servable not found for request: Latest(M)"),
            ("GET", f"/v1/models/CAT-DOG/versions/{2**63}"): (400, f"Failed to convert version: {2**63} to numeric."),
            ("GET", f"/v1/models/CAT-DOG/versions/{'9' * 5000}"): (
                400,
                f"Failed to convert version: {'9' * 997}...TRUNCATED",
            ),
            ("POST", "/v1/models/CAT-DOG:classify"): (400, "JSON Parse error: The document is empty"),
        }
        for (method, path), (status, text) in cases.items():
            with self.subTest(f"{method} {path[:60]}"):
                self.assert_refused(self.call(method, path), status, text)

    def test_other_paths_are_no_part_of_the_api(self) -> None:
        response = self.call("GET", "/foo")
        self.assertEqual((response.status_code, response.headers["content-type"]), (404, "text/html; charset=utf-8"))

    def test_options_are_answered_for_web_origins_only(self) -> None:
        for origin, status in {"https://example.org": 200, "http://localhost": 200, "null": 400}.items():
            with self.subTest(origin):
                response = self.call("OPTIONS", "/v1/models/CAT-DOG", headers={"Origin": origin})
                self.assertEqual((response.status_code, response.content), (status, b""))

    def test_the_server_is_alive_and_ready(self) -> None:
        for path in ("/livez", "/readyz"):
            with self.subTest(path):
                response = self.call("GET", path)
                self.assertEqual((response.status_code, response.json()["failing"]), (200, {}))


class PredictTest(RestTestCase):
    def setUp(self) -> None:
        inputs, outputs = expected("image")
        self.images, self.probabilities = inputs["image"].tolist(), outputs["probabilities"]

    def test_rows_give_predictions(self) -> None:
        answer = self.predict({"instances": self.images}).json()
        np.testing.assert_allclose(answer["predictions"], self.probabilities, rtol=1e-5)

    def test_named_rows_give_predictions(self) -> None:
        answer = self.predict({"instances": [{"image": image} for image in self.images]}).json()
        np.testing.assert_allclose(answer["predictions"], self.probabilities, rtol=1e-5)

    def test_columns_give_outputs(self) -> None:
        for inputs in (self.images, {"image": self.images}):
            with self.subTest(type(inputs).__name__):
                answer = self.predict({"inputs": inputs}).json()
                np.testing.assert_allclose(answer["outputs"], self.probabilities, rtol=1e-5)

    def test_a_version_and_a_signature_may_be_named(self) -> None:
        body = {"instances": self.images, "signature_name": "serving_default"}
        self.assertEqual(self.predict(body, "/v1/models/CAT-DOG/versions/1:PREDICT").status_code, 200)

    def test_a_gzipped_body_is_unpacked(self) -> None:
        body = gzip.compress(json.dumps({"instances": self.images}).encode())
        response = self.call("POST", "/v1/models/CAT-DOG:predict", data=body, headers={"Content-Encoding": "gzip"})
        self.assertEqual(response.status_code, 200)

    def test_wrong_requests_are_refused(self) -> None:
        good = {"instances": self.images}
        cases: dict[str, tuple[Any, str, int, str]] = {
            "bad_body_to_an_unknown_model": ("{", "/v1/models/M:predict", 400, "JSON Parse error: "),
            "good_body_to_an_unknown_model": (good, "/v1/models/M:predict", 404, "Servable not found for request: Lat"),
            "unknown_version": (
                good,
                "/v1/models/CAT-DOG/versions/7:predict",
                404,
                "Servable not found for request: S",
            ),
            "unknown_label": (
                good,
                "/v1/models/CAT-DOG/labels/x:predict",
                400,
                "Unrecognized servable version label: x",
            ),
            "empty_body": ("", "/v1/models/CAT-DOG:predict", 400, "JSON Parse error: The document is empty"),
            "unknown_signature": (
                good | {"signature_name": "s"},
                "/v1/models/CAT-DOG:predict",
                400,
                'Serving signature name: "s" not found in signature def',
            ),
        }
        for case, (body, path, status, text) in cases.items():
            with self.subTest(case):
                response = self.predict(body, path)
                self.assertEqual(response.status_code, status)
                self.assertTrue(response.json()["error"].startswith(text), response.text)

    def test_a_broken_gzip_body_is_refused(self) -> None:
        whole = gzip.compress(b"{}")
        for case, body in {"no_gzip": b"{}", "cut_off": whole[:-4]}.items():
            with self.subTest(case):
                headers = {"Content-Encoding": "gzip"}
                response = self.call("POST", "/v1/models/CAT-DOG:predict", data=body, headers=headers)
                self.assertEqual(response.status_code, 400)
                self.assertIn("not valid gzip", response.json()["error"])


class CorsTest(RestTestCase):
    flags = ("--rest_api_enable_cors_support",)

    def test_every_web_page_may_call_it_also_if_the_call_fails(self) -> None:
        origin = {"Origin": "https://example.org"}
        for method, path in (("GET", ""), ("GET", "/versions/7"), ("POST", ":predict"), ("OPTIONS", ":predict")):
            with self.subTest(method + path):
                headers = self.call(method, f"/v1/models/CAT-DOG{path}", headers=origin).headers
                self.assertEqual(headers["Access-Control-Allow-Origin"], "*")
                self.assertEqual(headers["Access-Control-Allow-Methods"], "POST, GET")
                self.assertEqual(headers["Access-Control-Allow-Headers"], "Content-Type")
        self.assertNotIn("Access-Control-Allow-Origin", self.call("GET", "/readyz", headers=origin).headers)

    def test_without_the_flag_no_other_page_may(self) -> None:
        response = requests.get(f"{shared_server('image').url}/v1/models/CAT-DOG", timeout=TIMEOUT_S)
        self.assertNotIn("Access-Control-Allow-Origin", response.headers)


class ConnectionTest(RestTestCase):
    def setUp(self) -> None:
        host, port = self.server.url.removeprefix("http://").split(":")
        self.connection = self.enterContext(socket.create_connection((host, int(port)), timeout=TIMEOUT_S))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> tuple[int, Any]:
        """Return the status and the body of the next answer on the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.connection.recv(1)
        left = int(head.lower().partition(b"content-length: ")[2].split()[0])
        body = b""
        while len(body) < left:
            body += self.connection.recv(left - len(body))
        return int(head.split()[1]), json.loads(body)

    def test_a_request_to_change_the_protocol_is_ignored(self) -> None:
        """Every stock HTTP client of Java asks for h2c; its body and the next request must not be lost."""
        images = expected("image")[0]["image"].tolist()
        body = json.dumps({"instances": images}).encode()
        head = b"POST /v1/models/CAT-DOG:predict HTTP/1.1\r\nHost: x\r\n"
        length = b"Content-Length: %d\r\n\r\n" % len(body) + body
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        after = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        for upgrade in (
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n",
            b"Upgrade: h2c\r\n",
            b"",
        ):
            for framed in (length, chunked):
                sent = head + upgrade + framed
                end = sent.index(b"\r\n\r\n") + 4
                for cut in (0, 40, end - 2, end, end + 1, len(sent)):
                    with self.subTest(upgrade, framed=framed[:20], cut=cut):
                        whole = sent + after.replace(b"Host", upgrade + b"Host")
                        for part in filter(None, (whole[:cut], whole[cut:])):
                            # So that they come apart.
                            self.connection.sendall(part)
                            time.sleep(0.002)
                        status, answer = self.read()
                        self.assertEqual((status, len(answer["predictions"])), (200, len(images)))
                        self.assertEqual(self.read()[0], 200)

    def test_what_names_no_host_or_too_much_is_refused(self) -> None:
        most = http_protocol.MAX_HEADER_BYTES
        for name, sent, status in (
            ("no_host", b"GET /livez HTTP/1.1\r\n\r\n", 400),
            ("two_hosts", b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
            ("old", b"GET /livez HTTP/1.0\r\n\r\n", 200),
            ("a_tunnel", b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("blanks", b"GET /livez HTTP/1.1\r\nHost: x\r\nA:" + b" " * most + b"b\r\n\r\n", 431),
            ("a_path", b"GET /" + b"x" * most + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
            ("just_over", b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"b" * (most - 34) + b"\r\n\r\n", 431),
        ):
            with self.subTest(name):
                self.setUp()
                self.connection.sendall(sent)
                self.assertEqual(self.read()[0], status)


class SeveralOutputsTest(RestTestCase):
    model = "many_outputs"

    def test_rows_give_an_object_each(self) -> None:
        inputs, outputs = expected("many_outputs")
        predictions = self.predict({"instances": inputs["values"].tolist()}).json()["predictions"]
        self.assertEqual([row["best"] for row in predictions], outputs["best"].tolist())
        self.assertEqual([row["positive"] for row in predictions], outputs["positive"].tolist())
        np.testing.assert_allclose([row["logits"] for row in predictions], outputs["logits"], rtol=1e-5)


class StringsTest(RestTestCase):
    model = "fallback"

    def test_text_and_base64_give_text_and_base64(self) -> None:
        """An output whose name ends in `_bytes` is returned as base64."""
        answer = self.predict({"instances": ["dog", {"b64": base64.b64encode("Maçã".encode()).decode()}]}).json()
        shouts = ["dog!", "Maçã!"]
        numbers = [1, -1]
        coded = [{"b64": base64.b64encode(shout.encode()).decode()} for shout in shouts]
        self.assertEqual(
            answer["predictions"],
            [
                {"number": number, "shout": shout, "shout_bytes": code}
                for number, shout, code in zip(numbers, shouts, coded, strict=True)
            ],
        )

    def test_two_inputs_take_named_rows_and_keep_64_bits(self) -> None:
        rows = [{"values": [1, 2, 3], "numbers": 2**40}, {"values": [0.5, 0, 0], "numbers": -1}]
        answer = self.predict({"instances": rows, "signature_name": "wide"}).json()
        self.assertEqual(answer["predictions"], [{"sums": 6.0, "next": 2**40 + 1}, {"sums": 0.5, "next": 0}])


class LimitsTest(RestTestCase):
    model = "slow"
    flags = ("--max_message_bytes=10000", "--rest_api_timeout_in_ms=100")

    def test_a_body_over_the_limit_is_refused(self) -> None:
        packed = gzip.compress(b" " * 1_000_000)
        self.assertLess(len(packed), 10_000)
        for case, (body, headers) in {
            "as_it_came": (b" " * 10_001, {}),
            "unpacked": (packed, {"Content-Encoding": "gzip"}),
        }.items():
            with self.subTest(case):
                response = self.call("POST", "/v1/models/CAT-DOG:predict", data=body, headers=headers)
                self.assert_refused(response, 413, "The body is larger than 10000 bytes (--max_message_bytes)")

    def test_an_answer_that_takes_too_long_is_given_up(self) -> None:
        self.assert_refused(self.predict({"inputs": 100_000}), 504, "No answer within 0.1 s (--rest_api_timeout_in_ms)")


class HttpStatusesTest(unittest.TestCase):
    def test_every_grpc_status_has_an_http_status(self) -> None:
        self.assertEqual(rest_api.HTTP_STATUSES.keys(), set(grpc.StatusCode))


if __name__ == "__main__":
    unittest.main()
