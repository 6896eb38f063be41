"""Tests readiness under load: an overloaded pair is ready; one whose model server has ended is not, at once."""

import itertools
import os
import signal
import tempfile
import threading
import time
import unittest
from collections import Counter
from pathlib import Path

import requests
import yaml

from preprocess_service.app import config
from preprocess_service.app.observability import readiness
from unit_test.preprocess_service.tracing_test import app_server
from unit_test.processes import answers, model_server
from unit_test.utils import IMAGES

MODEL = Path(__file__).parents[2] / "prev_trained_models" / "CAT-DOG"
PHOTO = (IMAGES / "cat_1.jpg").read_bytes()
TIMEOUT_S = 30
SENDERS = 16
HEADERS = {"Content-Type": "image/jpeg", "X-Request-Timeout-Ms": "2000"}


class Senders:
    """Send photos without a pause, each from its own thread, and count the answers."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/predict"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        self.codes: Counter[str] = Counter()
        self._answered: list[float] = []
        self.has_answer = threading.Event()

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                answer = session.post(self._url, PHOTO, headers=HEADERS, timeout=TIMEOUT_S).json()
                self.codes[answer.get("code", "ok")] += 1
                if "code" not in answer:
                    self._answered.append(time.monotonic())
                    self.has_answer.set()

    def longest_gap(self) -> float:
        """Return the longest time in seconds without an answer, after the first one."""
        times = sorted(self._answered)
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=float("inf"))


class ReadinessUnderLoadTest(unittest.TestCase):
    def test_a_model_server_whose_queue_is_full_is_ready_as_long_as_it_answers_photos(self) -> None:
        # The queue is so short that most calls, also the probe's, find it full. Each photo is a call of its own.
        flags = ("--max_queued_requests=1", "--tensorflow_inter_op_parallelism=1")
        settings = yaml.safe_load(config.CONFIG_FILE.read_text("utf-8"))
        settings["model_server"] |= {"max_concurrent_batches": SENDERS, "batch_size": 1}
        file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "config.yaml"
        file.write_text(yaml.safe_dump(settings), "utf-8")
        with (
            model_server(MODEL, "CAT-DOG", *flags) as server,
            app_server(server.grpc_port, {"SERVICE_CONFIG": str(file)}) as (url, _),
        ):
            # The processes that decode photos have started.
            self.wait_for(200, url)
            with Senders(url) as senders:
                self.assertTrue(senders.has_answer.wait(TIMEOUT_S), senders.codes)
                seen = []
                for _ in range(40):
                    seen.append(requests.get(f"{url}/readyz", timeout=TIMEOUT_S).json()["failing"])
                    time.sleep(0.1)
        if senders.longest_gap() > readiness.BUSY_SECONDS:
            self.skipTest("this machine is so slow that it answers no photo for seconds")
        self.assertEqual([failing for failing in seen if failing], [])
        # This shows that the queue was full.
        self.assertGreater(senders.codes["model_unavailable"] + senders.codes["overloaded"], 0, senders.codes)

    def test_a_model_server_that_goes_away_under_load_is_told(self) -> None:
        with model_server(MODEL, "CAT-DOG") as server, app_server(server.grpc_port, {}) as (url, _):
            self.wait_for(200, url)
            with Senders(url):
                server.process.kill()
                server.process.wait()
                # The last check before the end is valid for a second.
                time.sleep(readiness.FRESH_SECONDS + 0.1)
                self.assertEqual(requests.get(f"{url}/readyz", timeout=TIMEOUT_S).status_code, 503)
                self.assertIn("catdog_model_ready 0.0", requests.get(f"{url}/metrics", timeout=TIMEOUT_S).text)

    @unittest.skipIf(os.name == "nt", "Windows has no SIGSTOP")
    def test_a_model_server_that_hangs_is_told_and_so_is_its_return(self) -> None:
        with model_server(MODEL, "CAT-DOG") as server, app_server(server.grpc_port, {}) as (url, _):
            self.wait_for(200, url)
            with Senders(url):
                server.process.send_signal(signal.SIGSTOP)
                try:
                    self.wait_for(503, url)
                finally:
                    server.process.send_signal(signal.SIGCONT)
                self.wait_for(200, url)

    def wait_for(self, status: int, url: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while requests.get(f"{url}/readyz", timeout=TIMEOUT_S).status_code != status:
            self.assertLess(time.monotonic(), deadline, f"never {status}")
            time.sleep(0.1)

    def test_a_hundred_probes_at_once_cost_the_model_server_one_prediction(self) -> None:
        monitoring = Path(__file__).parents[2] / "app" / "model_service" / "monitoring.config"
        with (
            model_server(MODEL, "CAT-DOG", f"--monitoring_config_file={monitoring}") as server,
            app_server(server.grpc_port, {}) as (url, _),
        ):
            began = time.monotonic()
            threads = [threading.Thread(target=answers, args=(f"{url}/readyz",)) for _ in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            looks = 2 + (time.monotonic() - began) / readiness.FRESH_SECONDS
            # Once for the version: its recipe, and its golden photos.
            looks += 1 + len(list(MODEL.glob("*/assets.extra/golden/*.jpg")))
            page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=TIMEOUT_S).text
        (count,) = [line for line in page.splitlines() if line.startswith(":tensorflow:serving:request_latency_count")]
        self.assertTrue(1 <= float(count.split()[-1]) <= looks, count)


if __name__ == "__main__":
    unittest.main()
