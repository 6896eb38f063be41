"""The OpenAPI document is true: what it allows is taken, what it forbids is refused, and every answer is as it says."""

import asyncio
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from preprocess_service.app import app_server
from unit_test.preprocess_service.app_server_test import FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.processes import answers

# On however slow a machine.
START_S = 60
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


class Runner(FakeRunner):
    """Takes as long as a model does. Without, X-Request-Timeout-Ms: 1 is at times enough, and then schemathesis, which
    adds a header of its own, takes the answer for one to what the document forbids."""

    async def predict(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.005)
        return await super().predict(*args, **kwargs)


class SchemathesisTest(unittest.TestCase):
    # Of each operation; schemathesis_slow.py has more.
    examples = 20

    def test_every_answer_to_anything_sent_is_as_the_document_says(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(), Runner())))
        # Its decoders take a while to start; until then /readyz is 503, which is no answer to accept.
        end = time.monotonic() + START_S
        while not answers(f"{url}/readyz"):
            self.assertLess(time.monotonic(), end)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIGURATION)),
            *("run", f"{url}/openapi.json", "--mode", "all", "--suppress-health-check", "all"),
            *("--max-examples", str(self.examples), "--continue-on-failure"),
            "--generation-deterministic",
        ]
        # In a folder of its own: it keeps what it finds in the one that it is started in.
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
        output = run.stdout.decode("utf-8", "replace") + run.stderr.decode("utf-8", "replace")
        self.assertEqual(run.returncode, 0, output)
        # It passes as well where it finds nothing to test.
        self.assertIn("Selected: 6/6", output)
