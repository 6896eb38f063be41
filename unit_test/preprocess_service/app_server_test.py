"""Tests the HTTP API over a real port, with a fake model whose answers the test sets."""

import asyncio
import base64
import json
import re
import socket
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import requests

from preprocess_service.app import app_server, config, errors, model_runner, translations
from preprocess_service.app.observability import metrics
from preprocess_service.app.serving_client import predict_response
from serving_common import json_logging
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.recipes import GEOMETRY, SHIPPED, model_version
from unit_test.utils import IMAGES, image_to_base64

CAT = image_to_base64(IMAGES / "cat_1.jpg")
STAGES = ["read", "queue", "decode", "resize", "model", "total"]


class FakeRunner:
    """Gives the answers that the test sets, and records the pixels that it gets."""

    def __init__(self) -> None:
        self.answer: float | Exception = 0.25
        self.state: int | Exception = 3
        self.pixels: Any = None
        self.domain_score: float | None = None
        self.attention: Any = None
        self.opened = self.closed = False

    async def open(self) -> None:
        self.opened = True

    async def close(self) -> None:
        self.closed = True

    async def predict(self, pixels: Any, model: Any, timeout: float, request_id: str = "") -> Any:
        self.pixels, self.timeout, self.request_id = pixels, timeout, request_id
        if isinstance(self.answer, Exception):
            raise self.answer
        probabilities = {"CAT": self.answer, "DOG": 1 - self.answer}
        threshold = SHIPPED.preprocessor_config.domain_threshold
        return predict_response.Prediction(probabilities, 3, self.domain_score, threshold, self.attention)

    async def available(self, timeout: float) -> list[int]:
        if isinstance(self.state, Exception):
            raise self.state
        return [self.state]

    async def load(self, version: int, timeout: float) -> Any:
        return model_version(version)

    def approve(self, model: Any) -> None: ...

    def disapprove(self, version: int) -> None: ...


