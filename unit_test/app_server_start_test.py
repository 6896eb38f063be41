"""The preprocess service as a process: from any folder, one clear line where it can't start, quick to stop."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from preprocess_service import FOLDER
from processes import answers, free_port, running

COMMAND = [sys.executable, str(FOLDER / "app_server.py")]


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

    @unittest.skipIf(os.name == "nt", "Windows has no SIGTERM")
    def test_sigterm_ends_it_at_once(self) -> None:
        port = free_port()
        with running(COMMAND, lambda: answers(f"http://127.0.0.1:{port}/livez"), env={"SERVICE_PORT": str(port)}) as it:
            start = time.monotonic()
            it.process.send_signal(signal.SIGTERM)
            it.process.wait(10)
            self.assertLess(time.monotonic() - start, 10)
            self.assertNotIn("Traceback", it.output())
