"""Tests the course's service with the course's own tests, and that the bench measures this service."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tools import service
from tools.bench import contestants, environments, limit
from tools.service import PROJECT
from unit_test import processes

COURSE = PROJECT / "course"
SETTINGS = yaml.safe_load((COURSE / "config.yaml").read_text(encoding="utf-8"))
# The service imports all of TensorFlow.
START_S = 120


@contextlib.contextmanager
def course_service(grpc_port: int, **changed: Any) -> Iterator[str]:
    """Run the course's service for a model server, with some settings changed; yield its URL."""
    port = processes.free_port()
    settings = SETTINGS | {"port": port, "model_host": "127.0.0.1", "model_port": grpc_port, **changed}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(COURSE / "app_server.py")]
        variables = {"COURSE_CONFIG": str(path), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with processes.running(command, lambda: processes.answers(f"{url}/openapi.json"), variables, START_S):
            yield url


def run_its_tests(url: str) -> subprocess.CompletedProcess[str]:
    """Run the course's own tests against the service at `url`."""
    command = [sys.executable, "-m", "unittest", "discover", "-s", "course/unit_test", "-p", "*_test.py"]
    environment = os.environ | {"COURSE_URL": url}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


class CourseServiceTest(unittest.TestCase):
    def test_it_passes_its_own_tests_which_find_labels_in_the_wrong_order(self) -> None:
        with processes.model_server(PROJECT / "prev_trained_models" / "CAT-DOG") as server:
            with course_service(server.grpc_port) as url:
                done = run_its_tests(url)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("Ran 5 tests", done.stderr)
            with course_service(server.grpc_port, labels=["DOG", "CAT"]) as url:
                self.assertIn("FAILED (failures=4)", run_its_tests(url).stderr)

    def test_its_three_files_are_small(self) -> None:
        files = ("app_server.py", "model_runner.py", "utils.py")
        self.assertLess(sum((COURSE / name).read_text(encoding="utf-8").count("\n") for name in files), 135)

    def test_the_bench_runs_it_with_its_own_settings(self) -> None:
        everybody = contestants.contestants(service.read_config(None), limit.newest_version(limit.MODEL), cores=2)
        tutorial = next(one for one in everybody if one.name.startswith(contestants.TUTORIAL))
        gateway = tutorial.parts["gateway"]
        self.assertIn(str(environments.RIVALS / "tutorial.py"), gateway.command)
        program = (
            "import classifier, json, tutorial; "
            "print(json.dumps([str(tutorial.COURSE), tutorial.config(classifier.settings(), 7999, 8500)]))"
        )
        environment = os.environ | gateway.environment
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        folder, settings = json.loads(done.stdout)
        self.assertEqual(Path(folder), COURSE)
        self.assertEqual(settings, SETTINGS | {"model_host": "127.0.0.1"})


if __name__ == "__main__":
    unittest.main()
