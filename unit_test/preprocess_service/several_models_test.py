"""Tests a service with several models, each with a fake runner: which one answers, what they share, what is told."""

import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import requests

from preprocess_service.app import app_server, config, errors
from preprocess_service.app.observability import readiness
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.server.admission import AdmissionController
from preprocess_service.app.server.connection_limits import ConnectionLimits
from preprocess_service.app.serving_client.model_version import not_there
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, HeldRunner
from unit_test.preprocess_service.http_server import serving

NAMES = ("CAT-DOG", "BIRDS")
BODY = {"image_b64": CAT}
UNAVAILABLE = errors.ModelUnavailable("model_not_there", name="BIRDS")


class SeveralModelsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.serve(FakeRunner(), FakeRunner())

    def serve(self, *runners: FakeRunner, **limits: Any) -> None:
        loaded = config.load_config({"MODEL_NAME": ",".join(NAMES)})
        loaded = loaded.model_copy(update={"limits": loaded.limits.model_copy(update=limits)})
        self.runners = dict(zip(NAMES, runners, strict=True))
        # The second model's answer: CAT; the first one's: DOG.
        runners[1].answer = 0.875
        first, *others = runners
        self.url = self.enterContext(serving(app_server.create_app(loaded, first, others=others)))

    def post(self, path: str, body: Any = BODY, **headers: str) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)

    def get(self, path: str, **headers: str) -> Any:
        return requests.get(f"{self.url}{path}", headers=headers, timeout=60)

    def ready(self) -> tuple[int, set[str], set[str], set[str]]:
        with mock.patch.object(readiness, "FRESH_SECONDS", 0):
            response = self.get("/readyz")
        answer = response.json()
        # On a slow machine, the decoders may start too late for the check.
        failing = set(answer["failing"]) - {"process"}
        return response.status_code, set(answer["ok"]), failing, set(answer.get("warnings", ()))

    def test_the_path_says_which_model_answers_and_the_first_one_answers_without_a_name(self) -> None:
        for path, name, label in (
            ("/predict", "CAT-DOG", "DOG"),
            ("/cat-dog_classification", "CAT-DOG", "DOG"),
            ("/models/CAT-DOG/predict", "CAT-DOG", "DOG"),
            ("/models/BIRDS/predict", "BIRDS", "CAT"),
            ("/models/BIRDS/predict/", "BIRDS", "CAT"),
            ("/models/%42IRDS/predict", "BIRDS", "CAT"),
        ):
            with self.subTest(path):
                answer = self.post(path).json()
                self.assertEqual((answer["model"], answer["label"]), ({"name": name, "version": 3}, label))
        batch = self.post("/models/BIRDS/predict/batch", {"images_b64": [CAT, "?"]}).json()["predictions"]
        self.assertEqual((batch[0]["model"]["name"], batch[0]["label"], batch[1]["status"]), ("BIRDS", "CAT", "Failed"))

    def test_an_unknown_model_is_refused_with_those_that_exist(self) -> None:
        for method, path in (("POST", "/predict"), ("POST", "/predict/batch"), ("GET", "/model")):
            for language, words in (("en", "no model FISH; it has"), ("pt", "não tem o modelo FISH; ele tem")):
                with self.subTest(path, language=language):
                    headers = {"Accept-Language": language}
                    response = requests.request(method, f"{self.url}/models/FISH{path}", headers=headers, timeout=60)
                    self.assertEqual((response.status_code, response.json()["code"]), (404, "not_found"))
                    self.assertIn(f"{words}: CAT-DOG, BIRDS.", response.json()["msg"])
        self.assertLess(len(self.get(f"/models/{'x' * 10_000}/model").text), 1000)

    def test_the_document_has_their_names(self) -> None:
        paths = self.get("/openapi.json").json()["paths"]
        for path, item in paths.items():
            for operation in item.values():
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] == "model":
                        with self.subTest(path):
                            self.assertEqual(parameter["schema"]["enum"], list(NAMES))

    def test_each_model_is_listed_and_described(self) -> None:
        expected = [{"name": "CAT-DOG", "version": 3}, {"name": "BIRDS", "version": 3}]
        self.assertEqual(self.get("/models").json(), {"models": expected})
        self.assertEqual(self.get("/model").json()["name"], "CAT-DOG")
        for path in ("/models/BIRDS/model", "/models/BIRDS/model/"):
            with self.subTest(path):
                self.assertEqual(self.get(path).json()["name"], "BIRDS")
        self.assertEqual(self.get("/models/BIRDS/model/golden/none.jpg").status_code, 404)

    def test_a_model_without_a_version_is_listed_with_the_reason(self) -> None:
        self.runners["BIRDS"].state = UNAVAILABLE
        for language in ("en", "pt"):
            with self.subTest(language):
                listed = self.get("/models", **{"Accept-Language": language}).json()["models"]
                self.assertEqual(listed[0], {"name": "CAT-DOG", "version": 3})
                self.assertEqual(listed[1], {"name": "BIRDS", "msg": UNAVAILABLE.text(language)})  # type: ignore[arg-type]

    def test_it_is_not_ready_before_each_model_was_and_then_while_one_is(self) -> None:
        checks = {name: {f"{name}/{check}" for check in ("model", "golden", "prediction")} for name in NAMES}
        self.runners["BIRDS"].state = UNAVAILABLE
        self.assertEqual(self.ready()[:3:2], (503, {"BIRDS/model"}))
        self.runners["BIRDS"].state = 3
        end = time.monotonic() + 60
        while self.ready()[0] != 200:
            self.assertLess(time.monotonic(), end)
        self.assertEqual(self.ready()[1] - {"process"}, checks["CAT-DOG"] | checks["BIRDS"])
        self.runners["BIRDS"].state = UNAVAILABLE
        status, passed, failing, warnings = self.ready()
        self.assertEqual((status, failing, warnings), (200, set(), {"BIRDS/model"}))
        self.assertEqual(passed - {"process"}, checks["CAT-DOG"])
        self.assertEqual(self.post("/predict").status_code, 200)
        self.assertEqual(self.post("/models/BIRDS/predict").json()["code"], "model_unavailable")
        self.runners["CAT-DOG"].state = UNAVAILABLE
        # A photo was answered a moment ago, but the model server itself says that there is no version.
        self.assertEqual(self.ready()[0], 503)

    def test_the_metrics_tell_the_models_apart(self) -> None:
        for path in ("/predict", "/models/BIRDS/predict", "/models/BIRDS/predict"):
            self.post(path)
        text = self.get("/metrics").text
        for line in (
            'catdog_predictions_total{label="DOG",model="CAT-DOG"} 1.0',
            'catdog_predictions_total{label="CAT",model="BIRDS"} 2.0',
            'catdog_model_ready{model="BIRDS"} 1.0',
            'catdog_model_version{model="CAT-DOG"} 3.0',
            'catdog_second_looks_total{model="BIRDS",result="kept"} 0.0',
            'catdog_requests_total{route="/models/{model}/predict",status="200"} 2.0',
        ):
            with self.subTest(line):
                self.assertIn(f"\n{line}\n", text)

    def test_the_log_names_the_model_of_the_path(self) -> None:
        with self.assertLogs("request", "INFO") as log:
            self.post("/models/BIRDS/predict")
            self.post("/models/FISH/predict")
            self.post("/predict")
            # The last line is written after the answer.
            self.get("/models")
        self.assertEqual([getattr(record, "model", None) for record in log.records][:3], ["BIRDS", None, None])

    def test_if_the_model_server_has_other_models_all_of_them_are_named(self) -> None:
        details = "Could not find any versions of model M; served here: CAT-DOG, BIRDS"
        self.assertIn("it serves CAT-DOG, BIRDS.", str(not_there("M", details)))

    def test_they_share_one_limit_of_photos_in_flight(self) -> None:
        held = HeldRunner()
        self.serve(held, FakeRunner(), in_flight=2)
        with ThreadPoolExecutor(2) as senders:
            waiting = [senders.submit(self.post, "/predict") for _ in range(2)]
            self.assertTrue(held.wait_for(2))
            for path, body in (("/predict", BODY), ("/predict/batch", {"images_b64": [CAT]})):
                with self.subTest(path):
                    answer = self.post(f"/models/BIRDS{path}", body)
                    self.assertEqual((answer.status_code, answer.json()["code"]), (503, "overloaded"))
            held.release()
            self.assertEqual([one.result().status_code for one in waiting], [200, 200])
        text = self.get("/metrics").text
        self.assertIn('catdog_requests_total{route="/models/{model}/predict",status="503"} 1.0', text)
        self.assertNotIn('catdog_predictions_total{label="CAT",model="BIRDS"}', text)

    def test_a_photo_for_one_of_them_may_be_rejected_at_its_headers(self) -> None:
        loaded, counted = config.load_config({"MODEL_NAME": "A,B C", "SERVICE_ROOT_PATH": "/up"}), Metrics()
        limits = ConnectionLimits(loaded, AdmissionController(loaded.limits, counted), counted)
        for url, route in (
            (b"/models/A/predict", "/models/{model}/predict"),
            (b"/up/models/A/predict/?top_k=2", "/models/{model}/predict"),
            (b"/models/B%20C/predict/batch", "/models/{model}/predict/batch"),
            (b"/predict", "/predict"),
            (b"/models/FISH/predict", None),
            (b"/models/A/cat-dog_classification", None),
        ):
            with self.subTest(url):
                self.assertEqual(limits.route(url), route)

    def test_they_share_the_photos_that_may_be_prepared(self) -> None:
        held = HeldRunner()
        self.serve(held, FakeRunner(), prepared=1)
        with ThreadPoolExecutor(1) as senders:
            first = senders.submit(self.post, "/predict")
            self.assertTrue(held.wait_for(1))
            answer = self.post("/models/BIRDS/predict", **{"X-Request-Timeout-Ms": "300"})
            self.assertEqual((answer.status_code, answer.json()["code"]), (504, "deadline_exceeded"))
            held.release()
            self.assertEqual(first.result().status_code, 200)
        self.assertEqual(self.post("/models/BIRDS/predict").status_code, 200)

    def test_the_page_of_each_model_has_its_routes_and_links_to_the_others(self) -> None:
        for query, name, title in (
            ("", "CAT-DOG", "Cat or dog"),
            ("?model=CAT-DOG", "CAT-DOG", "Cat or dog"),
            ("?model=BIRDS", "BIRDS", "BIRDS"),
        ):
            with self.subTest(query):
                text = self.get(f"/{query}").text
                self.assertIn(f'data-routes="models/{name}/"', text)
                self.assertIn(f"<title>{title}", text)
                self.assertIn(f'<a href="?model={name}" aria-current="page">{name}</a>', text)
                self.assertEqual(text.count('<a href="?model='), len(NAMES))
        answer = self.get("/?model=FISH")
        self.assertEqual((answer.status_code, answer.json()["code"]), (404, "not_found"))


class OneModelTest(unittest.TestCase):
    def test_nothing_of_its_checks_metrics_and_page_tells_of_several(self) -> None:
        url = self.enterContext(serving(app_server.create_app(config.load_config({}), FakeRunner())))
        self.assertEqual(requests.post(f"{url}/models/CAT-DOG/predict", json=BODY, timeout=60).status_code, 200)
        listed = requests.get(f"{url}/models", timeout=60).json()
        self.assertEqual(listed, {"models": [{"name": "CAT-DOG", "version": 3}]})
        text = requests.get(f"{url}/metrics", timeout=60).text
        for line in ("catdog_model_ready 1.0", 'catdog_predictions_total{label="DOG"} 1.0', "catdog_model_version 3.0"):
            with self.subTest(line):
                self.assertIn(f"\n{line}\n", text)
        checks = {*requests.get(f"{url}/readyz", timeout=60).json()["ok"], "process"}
        self.assertEqual(checks, {"process", "model", "golden", "prediction"})
        page = requests.get(f"{url}/?model=FISH", timeout=60).text
        self.assertNotIn("?model=", page)
        self.assertNotIn("data-routes", page)


if __name__ == "__main__":
    unittest.main()
