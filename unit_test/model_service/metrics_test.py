"""Tests that the monitoring config is TensorFlow Serving's text proto, and how requests are counted."""

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
        page: str = self.monitoring.page(executor.InferenceExecutor(1, 1), served or servables.Servables(), ready)
        return page.splitlines()

    def count(self, error: BaseException | None) -> str:
        """Return the one line of the metrics that counts a request which ends with this error."""
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
                self.assertEqual(line, f':tensorflow:serving:request_count{{model_name="M",status="{status}"}} 1.0')

    def test_only_what_is_answered_well_is_timed(self) -> None:
        self.count(errors.not_found("no"))
        self.assertFalse([line for line in self.page() if line.startswith(":tensorflow:serving:request_latency")])
        with self.monitoring.request("M", "Predict", "GRPC"):
            pass
        labels = 'API="Predict",entrypoint="GRPC",{}model_name="M"'
        page = self.page()
        self.assertIn(f":tensorflow:serving:request_latency_count{{{labels.format('')}}} 1.0", page)
        buckets = [line for line in page if line.startswith(":tensorflow:serving:request_latency_bucket")]
        self.assertEqual(len(buckets), 34)
        for number, limit in ((1, "18.0"), (2, "32.4"), (4, "104.976")):
            bucket = labels.format(f'le="{limit}",')
            name = f":tensorflow:serving:request_latency_bucket{{{bucket}}}"
            self.assertTrue(buckets[number].startswith(name), buckets[number])
        self.assertTrue(buckets[-1].endswith('le="+Inf",model_name="M"} 1.0'))

    def test_warm_ups_are_timed_by_how_they_end(self) -> None:
        with self.monitoring.warmup(Path("1")):
            pass
        with self.assertRaises(errors.StartError), self.monitoring.warmup(Path("2")):
            raise errors.StartError("broken")
        for path, status in (("1", "OK"), ("2", "FAILED_PRECONDITION")):
            labels = f'model_path="{path}",status="{status}"'
            self.assertIn(f":tensorflow:serving:model_warmup_latency_count{{{labels}}} 1.0", self.page())

    def test_it_is_described_by_tensorflow_servings_name_and_type(self) -> None:
        self.count(None)
        page = self.page()
        self.assertIn("# TYPE :tensorflow:serving:request_count counter", page)
        self.assertIn("# TYPE :tensorflow:serving:request_latency histogram", page)
        self.assertIn("# TYPE model_server_rejected_total counter", page)
        self.assertFalse([line for line in page if "request_count_total" in line or "_created" in line])

    def test_what_would_end_a_label_is_escaped(self) -> None:
        with self.monitoring.request('a"b\\c\nd', "Predict", "GRPC"):
            pass
        self.assertIn(r':tensorflow:serving:request_count{model_name="a\"b\\c\nd",status="OK"} 1.0', self.page())

    def test_a_name_of_a_model_does_not_become_another_metric(self) -> None:
        name = "\n# TYPE :tensorflow:serving:request_count_total counter"
        with self.monitoring.request(name, "Predict", "GRPC"):
            pass
        self.assertEqual(len([line for line in self.page() if "request_count{" in line]), 1)
        self.assertIn("# TYPE :tensorflow:serving:request_count counter", self.page())

    def test_made_up_names_share_a_series_in_the_end(self) -> None:
        """Otherwise a client could fill the memory with made-up names."""

        def ask(name: str) -> None:
            with self.assertRaises(errors.ServingError), self.monitoring.request(name, "Predict", "GRPC"):
                raise errors.not_found("no")

        for number in range(metrics.MAX_SERIES + 50):
            ask(f"made up {number}")
        ask("made up 0")
        lines = [line for line in self.page() if line.startswith(":tensorflow:serving:request_count")]
        self.assertEqual(len(lines), metrics.MAX_SERIES + 1)
        self.assertEqual(lines[-1], ':tensorflow:serving:request_count{model_name="(others)",status="NOT_FOUND"} 50.0')
        self.assertEqual(lines[0], ':tensorflow:serving:request_count{model_name="made up 0",status="NOT_FOUND"} 2.0')

    def test_each_bucket_counts_what_is_not_larger_than_its_limit(self) -> None:
        for seconds in (0.0001, 0.001, 0.0011, 0.3, 1e6):
            self.monitoring.waited(seconds)
        page = self.page()
        for limit, count in (("0.0001", 1), ("0.001", 2), ("0.0025", 3), ("0.25", 3), ("0.5", 4), ("+Inf", 5)):
            self.assertIn(f'model_server_queue_seconds_bucket{{le="{limit}"}} {count}.0', page)
        self.assertIn("model_server_queue_seconds_count 5.0", page)
        (total,) = [line for line in page if line.startswith("model_server_queue_seconds_sum")]
        self.assertAlmostEqual(float(total.split()[-1]), 1000000.3022)

    def test_the_wait_in_the_queue_is_counted_in_seconds(self) -> None:
        self.monitoring.waited(0.02)
        page = self.page()
        self.assertIn('model_server_queue_seconds_bucket{le="0.01"} 0.0', page)
        self.assertIn('model_server_queue_seconds_bucket{le="0.025"} 1.0', page)

    def test_attempts_to_load_a_version_that_fail_are_counted(self) -> None:
        served = servables.Servables()
        for code, failures_so_far in (
            (StatusCode.OK, 0),
            (StatusCode.DATA_LOSS, 1),
            (StatusCode.CANCELLED, 1),
            (StatusCode.DATA_LOSS, 2),
        ):
            served.set_status("M", servables.VersionStatus(2, servables.END, code))
            line = f'model_server_load_failures_total{{model_name="M"}} {failures_so_far}.0'
            self.assertIn(line, self.page(served))


if __name__ == "__main__":
    unittest.main()
