"""Tests that real processes send their traces to a real collector, if the environment names one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import requests
from PIL import Image

from unit_test.otlp_collector import Collector, Span, collecting
from unit_test.preprocess_service.formats_test import save
from unit_test.processes import APP_SERVER, Running, answers, free_port, model_server, running
from unit_test.utils import IMAGES

TIMEOUT_S = 30
MODEL = Path(__file__).parents[2] / "prev_trained_models" / "CAT-DOG"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PHOTO = (IMAGES / "cat_1.jpg").read_bytes()
# A short delay, so that the tests do not wait for the spans.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


def unsure() -> bytes:
    """Return a JPEG of a cat beside a dog: the model is not sure of it."""
    both = Image.new("RGB", (400, 400))
    for number, name in enumerate(("cat_1.jpg", "dog_2.jpg")):
        with Image.open(IMAGES / name) as photo:
            both.paste(photo.convert("RGB").resize((200, 400)), (200 * number, 0))
    return save(both, "JPEG")


@contextmanager
def app_server(model_port: int, environment: dict[str, str], *options: str) -> Iterator[tuple[str, Running]]:
    """Run a preprocess service; yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = {"SERVICE_PORT": str(port), "SERVICE_MODEL_HOST": "127.0.0.1", "SERVICE_MODEL_PORT": str(model_port)}
    with running(
        [sys.executable, *options, str(APP_SERVER)], lambda: answers(f"{url}/livez"), env=place | environment
    ) as it:
        yield url, it


