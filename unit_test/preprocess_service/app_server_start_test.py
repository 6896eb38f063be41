"""Tests the preprocess service as a process: it starts from any folder or says why not in one line, and ends fast."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import psutil
import requests
from PIL import Image

from unit_test.processes import APP_SERVER, answers, free_port, running

RAW = {"Content-Type": "application/octet-stream"}
COMMAND = [sys.executable, str(APP_SERVER)]


def megabytes(pid: int) -> float:
    """Return the memory of a process and its children in MB; shared memory counts once."""
    found = 0.0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss / 1e6
    return found


class AppServerStartTest(unittest.TestCase):
    def check_refusal(self, environment: dict[str, str], *words: str) -> None:
        ended = subprocess.run(
            COMMAND, env=os.environ | environment, capture_output=True, text=True, timeout=30, check=False
        )
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        for word in words:
            self.assertIn(word, ended.stderr)

    def test_a_bad_setting_ends_the_start_with_one_line(self) -> None:
        self.check_refusal({"SERVICE_PORT": "seven"}, "SERVICE_PORT", "'seven'")

    def test_a_taken_port_ends_the_start_with_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.check_refusal({"SERVICE_PORT": str(port)}, f"127.0.0.1:{port}", "SERVICE_PORT")

    def test_it_starts_from_any_folder_and_without_a_model_server(self) -> None:
        port = free_port()
        place = {"SERVICE_PORT": str(port), "SERVICE_MODEL_PORT": str(free_port())}
        url = f"http://127.0.0.1:{port}"
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as elsewhere:
            os.chdir(elsewhere)
            self.addCleanup(os.chdir, before)
            with running(COMMAND, lambda: answers(f"{url}/livez"), env=place):
                self.assertFalse(answers(f"{url}/readyz"))
            os.chdir(before)

    @unittest.skipUnless(sys.platform == "linux", "reads /proc")
    def test_the_biggest_photos_of_several_senders_fit_into_memory_which_comes_back(self) -> None:
        port = free_port()
        place = {"SERVICE_PORT": str(port), "SERVICE_MODEL_PORT": str(free_port())}
        url = f"http://127.0.0.1:{port}"
        # The answer is 503, because there is no model. The photo is decoded first.
        file = io.BytesIO()
        Image.new("RGBA", (7100, 7100), (90, 60, 30, 128)).save(file, "PNG")
        with running(COMMAND, lambda: answers(f"{url}/livez"), env=place) as it:
            # The decoders start with the first readiness check.
            requests.get(f"{url}/readyz", timeout=60)
            before = megabytes(it.process.pid)
            peak = 0.0
            with ThreadPoolExecutor(4) as senders:
                asked = [
                    senders.submit(requests.post, f"{url}/predict", file.getvalue(), headers=RAW) for _ in range(4)
                ]
                while not all(answer.done() for answer in asked):
                    peak = max(peak, megabytes(it.process.pid))
                    time.sleep(0.02)
            # 504: a slow machine takes longer than the deadline.
            self.assertLessEqual({answer.result().status_code for answer in asked}, {503, 504})
            # The memory limit of its container.
            self.assertLess(peak, 700)
            # A slow machine may still be decoding a photo whose answer has been sent.
            end = time.monotonic() + 60
            while megabytes(it.process.pid) >= 1.2 * before and time.monotonic() < end:
                time.sleep(0.1)
            self.assertLess(megabytes(it.process.pid), 1.2 * before)

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM")
    def test_sigterm_ends_it_at_once(self) -> None:
        port = free_port()
        with running(COMMAND, lambda: answers(f"http://127.0.0.1:{port}/livez"), env={"SERVICE_PORT": str(port)}) as it:
            start = time.monotonic()
            it.process.send_signal(signal.SIGTERM)
            it.process.wait(10)
            self.assertLess(time.monotonic() - start, 10)
            self.assertNotIn("Traceback", it.output())

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM")
    def test_before_it_ends_it_says_that_it_is_not_ready_and_goes_on_answering(self) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        place = {"SERVICE_PORT": str(port), "SERVICE_MODEL_PORT": str(free_port()), "SERVICE_DRAIN_SECONDS": "60"}
        with running(COMMAND, lambda: answers(f"{url}/livez"), env=place) as it:
            it.process.send_signal(signal.SIGTERM)
            while "process" not in (failing := requests.get(f"{url}/readyz", timeout=10).json()["failing"]):
                time.sleep(0.05)
            self.assertIn("shutting down", failing["process"])
            self.assertTrue(answers(f"{url}/livez"))
            # On a keep-alive connection the next request could arrive when the server no longer reads.
            self.assertEqual(requests.get(f"{url}/livez", timeout=10).headers["Connection"], "close")
            it.process.send_signal(signal.SIGTERM)
            # After its graceful end uvicorn ends by the signal itself, as a shell expects.
            self.assertEqual(it.process.wait(30), -signal.SIGTERM)
            self.assertNotIn("Traceback", it.output())
