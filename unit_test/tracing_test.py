"""Real processes send their traces to a real collector, where the environment names one."""

import os
import re
import signal
import sys
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from otlp_collector import Collector, Span, collecting
from preprocess_service import FOLDER
from processes import Running, answers, free_port, running
from utils import IMAGES

TIMEOUT_S = 30
APP_SERVER = [sys.executable, str(FOLDER / "app_server.py")]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PHOTO = (IMAGES / "cat_1.jpg").read_bytes()
# Sent soon, so that a test needn't wait for it.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@contextmanager
def app_server(model_port: int, environment: dict[str, str], *options: str) -> Iterator[tuple[str, Running]]:
    """A preprocess service; gives its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = {"SERVICE_PORT": str(port), "SERVICE_MODEL_HOST": "127.0.0.1", "SERVICE_MODEL_PORT": str(model_port)}
    command = [APP_SERVER[0], *options, *APP_SERVER[1:]]
    with running(command, lambda: answers(f"{url}/livez"), env=place | environment) as it:
        yield url, it


def ask(url: str, data: bytes = PHOTO, **headers: str) -> requests.Response:
    headers = {"Content-Type": "image/jpeg"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{url}/predict", data=data, headers=headers, timeout=TIMEOUT_S)


def named(spans: list[Span], name: str) -> Span:
    (span,) = [span for span in spans if span.name == name]
    return span


class PreprocessServiceTest(unittest.TestCase):
    """Without a model server: what fails is in the trace too."""

    def trace(self, collector: Collector, url: str, **headers: str) -> list[Span]:
        self.assertEqual(ask(url, **headers).status_code, 503)
        return collector.wait_for(lambda spans: any(span.name == "POST /predict" for span in spans))

    def test_a_request_is_a_span_with_one_for_each_step_and_what_failed(self) -> None:
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
        steps = [named(spans, name) for name in ("read", "queue", "decode", "fit", "model")]
        for step in steps:
            with self.subTest(step.name):
                self.assertEqual((step.parent, step.trace, step.kind), (request.id, request.trace, "INTERNAL"))
                self.assertTrue(request.start <= step.start <= step.end <= request.end, step)
        self.assertEqual([step.name for step in steps if step.is_error], ["model"])
        call = named(spans, "GetModelMetadata")
        self.assertEqual((call.kind, call.parent, call.is_error), ("CLIENT", steps[-1].id, True))

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

    def test_a_sender_s_mistake_is_no_error_of_the_service(self) -> None:
        with (
            collecting() as collector,
            app_server(free_port(), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | SOON) as (
                url,
                _,
            ),
        ):
            ask(url, b"no photo", traceparent="nonsense")
            spans = collector.wait_for(lambda spans: any(span.name == "POST /predict" for span in spans))
        request = named(spans, "POST /predict")
        self.assertEqual((request.is_error, request.attributes["error.type"]), (False, "invalid_image"))
        self.assertTrue(named(spans, "decode").is_error)

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
                # Left alone the exporter would try for 10 s, and its queue be waited for 30.
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
                self.assertIn("edge", imported)
                # Not so the interfaces, opentelemetry-api: FastAPI imports them, whatever one says.
                parts = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "otlp")
                self.assertEqual([name for name in imported if name.startswith(parts)], [])


if __name__ == "__main__":
    unittest.main()
