"""Runs the conformance suite against the embedded model server, and tests that it notices what is different."""

import contextlib
import io
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from tools.conformance import __main__ as conformance
from tools.conformance import models, suite
from unit_test import processes

# The server imports TensorFlow at its start: some models have strings.
START_S = 180


class ConformanceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "models"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.assertEqual(conformance.main(["--write", str(self.folder)]), 0)
        self.told = printed.getvalue()
        grpc_port, rest_port = processes.free_port(), processes.free_port()
        self.addresses = (f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}")
        own = ["--bind_address=127.0.0.1", f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
        self.command = [sys.executable, str(processes.MODEL_SERVER), *own, *models.flags(str(self.folder))]

    def test_the_embedded_server_passes_all_checks(self) -> None:
        ready = f"http://{self.addresses[1]}/readyz"
        for flag in models.flags(str(self.folder)):
            self.assertIn(flag, self.told)
        with processes.running(self.command, lambda: processes.answers(ready), timeout=START_S) as server:
            client = suite.Server(*self.addresses, self.folder)
            self.addCleanup(client.close)
            self.assertTrue(client.is_reachable())
            checks = conformance.load_checks()
            self.assertGreaterEqual(len(checks), 120)
            self.assertEqual(len({check.text for check in checks}), len(checks))
            for check in checks:
                with self.subTest(check.text):
                    self.assertEqual(conformance.outcome(check, client), "", server.process.poll())
            self.assert_others_are_noticed(client)

    def assert_others_are_noticed(self, client: suite.Server) -> None:
        """A suite that lets everything pass would be of no use."""
        request = suite.predict_request("pair", {"a": [1.0], "b": [1.0]})
        wrong = {
            "expected 2, found 1": lambda server: suite.equal(1, 2),
            "NOT_FOUND: Servable not found": lambda server: server.predict(suite.predict_request("nothing", {})),
            "but the call succeeded": lambda server: server.refused(
                server.predictions.Predict, request, suite.Code.NOT_FOUND
            ),
            "expected 'INTERNAL', found 'NOT_FOUND": lambda server: server.refused(
                server.predictions.Predict, suite.predict_request("nothing", {}), suite.Code.INTERNAL
            ),
            "expected a text with 'other'": lambda server: server.rest_refused("GET", "/v1/models", None, 400, "other"),
            "expected 404, found (400": lambda server: server.rest_refused("GET", "/v1/models", None, 404),
        }
        for text, run in wrong.items():
            with self.subTest(text):
                self.assertIn(text, conformance.outcome(suite.Check("wrong", run), client))
        without = suite.Server(*self.addresses)
        self.addCleanup(without.close)
        skipped = conformance.outcome(suite.Check("a reload", lambda server: server.config()), without)
        self.assertEqual(skipped, "skipped: needs --folder")

    def test_a_server_that_is_not_there_is_an_error(self) -> None:
        self.enterContext(unittest.mock.patch.object(suite, "_CONNECT_S", 0.2))
        with contextlib.redirect_stderr(io.StringIO()) as told:
            self.assertEqual(conformance.main([*self.addresses]), 2)
        self.assertIn("nothing listens", told.getvalue())


if __name__ == "__main__":
    unittest.main()
