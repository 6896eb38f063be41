"""A monitoring config is TensorFlow Serving's text proto, and requests count by how they end."""

import asyncio
import tempfile
import unittest
from pathlib import Path
from typing import Any

from grpc import StatusCode

from model_service import errors
from model_service.models import servables
from model_service.observability import metrics
from model_service.prediction import executor


class ReadPathTest(unittest.TestCase):
    def read(self, text: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "monitoring.config")
            file.write_text(text)
            return metrics.read_path(str(file))

    def test_only_an_enabled_config_asks_for_metrics(self) -> None:
        cases = {
            'prometheus_config { enable: true, path: "/metrics" }': "/metrics",
            'prometheus_config: {\n  enable: true\n  path: "/metrics"  # here\n}': "/metrics",
            "prometheus_config { enable: true }": "/monitoring/prometheus/metrics",
            'prometheus_config { enable: false, path: "/metrics" }': None,
            'prometheus_config { path: "/metrics" }': None,
            "": None,
        }
        for text, path in cases.items():
            with self.subTest(text):
                self.assertEqual(self.read(text), path)
        self.assertIsNone(metrics.read_path(""))

    def test_what_is_no_config_stops_the_start_in_one_line(self) -> None:
        for text in ("prometheus_config { enabled: true }", "prometheus: yes", "{", "prometheus_config { enable: 7 }"):
            with (
                self.subTest(text),
                self.assertRaisesRegex(errors.StartError, "^--monitoring_config_file=[^\\n]*\\Z"),
            ):
                self.read(text)
        with self.assertRaisesRegex(errors.StartError, "No such file"):
            metrics.read_path("/no/such/file")

    def test_a_path_that_no_request_can_name_stops_the_start(self) -> None:
        with self.assertRaisesRegex(errors.StartError, "must begin with a slash"):
            self.read('prometheus_config { enable: true, path: "metrics" }')


class RequestTest(unittest.TestCase):
    def setUp(self) -> None:
        self.monitoring = metrics.Monitoring()

    def page(self, served: Any = None) -> list[str]:
        ready: Any = type("AlwaysReady", (), {"failing": lambda self: ""})()
        page: str = self.monitoring.page(executor.Workers(1, 1), served or servables.Servables(), ready)
        return page.splitlines()

    def count(self, error: BaseException | None) -> str:
        """Return the one line that counts a request which ends with this error."""
        try:
            with self.monitoring.request("M", "Predict", "GRPC"):
                if error:
                    raise error
        except BaseException as exc:
            self.assertIs(exc, error, "it is counted, not caught")
        (line,) = [line for line in self.page() if line.startswith(":tensorflow:serving:request_count")]
        return line

    def test_a_request_counts_by_how_it_ends(self) -> None:
        cases: dict[str, BaseException | None] = {
            "OK": None,
            "NOT_FOUND": errors.not_found("no"),
            "UNAVAILABLE": errors.unavailable("full"),
            "CANCELLED": asyncio.CancelledError(),
            "INTERNAL": ZeroDivisionError(),
        }
        for status, error in cases.items():
            self.monitoring = metrics.Monitoring()
            with self.subTest(status):
                line = self.count(error)
                self.assertEqual(line, f':tensorflow:serving:request_count{{model_name="M",status="{status}"}} 1')

    def test_only_what_is_answered_well_is_timed(self) -> None:
        self.count(errors.not_found("no"))
        self.assertFalse([line for line in self.page() if line.startswith(":tensorflow:serving:request_latency")])
        with self.monitoring.request("M", "Predict", "GRPC"):
            pass
        labels = 'model_name="M",API="Predict",entrypoint="GRPC"'
        page = self.page()
        self.assertIn(f":tensorflow:serving:request_latency_count{{{labels}}} 1", page)
        buckets = [line for line in page if line.startswith(":tensorflow:serving:request_latency_bucket")]
        self.assertEqual(len(buckets), 34)
        self.assertTrue(buckets[1].startswith(f':tensorflow:serving:request_latency_bucket{{{labels},le="18"}}'))
        self.assertTrue(buckets[-1].endswith('le="+Inf"} 1'))

    def test_warm_ups_are_timed_by_how_they_end(self) -> None:
        with self.monitoring.warmup(Path("1")):
            pass
        with self.assertRaises(errors.StartError), self.monitoring.warmup(Path("2")):
            raise errors.StartError("broken")
        for path, status in (("1", "OK"), ("2", "FAILED_PRECONDITION")):
            labels = f'model_path="{path}",status="{status}"'
            self.assertIn(f":tensorflow:serving:model_warmup_latency_count{{{labels}}} 1", self.page())

    def test_the_wait_in_the_queue_is_counted_in_seconds(self) -> None:
        self.monitoring.waited(0.02)
        page = self.page()
        self.assertIn('model_server_queue_seconds_bucket{le="0.01"} 0', page)
        self.assertIn('model_server_queue_seconds_bucket{le="0.025"} 1', page)

    def test_attempts_to_load_a_version_that_fail_are_counted(self) -> None:
        served = servables.Servables()
        for code, failures_so_far in (
            (StatusCode.OK, 0),
            (StatusCode.DATA_LOSS, 1),
            (StatusCode.CANCELLED, 1),
            (StatusCode.DATA_LOSS, 2),
        ):
            served.report("M", servables.VersionStatus(2, servables.END, code))
            line = f'model_server_load_failures_total{{model_name="M"}} {failures_so_far}'
            self.assertIn(line, self.page(served))


if __name__ == "__main__":
    unittest.main()
