"""Tests API keys, CORS for pages of other origins, and the security headers of all answers."""

import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from preprocess_service.app import app_server, config
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, HeldRunner
from unit_test.preprocess_service.http_server import serving

KEY = "0123456789abcdef"
OTHER = "another-key-of-many"
ELSEWHERE = "https://example.org"
BODY = {"image_b64": CAT}


class DoorsTest(unittest.TestCase):
    def serve(self, runner: Any = None, **environment: str) -> None:
        settings = config.load_config(environment)
        limits = settings.limits.model_copy(update={"in_flight": 1})
        settings = settings.model_copy(update={"limits": limits})
        self.url = self.enterContext(serving(app_server.create_app(settings, runner or FakeRunner())))

    def ask(self, method: str, path: str, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = BODY if method == "POST" else None
        return requests.request(method, f"{self.url}{path}", json=body, headers=named, timeout=30)


class KeysTest(DoorsTest):
    def setUp(self) -> None:
        self.serve(SERVICE_API_KEYS=f"{OTHER},{KEY}")

    def test_whoever_shows_one_of_the_keys_is_answered(self) -> None:
        for key in (KEY, OTHER):
            for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"X-API-Key": key}):
                with self.subTest(headers):
                    self.assertEqual(self.ask("POST", "/predict", **headers).status_code, 200)

    def test_whoever_does_not_is_told_how(self) -> None:
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {KEY[:-1]}"},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": KEY},
            {"Authorization": f"Bearer {OTHER},{KEY}"},
            {"X-API-Key": ""},
            {"X-API-Key": KEY.upper()},
            {"X-API-Key": "\u00e9" * 16},
        ):
            with self.subTest(headers):
                answer = self.ask("POST", "/predict", **headers)
                self.assertEqual((answer.status_code, answer.json()["code"]), (401, "unauthorized"))
                self.assertEqual(answer.headers["www-authenticate"], 'Bearer realm="CAT or DOG"')
                self.assertEqual(answer.headers["x-request-id"], answer.json()["request_id"])

    def test_health_page_and_docs_are_open_and_all_else_is_closed(self) -> None:
        for path in (
            *("/", "/livez", "/readyz", "/static/page.js", "/samples/cat_1.jpg"),
            *("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"),
        ):
            with self.subTest(path):
                # Not ready is no refusal: the processes that decode may not have started yet.
                self.assertIn(self.ask("GET", path).status_code, (200, 503) if path == "/readyz" else (200,))
        for method, path in (
            *(
                ("POST", path)
                for path in ("/predict", "/cat-dog_classification", "/predict/batch", "/static/../predict")
            ),
            *(("GET", path) for path in ("/model", "/metrics", "/no-such-thing", "/livez//", "//predict", "/static")),
            ("HEAD", "/predict"),
        ):
            with self.subTest(path, method=method):
                self.assertEqual(self.ask(method, path).status_code, 401)

    def test_every_operation_of_the_document_says_whether_it_needs_one(self) -> None:
        document = self.ask("GET", "/openapi.json").json()
        self.assertEqual(set(document["components"]["securitySchemes"]), {"bearer", "key"})
        needs = {path for path, item in document["paths"].items() for it in item.values() if it["security"]}
        routes = {"/predict", "/predict/batch", "/model", "/model/golden/{name}"}
        of_models = {f"/models/{{model}}{path}" for path in routes} | {"/models"}
        self.assertEqual(needs, routes | of_models | {"/cat-dog_classification"})

    def test_a_refusal_is_counted_and_no_key_is_logged(self) -> None:
        with self.assertLogs(level="DEBUG") as log:
            self.ask("POST", "/predict", Authorization=f"Bearer {KEY}")
            self.ask("POST", "/predict", X_API_Key="wrong-" + KEY)
        self.assertNotIn(KEY, str([vars(record) for record in log.records]))
        text = self.ask("GET", "/metrics", X_API_Key=KEY).text
        self.assertIn('catdog_failures_total{code="unauthorized"} 1.0', text)


