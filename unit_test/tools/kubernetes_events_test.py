"""The events on a Kubernetes cluster: what can be tried without one."""

import contextlib
import http.server
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from tools.kubernetes_events import __main__ as program
from tools.kubernetes_events import cluster, events, pod_load
from unit_test.tools.programs import PROJECT, answering_with


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request as for a cat, and counts the connections."""

    protocol_version = "HTTP/1.1"
    connections = requests = 0

    def setup(self) -> None:
        super().setup()
        type(self).connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        body = b'{"status": "Success", "pet_type": "CAT", "model_conf": 99.9}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Input:
    """Ends when enough requests have been sent."""

    @staticmethod
    def read() -> None:
        wait = threading.Event()
        while Handler.requests < 20:
            wait.wait(0.02)


class PodLoadTest(unittest.TestCase):
    def test_it_tells_how_many_were_sent_and_lost_over_kept_and_new_connections(self) -> None:
        url = f"http://localhost:{self.enterContext(answering_with(Handler))}"
        for connections in ("kept", "new"):
            with self.subTest(connections), mock.patch.object(sys, "stdin", Input):
                Handler.connections = Handler.requests = 0
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    pod_load.main([url, "400", "2", connections])
                summary = cluster.Summary(**json.loads(output.getvalue()))
                self.assertEqual(summary.sent, Handler.requests)
                # The photos of dogs.
                self.assertTrue(0 < summary.lost < summary.sent)
                self.assertIn("wrong answer", summary.examples[0])
                self.assertEqual(Handler.connections, 2 if connections == "kept" else summary.sent)


class ProgramTest(unittest.TestCase):
    def test_without_a_cluster_it_says_so_in_one_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            kubectl = Path(folder, "kubectl")
            kubectl.write_text(
                "#!/bin/sh\necho 'The connection to the server was refused' >&2\nexit 1\n", encoding="ascii"
            )
            kubectl.chmod(0o755)
            for path, words in ((folder, "no cluster answers: The connection"), ("/nowhere", "there is no kubectl")):
                with self.subTest(words):
                    done = subprocess.run(
                        [sys.executable, "-m", "tools.kubernetes_events"],
                        env=os.environ | {"PATH": path},
                        cwd=PROJECT,
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    self.assertEqual(done.returncode, 1)
                    (line,) = done.stderr.splitlines()
                    self.assertIn(words, line)

    def test_a_power_cut_is_an_event_where_there_are_commands_for_it(self) -> None:
        for hooks, is_there in (({}, False), ({"KUBERNETES_POWER_OFF": "off", "KUBERNETES_POWER_ON": "on"}, True)):
            with mock.patch.dict(os.environ, hooks), contextlib.redirect_stdout(io.StringIO()) as output:
                if not hooks:
                    for name in ("KUBERNETES_POWER_OFF", "KUBERNETES_POWER_ON"):
                        os.environ.pop(name, None)
                self.assertEqual(program.main(["--list"]), 0)
            self.assertEqual("power cut" in output.getvalue(), is_there)

    def test_a_lost_request_or_none_at_all_is_a_failure(self) -> None:
        event = events.Event("it", lambda _: None)
        counted = events.Event("it", lambda _: None, most_lost=None)
        for sent, lost, slowest, event_, failed in (
            (600, 0, 0.5, event, 0),
            (600, 1, 0.5, event, 1),
            (600, 0, 11.0, event, 1),
            (600, 9, 0.5, counted, 0),
            (0, 0, 0.0, counted, 1),
        ):
            with self.subTest(sent=sent, lost=lost, slowest=slowest):
                self.assertEqual(self.tried(event_, cluster.Summary(sent, lost, slowest, ["how"])), failed)

    def tried(self, event: events.Event, summary: cluster.Summary) -> int:
        class Fake:
            @contextlib.contextmanager
            def load(self, *_: Any) -> Any:
                yield [summary]

        with (
            mock.patch.multiple(program, SECONDS=0.0, QUIET_SECONDS=0.0),
            contextlib.redirect_stdout(io.StringIO()) as output,
        ):
            failed = program._try(Fake(), event, 1.0)  # type: ignore[arg-type]
        self.assertIn("FAILED" if failed else "ok" if event.most_lost is not None else "counted", output.getvalue())
        return failed


if __name__ == "__main__":
    unittest.main()
