"""The OpenAPI document is true: what it allows is taken, what it forbids is refused, and every answer is as it says."""

import asyncio
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from preprocess_service.app import app_server
from preprocess_service.app.recipe import Golden
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.recipes import SHIPPED, model_version

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES_OF_EACH_OPERATION = 300


class Runner(FakeRunner):
    """Takes as long as a model does. Without, X-Request-Timeout-Ms: 1 is at times enough, and then schemathesis, which
    adds a header of its own, takes the answer for one to what the document forbids."""

    async def predict(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.005)
        return await super().predict(*args, **kwargs)

    async def load(self, version: int, timeout: float) -> Any:
        golden = Golden(name="golden_1.jpg", photo=CAT.encode(), probabilities={"CAT": 0.25})
        return model_version(version, SHIPPED.model_copy(update={"golden": (golden,)}))


class SchemathesisTest(unittest.TestCase):
    def test_every_answer_to_anything_sent_is_as_the_document_says(self) -> None:
        url = self.enterContext(serving(app_server.create_app(settings(), Runner())))
        folder = self.enterContext(tempfile.TemporaryDirectory())
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIGURATION)),
            *("run", f"{url}/openapi.json", "--mode", "all", "--suppress-health-check", "all"),
            *("--max-examples", str(EXAMPLES_OF_EACH_OPERATION), "--continue-on-failure"),
            "--generation-deterministic",
        ]
        # In a folder of its own: it keeps what it finds in the one that it is started in.
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
        output = run.stdout.decode("utf-8", "replace") + run.stderr.decode("utf-8", "replace")
        self.assertEqual(run.returncode, 0, output)
        # It passes as well where it finds nothing to test.
        self.assertIn("Selected: 7/7", output)