class HeldRunner(FakeRunner):
    """Gives no answer before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.was_cancelled = threading.Event()
        self._begun = threading.Semaphore(0)
        self._released = threading.Event()

    def wait_for(self, count: int) -> bool:
        """Return whether `count` predictions have begun, within 10 s each."""
        return all(self._begun.acquire(timeout=10) for _ in range(count))

    def release(self) -> None:
        self._released.set()

    async def predict(self, pixels: Any, model: Any, timeout: float, request_id: str = "") -> Any:
        self._begun.release()
        try:
            while not self._released.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        return await super().predict(pixels, model, timeout, request_id)


def settings(**limits: Any) -> Any:
    shipped = config.load_config({})
    return shipped.model_copy(update={"limits": shipped.limits.model_copy(update=limits)})


class AppServerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.runner = FakeRunner()
        self.url = self.enterContext(serving(app_server.create_app(settings(), self.runner)))

    def post(self, **arguments: Any) -> requests.Response:
        return requests.post(f"{self.url}/predict", timeout=10, **arguments)

    def check_refusal(self, response: requests.Response, status: int, code: str, *words: str) -> None:
        answer = response.json()
        self.assertEqual((response.status_code, answer["status"], answer["code"]), (status, "Failed", code), answer)
        self.assertEqual(set(answer), {"status", "msg", "code", "request_id"})
        self.assertEqual(response.headers["x-request-id"], answer["request_id"])
        for word in words:
            self.assertIn(word, answer["msg"])

    def test_a_photo_gets_its_label_and_confidence(self) -> None:
        response = self.post(json={"image_b64": CAT}, headers={"X-Request-ID": "photo-1"})
        self.assertEqual(response.status_code, 200)
        self.assertEqual(
            response.json(),
            {
                "status": "Success",
                "label": "DOG",
                "confidence": 0.75,
                "pet_type": "DOG",
                "model_conf": 75.0,
                "probabilities": {"DOG": 0.75, "CAT": 0.25},
                "looks": 1,
                "model": {"name": "CAT-DOG", "version": 3},
                "request_id": "photo-1",
            },
        )

    def test_a_photo_of_neither_is_told_where_the_model_can_tell(self) -> None:
        threshold = SHIPPED.preprocessor_config.domain_threshold
        for name, score, in_domain in (("at the threshold", threshold, True), ("below it", threshold - 0.001, False)):
            with self.subTest(name):
                self.runner.domain_score = score
                answer = self.post(json={"image_b64": CAT}).json()
                self.assertEqual((answer["in_domain"], answer["pet_type"]), (in_domain, "DOG"))
                self.assertAlmostEqual(answer["domain_score"], score, places=5)

    def test_the_model_gets_the_picture_in_its_own_size(self) -> None:
        self.post(json={"image_b64": CAT})
        self.assertEqual(self.runner.pixels.shape, (GEOMETRY.height, GEOMETRY.width, 3))
        self.assertEqual(self.runner.pixels.dtype, np.uint8)

    def test_an_insane_request_id_is_replaced(self) -> None:
        for sent in ("", "two words", "x" * 129, "<script>"):
            with self.subTest(sent):
                answer = self.post(json={"image_b64": CAT}, headers={"X-Request-ID": sent}).json()
                self.assertRegex(answer["request_id"], "^[0-9a-f]{32}$")

    def test_a_bad_body_is_refused_and_the_field_named(self) -> None:
        for name, body, words in (
            ("a missing field", "{}", ["'image_b64' is missing"]),
            ("an unknown field", '{"image_b64": "QUJD", "image": 1}', ["'image' is unknown"]),
            ("a number", '{"image_b64": 7}', ["'image_b64' has the wrong type"]),
            ("null", '{"image_b64": null}', ["'image_b64' has the wrong type"]),
            ("a list", "[]", ["not a JSON object"]),
            ("no JSON", "image_b64=QUJD", ["not JSON"]),
            ("half a JSON", '{"image_b64": "QUJD', ["not JSON"]),
            ("not UTF-8", b'{"image_b64": "\xff"}', ["not JSON"]),
            ("nothing", b"", ["not JSON"]),
        ):
            with self.subTest(name):
                response = self.post(data=body, headers={"Content-Type": "application/json"})
                self.check_refusal(response, 422, "invalid_request", *words, '{"image_b64": "<the picture in base64>"}')

    def test_a_bad_picture_is_refused(self) -> None:
        text = base64.b64encode(b"meow, said the dog").decode()
        for name, sent, code, word in (
            ("empty", "", "invalid_base64", "Image base64 invalid"),
            ("no base64", "no base64!", "invalid_base64", "Image base64 invalid"),
            ("a text", text, "invalid_image", "Send one of JPEG"),
            ("a PDF", base64.b64encode(b"%PDF-1.7 ...").decode(), "unsupported_media_type", "Portable Document"),
            ("half a JPEG", CAT[: len(CAT) // 8 * 4], "invalid_image", "truncated"),
        ):
            with self.subTest(name):
                status = 415 if code == "unsupported_media_type" else 400
                self.check_refusal(self.post(json={"image_b64": sent}), status, code, word)

    def test_a_photo_is_taken_as_json_as_itself_and_as_a_form(self) -> None:
        data = (IMAGES / "cat_1.jpg").read_bytes()
        self.post(json={"image_b64": CAT})
        expected = self.runner.pixels
        for name, arguments in (
            ("image/jpeg", {"data": data, "headers": {"Content-Type": "image/jpeg"}}),
            ("another image type", {"data": data, "headers": {"Content-Type": "image/png"}}),
            ("octet-stream", {"data": data, "headers": {"Content-Type": "application/octet-stream"}}),
            ("form", {"files": {"file": ("cat.jpg", data, "image/jpeg")}}),
        ):
            with self.subTest(name):
                self.runner.pixels = None
                self.assertEqual(self.post(**arguments).status_code, 200)
                np.testing.assert_array_equal(self.runner.pixels, expected)

    def test_an_empty_picture_is_refused(self) -> None:
        response = self.post(data=b"", headers={"Content-Type": "image/jpeg"})
        self.check_refusal(response, 400, "invalid_image", "0 bytes")

    def test_each_photo_of_a_batch_is_answered_on_its_own_and_in_order(self) -> None:
        batch = {"images_b64": [CAT, "no base64!", 7, CAT]}
        answer = requests.post(f"{self.url}/predict/batch", json=batch, timeout=5).json()
        self.assertEqual(answer["status"], "Success")
        outcomes = [item.get("pet_type") or item["code"] for item in answer["predictions"]]
        self.assertEqual(outcomes, ["DOG", "invalid_base64", "invalid_request", "DOG"])
        self.assertIn("images_b64.2", answer["predictions"][2]["msg"])

    def test_a_batch_is_taken_as_a_form(self) -> None:
        data = (IMAGES / "cat_1.jpg").read_bytes()
        files = [("file", ("cat.jpg", data)), ("file", ("broken.jpg", data[:1000])), ("file", ("empty.jpg", b""))]
        answer = requests.post(f"{self.url}/predict/batch", files=files, timeout=5).json()
        outcomes = [item.get("pet_type") or item["code"] for item in answer["predictions"]]
        self.assertEqual(outcomes, ["DOG", "invalid_image", "invalid_image"])

    def test_a_batch_of_none_or_too_many_is_refused(self) -> None:
        most = settings().limits.batch_items
        for count in (0, most + 1):
            with self.subTest(count):
                response = requests.post(f"{self.url}/predict/batch", json={"images_b64": ["QUJD"] * count}, timeout=5)
                self.check_refusal(response, 422, "invalid_request", str(most))

    def test_a_refusal_speaks_the_senders_language_and_keeps_its_code(self) -> None:
        for header, start in (("pt-BR,pt;q=0.9,en;q=0.8", "Base64 da imagem"), ("en;q=0.8,pt;q=0.1", "Image base64")):
            with self.subTest(header):
                response = self.post(json={"image_b64": "!"}, headers={"Accept-Language": header})
                self.check_refusal(response, 400, "invalid_base64", start)

    def test_the_time_of_each_step_is_told(self) -> None:
        timing = self.post(json={"image_b64": CAT}).headers["server-timing"]
        self.assertEqual(
            re.findall(r"(\w+);dur=[\d.]+", timing), ["read", "queue", "decode", "resize", "model", "total"]
        )

    def test_a_body_of_another_type_is_refused(self) -> None:
        response = self.post(data={"image_b64": "QUJD"})
        self.check_refusal(response, 415, "unsupported_media_type", "application/x-www-form-urlencoded")

    def test_json_is_taken_without_a_content_type_and_with_a_charset(self) -> None:
        for content_type in (None, "application/json; charset=utf-8"):
            with self.subTest(content_type):
                body = f'{{"image_b64": "{CAT}"}}'.encode()
                self.assertEqual(self.post(data=body, headers={"Content-Type": content_type}).status_code, 200)

    def test_every_error_of_the_model_keeps_its_status(self) -> None:
        for error in set(model_runner.ERRORS.values()):
            with self.subTest(error.__name__):
                self.runner.answer = error()
                response = self.post(json={"image_b64": CAT})
                self.check_refusal(response, error.status, error.code, translations.MESSAGES[error.code]["en"])
                self.assertEqual("Retry-After" in response.headers, error.status == 503)

    def test_a_defect_of_ours_is_a_500_without_its_inside(self) -> None:
        self.runner.answer = ZeroDivisionError("secret")
        response = self.post(json={"image_b64": CAT})
        self.check_refusal(response, 500, "internal_error", "request_id")
        self.assertNotIn("secret", response.text)

    def test_an_unknown_path_or_method_is_answered_in_the_same_form(self) -> None:
        self.check_refusal(requests.get(f"{self.url}/cats", timeout=5), 404, "not_found", "/docs")
        response = requests.get(f"{self.url}/predict", timeout=5)
        self.check_refusal(response, 405, "method_not_allowed", "/docs")
        self.assertEqual(response.headers["allow"], "POST")

    def test_ready_means_available_and_predicting(self) -> None:
        unavailable = errors.ModelUnavailable()
        reason = str(unavailable)
        for name, state, answer, status, ok, failing in (
            ("both", 3, 0.5, 200, ["process", "model", "golden", "prediction"], {}),
            ("not loaded", unavailable, 0.5, 503, ["process"], {"model": reason}),
            ("no prediction", 3, unavailable, 503, ["process", "model", "golden"], {"prediction": reason}),
        ):
            # Each case has its own service: a check is cached for a second.
            with self.subTest(name), serving(app_server.create_app(settings(), runner := FakeRunner())) as url:
                runner.state, runner.answer = state, answer
                response = requests.get(f"{url}/readyz", timeout=5)
                end = time.monotonic() + 60
                # On a busy machine the processes that decode take longer to start than this waits.
                while "process" in response.json()["failing"] and time.monotonic() < end:
                    time.sleep(0.2)
                    response = requests.get(f"{url}/readyz", timeout=5)
                self.assertEqual((response.status_code, response.json()), (status, {"ok": ok, "failing": failing}))

    def test_alive_does_not_ask_the_model_server(self) -> None:
        self.runner.state = errors.ModelUnavailable()
        self.assertEqual(requests.get(f"{self.url}/livez", timeout=5).status_code, 200)

    def test_the_model_is_described(self) -> None:
        self.assertEqual(
            requests.get(f"{self.url}/model", timeout=5).json(),
            {
                "name": "CAT-DOG",
                "version": 3,
                "labels": ["CAT", "DOG"],
                "signature_name": "serving_default",
                "input_name": "pixels",
                "input_shape": [GEOMETRY.height, GEOMETRY.width, 3],
                "output_name": "probabilities",
                "domain_threshold": None,
                "attention": False,
                "second_look": None,
                "preprocessing": {
                    "width": 240,
                    "height": 240,
                    "mode": "crop",
                    "crop": 0.95,
                    "shortest_edge": None,
                    "resampling": "bilinear",
                    "antialias": True,
                    "decode": "fast",
                    "grayscale": False,
                    "scale": [1 / 128] * 3,
                    "offset": [-127 / 128] * 3,
                },
                "golden": [],
            },
        )

    def test_an_answer_has_as_many_labels_as_were_asked_for(self) -> None:
        for sent, found in (
            ({"json": {"image_b64": CAT, "top_k": 1.0}}, ["DOG"]),
            ({"json": {"image_b64": CAT, "top_k": 2}, "params": {"top_k": "1"}}, ["DOG", "CAT"]),
            (
                {"data": base64.b64decode(CAT), "headers": {"Content-Type": "image/jpeg"}, "params": {"top_k": "1"}},
                ["DOG"],
            ),
            ({"files": {"file": base64.b64decode(CAT)}, "params": {"top_k": "1"}}, ["DOG"]),
            ({"json": {"image_b64": CAT, "top_k": 1000}}, ["DOG", "CAT"]),
        ):
            with self.subTest(str(sent)[-60:]):
                self.assertEqual(list(self.post(**sent).json()["probabilities"]), found)
        batch = {"images_b64": [CAT, CAT], "top_k": 1}
        answers = requests.post(f"{self.url}/predict/batch", json=batch, timeout=10).json()["predictions"]
        self.assertEqual([list(answer["probabilities"]) for answer in answers], [["DOG"], ["DOG"]])

    def test_a_number_of_labels_that_is_none_is_refused(self) -> None:
        for top_k in (0, "two", 1.5, True, 10**9, [1]):
            with self.subTest(top_k):
                response = self.post(json={"image_b64": CAT, "top_k": top_k})
                self.check_refusal(response, 422, "invalid_request", "top_k must be a whole number")
        for text in ("0", "-1", "x", "1.0", "9" * 30, "\u0663"):
            with self.subTest(text):
                response = self.post(json={"image_b64": CAT}, params={"top_k": text})
                self.check_refusal(response, 422, "invalid_request", "top_k must be a whole number")

    def test_openapi_describes_the_routes_the_body_and_every_refusal(self) -> None:
        paths = requests.get(f"{self.url}/openapi.json", timeout=5).json()["paths"]
        self.assertEqual(
            set(paths),
            {
                *("/predict", "/cat-dog_classification", "/predict/batch"),
                *("/model", "/model/golden/{name}", "/livez", "/readyz", "/models"),
                *("/models/{model}/predict", "/models/{model}/predict/batch"),
                *("/models/{model}/model", "/models/{model}/model/golden/{name}"),
            },
        )
        for path, item in paths.items():
            for operation in item.values():
                with self.subTest(path):
                    named = [it["name"] for it in operation.get("parameters", ()) if it["in"] == "path"]
                    self.assertEqual(named.count("model"), path.count("{model}"))
        operation = paths["/predict"]["post"]
        self.assertIn("image_b64", operation["requestBody"]["content"]["application/json"]["schema"]["properties"])
        statuses = {str(error.status) for error in errors.ServiceError.__subclasses__()} - {"404", "405"}
        self.assertLessEqual(statuses | {"200"}, set(operation["responses"]))

    def test_the_examples_of_the_docs_work_when_pasted(self) -> None:
        paths = requests.get(f"{self.url}/openapi.json", timeout=5).json()["paths"]
        for path in ("/predict", "/predict/batch"):
            with self.subTest(path):
                example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
                answer = requests.post(f"{self.url}{path}", json=example, timeout=5).json()
                self.assertEqual(answer["status"], "Success")
                self.assertNotIn("Failed", str(answer))

    def test_the_docs_load_nothing_from_elsewhere(self) -> None:
        html = requests.get(f"{self.url}/docs", timeout=5).text
        parts = re.findall(r'(?:src|href)="([^"]+)"', html)
        self.assertTrue(parts)
        for part in parts:
            with self.subTest(part):
                # Relative, so that they are found below any prefix.
                self.assertRegex(part, "^static")
                self.assertEqual(requests.get(f"{self.url}/{part}", timeout=5).status_code, 200)

    def test_the_page_its_parts_and_the_samples_are_served_under_a_strict_policy(self) -> None:
        response = requests.get(f"{self.url}/", timeout=5)
        self.assertIn("default-src 'none'", response.headers["content-security-policy"])
        self.assertEqual(requests.get(f"{self.url}/samples/cat_1.jpg", timeout=5).headers["content-type"], "image/jpeg")
        parts = re.findall(r'(?:src|href)="(/?static/[^"]+)"', response.text)
        self.assertTrue(parts)
        for part in parts:
            with self.subTest(part):
                self.assertEqual(requests.get(f"{self.url}/{part.lstrip('/')}", timeout=5).status_code, 200)

    def test_a_client_that_goes_away_in_the_middle_of_its_body_does_no_harm(self) -> None:
        with socket.create_connection(self.url.removeprefix("http://").split(":")) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        self.assertEqual(self.post(json={"image_b64": CAT}).status_code, 200)


class LimitsTest(unittest.TestCase):
    def test_a_body_over_the_limit_is_refused_whether_its_length_was_told_or_not(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(body_bytes=2000), FakeRunner())))
        for name, body in (("told", CAT.encode()), ("streamed", iter([CAT.encode()]))):
            with self.subTest(name):
                answer = requests.post(f"{url}/predict", data=body, timeout=5)
                self.assertEqual((answer.status_code, answer.json()["code"]), (413, "image_too_large"))

    def test_a_photo_that_is_late_is_answered_with_504(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(deadline_seconds=0.3), HeldRunner())))
        answer = requests.post(f"{url}/predict", json={"image_b64": CAT}, timeout=30)
        self.assertEqual((answer.status_code, answer.json()["code"]), (504, "deadline_exceeded"))

    def test_the_sender_may_lower_the_deadline_but_not_raise_it(self) -> None:
        runner = FakeRunner()
        url = self.enterContext(serving(app_server.create_app(settings(deadline_seconds=8), runner)))
        for sent, most in (("5000", 5), ("60000", 8)):
            with self.subTest(sent):
                headers = {"X-Request-Timeout-Ms": sent}
                requests.post(f"{url}/predict", json={"image_b64": CAT}, headers=headers, timeout=30)
                self.assertTrue(most - 3 < runner.timeout <= most, runner.timeout)

    def test_a_deadline_that_is_no_number_is_refused(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(), FakeRunner())))
        for sent in ("", "0", "-5", "1.5", "soon", "9" * 30):
            with self.subTest(sent):
                headers = {"X-Request-Timeout-Ms": sent}
                answer = requests.post(f"{url}/predict", json={"image_b64": CAT}, headers=headers, timeout=30)
                self.assertEqual((answer.status_code, answer.json()["code"]), (422, "invalid_request"))
                self.assertIn("X-Request-Timeout-Ms", answer.json()["msg"])

    def test_more_than_there_is_room_for_is_refused_at_once_and_the_rest_answered(self) -> None:
        runner = HeldRunner()
        url = self.enterContext(serving(app_server.create_app(settings(in_flight=2), runner)))
        with ThreadPoolExecutor(2) as senders:
            held = [senders.submit(requests.post, f"{url}/predict", json={"image_b64": CAT}) for _ in range(2)]
            self.assertTrue(runner.wait_for(2))
            answer = requests.post(f"{url}/predict", json={"image_b64": CAT}, timeout=30)
            self.assertEqual((answer.status_code, answer.json()["code"]), (503, "overloaded"))
            self.assertIn("retry-after", answer.headers)
            self.assertEqual(requests.get(f"{url}/livez", timeout=30).status_code, 200)
            runner.release()
            self.assertEqual([request.result().status_code for request in held], [200, 200])
        self.assertIn("catdog_rejected_total 1.0", requests.get(f"{url}/metrics", timeout=5).text)

    def test_a_batch_takes_a_place_for_each_photo_that_it_has_under_way(self) -> None:
        runner = HeldRunner()
        # A batch may have a quarter of the slots: two.
        url = self.enterContext(serving(app_server.create_app(settings(in_flight=9, prepared=12), runner)))
        with ThreadPoolExecutor(5) as senders:
            single = senders.submit(requests.post, f"{url}/predict", json={"image_b64": CAT})
            self.assertTrue(runner.wait_for(1))
            batches = [
                senders.submit(requests.post, f"{url}/predict/batch", json={"images_b64": [CAT] * 9}) for _ in range(4)
            ]
            self.assertTrue(runner.wait_for(8))
            for path, body in (("/predict", {"image_b64": CAT}), ("/predict/batch", {"images_b64": [CAT]})):
                with self.subTest(path):
                    self.assertEqual(requests.post(f"{url}{path}", json=body, timeout=30).status_code, 503)
            runner.release()
            self.assertEqual({answer.result().status_code for answer in (single, *batches)}, {200})
        self.assertEqual(requests.post(f"{url}/predict", json={"image_b64": CAT}, timeout=30).status_code, 200)

    def test_bodies_that_together_take_too_much_memory_are_refused_until_there_is_room(self) -> None:
        runner = HeldRunner()
        room = int(1.5 * len(CAT))
        url = self.enterContext(serving(app_server.create_app(settings(buffered_bytes=room), runner)))
        with ThreadPoolExecutor(1) as senders:
            held = senders.submit(requests.post, f"{url}/predict", json={"image_b64": CAT})
            self.assertTrue(runner.wait_for(1))
            answer = requests.post(f"{url}/predict", json={"image_b64": CAT}, timeout=30)
            self.assertEqual((answer.status_code, answer.json()["code"]), (503, "overloaded"))
            runner.release()
            self.assertEqual(held.result().status_code, 200)
        self.assertEqual(requests.post(f"{url}/predict", json={"image_b64": CAT}, timeout=30).status_code, 200)

    def test_work_for_a_sender_that_went_away_is_dropped(self) -> None:
        runner = HeldRunner()
        # The deadline would cancel it too, so it is longer than this test waits.
        url = self.enterContext(serving(app_server.create_app(settings(deadline_seconds=60), runner)))
        body = json.dumps({"image_b64": CAT}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(url.removeprefix("http://").split(":")) as client:
            client.sendall(head.encode() + body)
            self.assertTrue(runner.wait_for(1))
        self.assertTrue(runner.was_cancelled.wait(10))

    def test_each_request_is_one_line_of_json_without_the_picture(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(), FakeRunner())))
        with self.assertLogs("request", "INFO") as log:
            requests.post(f"{url}/predict", json={"image_b64": CAT}, headers={"X-Request-ID": "one"}, timeout=5)
            requests.post(f"{url}/predict", json={"image_b64": "!"}, timeout=5)
            requests.get(f"{url}/readyz", timeout=5)
        lines = [json.loads(json_logging.json_formatter().format(record)) for record in log.records]
        self.assertEqual([(line["status"], line["code"]) for line in lines], [(200, "ok"), (400, "invalid_base64")])
        self.assertEqual((lines[0]["request_id"], lines[0]["route"], lines[0]["bytes"]), ("one", "/predict", len(CAT)))
        self.assertEqual(lines[0]["images"], [{"format": "JPEG", "width": 451, "height": 300}])
        self.assertEqual(list(lines[0]["timings"]), STAGES)
        self.assertNotIn(CAT[:50], str(lines))

    def test_the_request_id_goes_on_to_the_model_server(self) -> None:
        runner = FakeRunner()
        url = self.enterContext(serving(app_server.create_app(settings(), runner)))
        requests.post(f"{url}/predict", json={"image_b64": CAT}, headers={"X-Request-ID": "one"}, timeout=5)
        self.assertEqual(runner.request_id, "one")

    def test_requests_are_counted_by_route_and_status_and_timed_by_step(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(), FakeRunner())))
        for body in ({"image_b64": CAT}, {"image_b64": "!"}):
            requests.post(f"{url}/predict", json=body, timeout=5)
        requests.get(f"{url}/no/such/{'path' * 9}", timeout=5)
        text = requests.get(f"{url}/metrics", timeout=5).text
        for line in (
            'catdog_requests_total{route="/predict",status="200"} 1.0',
            'catdog_requests_total{route="/predict",status="400"} 1.0',
            'catdog_requests_total{route="none",status="404"} 1.0',
            'catdog_failures_total{code="invalid_base64"} 1.0',
            *(
                f'catdog_stage_duration_seconds_count{{stage="{stage}"}} {n}.0'
                for stage, n in (("model", 1), ("total", 2))
            ),
            f"catdog_photo_bytes_sum {len(CAT) + 1}.0",
            'catdog_predictions_total{label="DOG"} 1.0',
            "catdog_model_version 3.0",
            f'catdog_build_info{{model="CAT-DOG",version="{metrics.VERSION}"}} 1.0',
            "process_start_time_seconds ",
        ):
            with self.subTest(line):
                self.assertIn(line, text)

    def test_what_is_at_work_and_what_waits_is_counted(self) -> None:
        runner = HeldRunner()
        limits = {"in_flight": 7, "decode_threads": 1}
        url = self.enterContext(serving(app_server.create_app(settings(**limits), runner)))
        with ThreadPoolExecutor(1) as senders:
            held = senders.submit(requests.post, f"{url}/predict", json={"image_b64": CAT})
            self.assertTrue(runner.wait_for(1))
            text = requests.get(f"{url}/metrics", timeout=5).text
            runner.release()
            held.result()
        for name, value in (("in_flight", 1), ("concurrency_limit", 7), ("concurrency", 1), ("queue_length", 0)):
            with self.subTest(name):
                self.assertIn(f"catdog_{name} {value}.0", text)
        self.assertRegex(text, "catdog_buffered_bytes [1-9]")
        text = requests.get(f"{url}/metrics", timeout=5).text
        for name in ("in_flight", "concurrency", "queue_length", "buffered_bytes"):
            with self.subTest(name):
                self.assertIn(f"catdog_{name} 0.0", text)

    def test_a_scrape_finds_the_state_of_the_model_server_though_nobody_asked_before(self) -> None:
        for state, expected in ((3, 1), (errors.ModelUnavailable(), 0)):
            with (
                self.subTest(expected=expected),
                serving(app_server.create_app(settings(), runner := FakeRunner())) as url,
            ):
                runner.state = state
                text = requests.get(f"{url}/metrics", timeout=5).text
                self.assertIn(f"catdog_model_ready {expected}.0", text)

    def test_the_runner_is_opened_and_closed_with_the_app(self) -> None:
        runner = FakeRunner()
        with serving(app_server.create_app(settings(), runner)):
            self.assertTrue(runner.opened)
        self.assertTrue(runner.closed)