class WithoutKeysTest(DoorsTest):
    def test_nothing_asks_for_a_key_and_pages_from_elsewhere_get_nothing(self) -> None:
        self.serve()
        answer = self.ask("POST", "/predict", Origin=ELSEWHERE)
        self.assertEqual(answer.status_code, 200)
        self.assertNotIn("access-control-allow-origin", answer.headers)
        self.assertEqual(self.ask("OPTIONS", "/predict", Origin=ELSEWHERE).status_code, 405)
        self.assertNotIn("securitySchemes", self.ask("GET", "/openapi.json").text)

    def test_browsers_are_told_to_be_careful_with_every_answer(self) -> None:
        self.serve()
        for method, path in (
            ("GET", "/"),
            ("GET", "/docs"),
            ("GET", "/nothing"),
            ("POST", "/predict"),
            ("GET", "/livez"),
        ):
            headers = self.ask(method, path).headers
            for name, value in (
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
                ("X-Frame-Options", "DENY"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Cross-Origin-Opener-Policy", "same-origin"),
            ):
                with self.subTest(path, header=name):
                    self.assertEqual(headers[name], value)


class PagesFromElsewhereTest(DoorsTest):
    def test_a_named_page_may_ask_first_without_a_key_and_then_with_one(self) -> None:
        self.serve(SERVICE_CORS_ORIGINS=ELSEWHERE, SERVICE_API_KEYS=KEY)
        asks_first = {
            "Origin": ELSEWHERE,
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": "authorization,content-type",
        }
        answer = self.ask("OPTIONS", "/predict", **asks_first)
        self.assertEqual(answer.status_code, 200)
        self.assertIn("authorization", answer.headers["access-control-allow-headers"].lower())
        for headers, status in (({"Authorization": f"Bearer {KEY}"}, 200), ({}, 401)):
            with self.subTest(status):
                answer = self.ask("POST", "/predict", Origin=ELSEWHERE, **headers)
                self.assertEqual(answer.status_code, status)
                self.assertEqual(answer.headers["access-control-allow-origin"], ELSEWHERE)
                self.assertIn("Retry-After", answer.headers["access-control-expose-headers"])
        refused = self.ask("OPTIONS", "/predict", **asks_first | {"Origin": "https://example.com"})
        self.assertNotIn("access-control-allow-origin", refused.headers)

    def test_it_may_read_that_there_is_a_defect_too(self) -> None:
        runner = FakeRunner()
        runner.answer = ZeroDivisionError("a defect")
        self.serve(runner, SERVICE_CORS_ORIGINS=ELSEWHERE)
        for origin, allowed in ((ELSEWHERE, ELSEWHERE), ("https://example.com", None)):
            answer = self.ask("POST", "/predict", Origin=origin)
            self.assertEqual(answer.status_code, 500)
            self.assertEqual(answer.headers.get("access-control-allow-origin"), allowed)
            self.assertEqual("X-Request-ID" in answer.headers.get("access-control-expose-headers", ""), bool(allowed))
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertIn("Accept-Language", answer.headers["vary"])

    def test_it_may_read_that_there_is_no_place_too(self) -> None:
        runner = HeldRunner()
        self.serve(runner, SERVICE_CORS_ORIGINS=ELSEWHERE)
        with ThreadPoolExecutor(1) as senders:
            held = senders.submit(self.ask, "POST", "/predict")
            self.assertTrue(runner.wait_for(1))
            for origin, allowed in ((ELSEWHERE, ELSEWHERE), ("https://example.com", None)):
                with self.subTest(origin):
                    answer = self.ask("POST", "/predict", Origin=origin)
                    self.assertEqual(answer.status_code, 503)
                    self.assertEqual(answer.headers.get("access-control-allow-origin"), allowed)
            runner.release()
            self.assertEqual(held.result().status_code, 200)
