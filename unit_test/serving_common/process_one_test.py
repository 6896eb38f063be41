"""Tests that SIGTERM ends the first process of a container while it starts."""

import signal
import subprocess
import sys
import unittest
from pathlib import Path

APP = Path(__file__).parents[2] / "app"


@unittest.skipIf(sys.platform == "win32", "containers run Linux")
class ProcessOneTest(unittest.TestCase):
    def ended_by_sigterm(self, identifier: str) -> int:
        """Return the exit status of a process that counts as the one with this identifier."""
        program = f"""
import os, sys, time
sys.path.insert(0, {str(APP)!r})
os.getpid = lambda: {identifier}
from serving_common import process_one
process_one.end_on_sigterm()
print("started", flush=True)
time.sleep(600)
"""
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            process.terminate()
            return process.wait(60)

    def test_process_1_ends_with_the_status_of_a_signal_and_others_by_the_kernel(self) -> None:
        self.assertEqual(self.ended_by_sigterm("1"), 128 + signal.SIGTERM)
        self.assertEqual(self.ended_by_sigterm("2"), -signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