def ask(url: str, data: bytes = PHOTO, **headers: str) -> requests.Response:
    headers = {"Content-Type": "image/jpeg"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{url}/predict", data=data, headers=headers, timeout=TIMEOUT_S)


def named(spans: list[Span], name: str) -> Span:
    (span,) = [span for span in spans if span.name == name]
    return span


class PreprocessServiceTest(unittest.TestCase):
    """A service without a model server: failures are in the trace too."""

    def trace(self, collector: Collector, url: str, **headers: str) -> list[Span]:
        self.assertEqual(ask(url, **headers).status_code, 503)
        return collector.wait_for(lambda spans: any(span.name == "POST /predict" for span in spans))

    def test_a_request_that_fails_is_a_span_that_says_of_what(self) -> None:
        with (
            collecting() as collector,
            app_server(free_port(), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | SOON) as (
                url,
                _,
            ),
        ):
            spans = self.trace(collector, url, X_Request_ID="one")
        request = named(spans, "POST /predict")
        self.assertEqual((request.kind, request.service, request.parent), ("SERVER", "preprocess_service", ""))
        self.assertEqual(
            request.attributes,
            {
                "http.request.method": "POST",
                "http.route": "/predict",
                "http.response.status_code": 503,
                "error.type": "model_unavailable",
                "request_id": "one",
            },
        )
        self.assertTrue(request.is_error)
        # How photos are prepared is not known without a model.
        self.assertEqual({span.name for span in spans if span.trace == request.trace}, {"POST /predict", "read"})

    def test_the_standard_variables_are_followed(self) -> None:
        environment = {"OTEL_SERVICE_NAME": "cats", "OTEL_TRACES_SAMPLER": "parentbased_always_off"} | SOON
        with collecting() as collector:
            environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = collector.url
            with app_server(free_port(), environment) as (url, it):
                ask(url)
                spans = self.trace(collector, url, traceparent=f"00-{TRACE}-{CALLER}-01")
                self.assertEqual({(span.service, span.trace) for span in spans}, {("cats", TRACE)})
                self.assertEqual(named(spans, "POST /predict").parent, CALLER)
                self.assertIn(f'"trace_id": "{TRACE}"', it.output())

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM")
    def test_what_is_left_is_sent_at_the_end(self) -> None:
        late = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
        with collecting() as collector:
            with app_server(free_port(), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | late) as (url, it):
                ask(url)
                it.process.send_signal(signal.SIGTERM)
                it.process.wait(TIMEOUT_S)
            self.assertIn("POST /predict", [span.name for span in collector.spans])

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM")
    def test_without_its_collector_it_answers_and_ends_all_the_same(self) -> None:
        for name, endpoint in (("nobody there", f"http://127.0.0.1:{free_port()}"), ("no address", "://:::")):
            with (
                self.subTest(name),
                app_server(free_port(), {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} | SOON) as (url, it),
            ):
                self.assertEqual(ask(url).status_code, 503)
                time.sleep(0.2)
                began = time.monotonic()
                it.process.send_signal(signal.SIGTERM)
                it.process.wait(TIMEOUT_S)
                # By default the exporter retries for 10 s, and the SDK waits 30 s for its queue.
                self.assertLess(time.monotonic() - began, 9)

    def test_a_protocol_that_is_not_built_in_is_told_and_does_no_harm(self) -> None:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        with app_server(free_port(), environment) as (url, it):
            self.assertEqual(ask(url).status_code, 503)
            self.assertIn("http/protobuf", it.output())

    def test_unless_asked_for_nothing_of_it_is_even_imported(self) -> None:
        for name, environment in (
            ("no endpoint", {}),
            ("switched off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}),
            ("no exporter", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}),
        ):
            with self.subTest(name), app_server(free_port(), environment, "-X", "importtime") as (url, it):
                ask(url)
                imported = set(re.findall(r"import time:.*\| +(\S+)", it.output()))
                self.assertIn("preprocess_service.app.middleware.request_context", imported)
                # opentelemetry-api is imported in any case, by FastAPI.
                parts = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")
                self.assertEqual([name for name in imported if name.startswith(parts)], [])


class PairTest(unittest.TestCase):
    """Both services: one trace includes both."""

    collector: Collector
    model_server: Running
    url: str
    app_server: Running

    @classmethod
    def setUpClass(cls) -> None:
        cls.collector = cls.enterClassContext(collecting())
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": cls.collector.url} | SOON
        cls.enterClassContext(mock.patch.dict(os.environ, environment))
        server = cls.model_server = cls.enterClassContext(model_server(MODEL, "CAT-DOG"))
        cls.url, cls.app_server = cls.enterClassContext(app_server(server.grpc_port, {}))

    def setUp(self) -> None:
        # Each test waits for the spans that end last, so no span arrives later.
        self.collector.spans.clear()

    def both(self, spans: list[Span]) -> bool:
        names = {(span.service, span.name) for span in spans}
        return {("preprocess_service", "POST /predict"), ("model_service", "Predict")} <= names

    def test_one_trace_goes_through_both_services_with_the_right_parents(self) -> None:
        answer = ask(self.url, traceparent=f"00-{TRACE}-{CALLER}-01", X_Request_ID="one")
        self.assertEqual(answer.status_code, 200)
        spans = self.collector.wait_for(self.both)
        self.assertEqual({span.trace for span in spans}, {TRACE})
        front = [span for span in spans if span.service == "preprocess_service"]
        back = [span for span in spans if span.service == "model_service"]
        request, stage, call = named(front, "POST /predict"), named(front, "model"), named(front, "Predict")
        served, queue, compute = named(back, "Predict"), named(back, "queue"), named(back, "compute")
        self.assertEqual(
            [span.parent for span in (request, stage, call, served, queue, compute)],
            [CALLER, request.id, stage.id, call.id, served.id, served.id],
        )
        self.assertEqual((call.kind, served.kind, compute.kind), ("CLIENT", "SERVER", "INTERNAL"))
        self.assertTrue(served.start <= queue.start <= queue.end <= compute.end <= served.end, back)
        self.assertFalse([span for span in spans if span.is_error])
        attributes = served.attributes
        self.assertEqual((attributes["request_id"], attributes["model.name"]), ("one", "CAT-DOG"))
        (version,) = MODEL.glob("[0-9]*")
        self.assertEqual((attributes["model.version"], attributes["model.batch_size"]), (int(version.name), 1))

    def test_a_request_is_a_span_with_one_for_each_step(self) -> None:
        ask(self.url)
        front = [span for span in self.collector.wait_for(self.both) if span.service == "preprocess_service"]
        request = named(front, "POST /predict")
        for name in ("read", "queue", "decode", "resize", "model"):
            with self.subTest(name):
                stage = named(front, name)
                self.assertEqual((stage.parent, stage.trace, stage.kind), (request.id, request.trace, "INTERNAL"))
                self.assertTrue(request.start <= stage.start <= stage.end <= request.end, stage)

    def test_a_second_look_is_one_more_span_and_its_steps_are_in_it(self) -> None:
        answer = ask(self.url, unsure())
        self.assertEqual(answer.json()["looks"], 2)
        front = [span for span in self.collector.wait_for(self.both) if span.service == "preprocess_service"]
        request, again = named(front, "POST /predict"), named(front, "second_look")
        self.assertEqual((again.parent, again.is_error), (request.id, False))
        for name in ("decode", "resize", "model"):
            with self.subTest(name):
                first, second = sorted((span for span in front if span.name == name), key=lambda span: span.start)
                self.assertLessEqual(first.end, again.start)
                self.assertTrue(again.start <= second.start <= second.end <= again.end)
                self.assertEqual(second.parent, request.id)
        calls = sorted(span.parent for span in front if span.name == "Predict")
        self.assertEqual(calls, sorted(span.id for span in front if span.name == "model"))

    def test_a_sender_s_mistake_is_no_error_of_the_service(self) -> None:
        ask(self.url, b"no photo", traceparent="nonsense")
        spans = self.collector.wait_for(lambda spans: any(span.name == "POST /predict" for span in spans))
        request = named(spans, "POST /predict")
        self.assertEqual((request.is_error, request.attributes["error.type"]), (False, "invalid_image"))
        self.assertTrue(named(spans, "decode").is_error)

    def test_both_logs_name_the_request_and_its_trace(self) -> None:
        ask(self.url, X_Request_ID="one")
        (trace,) = {span.trace for span in self.collector.wait_for(self.both)}
        for service in (self.app_server, self.model_server):
            lines = [line for line in map(json.loads, service.output().splitlines()) if "request_id" in line]
            self.assertIn(("one", trace), [(line["request_id"], line.get("trace_id")) for line in lines])

    def test_a_trace_that_its_caller_does_not_record_and_probes_are_in_neither(self) -> None:
        ask(self.url, traceparent=f"00-{TRACE}-{CALLER}-00")
        end = time.monotonic() + TIMEOUT_S
        while requests.get(f"{self.url}/readyz", timeout=TIMEOUT_S).status_code != 200:
            self.assertLess(time.monotonic(), end)
        ask(self.url)
        spans = self.collector.wait_for(self.both)
        self.assertEqual(len({span.trace for span in spans}), 1)
        self.assertNotIn(TRACE, {span.trace for span in spans})

    def test_a_call_for_several_photos_names_the_steps_that_share_it(self) -> None:
        files = [("file", ("cat.jpg", PHOTO))] * 8

        def all_there(spans: list[Span]) -> bool:
            served = [span for span in spans if span.kind == "SERVER" and span.service == "model_service"]
            is_answered = any(span.name == "POST /predict/batch" for span in spans)
            return is_answered and sum(span.attributes["model.batch_size"] for span in served) == len(files)

        requests.post(f"{self.url}/predict/batch", files=files, timeout=TIMEOUT_S).raise_for_status()
        spans = self.collector.wait_for(all_there)
        request = named(spans, "POST /predict/batch")
        self.assertEqual({span.parent for span in spans if span.name == "decode"}, {request.id})
        calls = [span for span in spans if span.name == "Predict" and span.kind == "CLIENT"]
        served = [span for span in spans if span.name == "Predict" and span.kind == "SERVER"]
        self.assertEqual(sorted(span.parent for span in served), sorted(call.id for call in calls))
        sharing = [stage for call in calls for stage in (call.parent, *call.links)]
        self.assertEqual(sorted(sharing), sorted(span.id for span in spans if span.name == "model"))
        sizes = {span.parent: span.attributes["model.batch_size"] for span in served}
        self.assertEqual({call.id: 1 + len(call.links) for call in calls}, sizes)


class SharedCallTest(unittest.TestCase):
    """A call for several requests, some of which are not sampled."""

    def test_it_stands_in_the_first_trace_that_is_recorded(self) -> None:
        recorded, unrecorded = (f"00-{TRACE}-{CALLER}-{flags}" for flags in ("01", "00"))
        for name, requests_, expected in (
            ("all", (recorded, recorded), "01"),
            ("the second", (unrecorded, recorded), "01"),
            ("none", (unrecorded, unrecorded), "00"),
            ("a probe", (), "00"),
        ):
            with self.subTest(name):
                program = (
                    "import os, sys; from preprocess_service.app.observability.tracing import open_tracing\n"
                    "tracing = open_tracing(os.environ); stages = []\n"
                    "for parent in sys.argv[1:]:\n"
                    "    with tracing.request({'traceparent': parent}).stage('model'):\n"
                    "        stages.append(tracing.current_stage())\n"
                    "with tracing.client_call('Predict', stages) as metadata: print(dict(metadata)['traceparent'])"
                )
                done = subprocess.run(
                    [sys.executable, "-c", program, *requests_],
                    cwd=APP_SERVER.parents[2],
                    env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=TIMEOUT_S,
                )
                _, trace, _, flags = done.stdout.strip().split("-")
                self.assertEqual((flags, trace == TRACE), (expected, bool(requests_)))


class ModelServerTest(unittest.TestCase):
    def test_unless_asked_for_nothing_of_it_is_even_imported(self) -> None:
        with mock.patch.dict(os.environ, {"PYTHONPROFILEIMPORTTIME": "1"}), model_server(MODEL, "CAT-DOG") as server:
            imported = set(re.findall(r"import time:.*\| +(\S+)", server.output()))
        self.assertIn("model_service.prediction.predict", imported)
        tracing = ("opentelemetry", "model_service.observability.tracing")
        self.assertEqual([name for name in imported if name.startswith(tracing)], [])

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM")
    def test_without_its_collector_it_answers_and_ends_all_the_same(self) -> None:
        nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"} | SOON
        with mock.patch.dict(os.environ, nobody), model_server(MODEL, "CAT-DOG") as server:
            metadata = requests.get(f"{server.url}/v1/models/CAT-DOG/metadata", timeout=TIMEOUT_S).json()["metadata"]
            shape = metadata["signature_def"]["signature_def"]["serving_default"]["inputs"]["image"]["tensor_shape"]
            height, width, _ = (int(side["size"]) for side in shape["dim"][1:])
            body = {"instances": [[[[0.0] * 3] * width] * height]}
            url = f"{server.url}/v1/models/CAT-DOG:predict"
            self.assertEqual(requests.post(url, json=body, timeout=TIMEOUT_S).status_code, 200)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(TIMEOUT_S), 0)
            self.assertLess(time.monotonic() - began, 9)


if __name__ == "__main__":
    unittest.main()
