"""Fuzzes the API by its OpenAPI document: what it allows is accepted, what it forbids is rejected, as documented."""

import asyncio
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from preprocess_service.app import app_server
from preprocess_service.app.recipe import Golden
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.recipes import SHIPPED, model_version
from unit_test.processes import answers

# Enough for a slow machine.
START_S = 60
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


class Runner(FakeRunner):
    """Takes as long as a real model.
    If it were faster, the deadline X-Request-Timeout-Ms: 1 would sometimes be met. Schemathesis adds a header of its
    own to such a request, and would report that the service accepts what the document forbids.
    """

    async def predict(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.005)
        return await super().predict(*args, **kwargs)

    async def load(self, version: int, timeout: float) -> Any:
        golden = Golden(name="golden_1.jpg", photo=CAT.encode(), probabilities={"CAT": 0.25})
        return model_version(version, SHIPPED.model_copy(update={"golden": (golden,)}))


class SchemathesisTest(unittest.TestCase):
    # Examples per operation; schemathesis_slow.py uses more.
    examples = 20

    def test_every_answer_to_anything_sent_is_as_the_document_says(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(), Runner())))
        # The decoders need a moment to start. Until then /readyz answers 503, which would be reported.
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
        # In a temporary folder: schemathesis writes its results into the current one.
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
        output = run.stdout.decode("utf-8", "replace") + run.stderr.decode("utf-8", "replace")
        self.assertEqual(run.returncode, 0, output)
        # Without anything to test, schemathesis passes too.
        self.assertIn("Selected: 12/12", output)
