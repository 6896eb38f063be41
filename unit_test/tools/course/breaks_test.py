"""Tests what chapter 5 of the course mends: the course's service after all its replacements, without TensorFlow."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools.course.blocks import read_blocks, replaced
from tools.service import PROJECT
from unit_test import processes

# The course's service imports all of TensorFlow before it is mended.
START_S = 120
SCRIPT_S = 300
MODEL = PROJECT / "prev_trained_models" / "CAT-DOG"


class CourseCase(unittest.TestCase):
    """Has copies of the course, and a model server that can be stopped and started again."""

    def setUp(self) -> None:
        self.ports = processes.free_port(), processes.free_port()

    def copy(self, mended: bool) -> Path:
        """Return a folder with the course, with all replacements of chapter 5 or none."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        for name in ("app", "course", "images"):
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for block in read_blocks(5).values() if mended else ():
            if block.replace:
                path = folder / block.replace
                path.write_text(replaced(path.read_text(encoding="utf-8"), block), encoding="utf-8")
        return folder

    def model_server(self) -> contextlib.AbstractContextManager[processes.Running]:
        """Run the model server, always on the same ports."""
        command = [
            sys.executable,
            str(processes.MODEL_SERVER),
            "--bind_address=127.0.0.1",
            f"--port={self.ports[0]}",
            f"--rest_api_port={self.ports[1]}",
            "--model_name=CAT-DOG",
            f"--model_base_path={MODEL}",
        ]
        ready = f"http://127.0.0.1:{self.ports[1]}/readyz"
        return processes.running(command, lambda: processes.answers(ready), timeout=START_S)

    @contextlib.contextmanager
    def service(self, folder: Path) -> Iterator[str]:
        """Run the copy's service; yield its URL."""
        settings = yaml.safe_load((folder / "course" / "config.yaml").read_text(encoding="utf-8"))
        settings |= {"port": processes.free_port(), "model_host": "127.0.0.1", "model_port": self.ports[0]}
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings | {"timeout_seconds": 60}), encoding="utf-8")
        url = f"http://127.0.0.1:{settings['port']}"
        variables = {"COURSE_CONFIG": str(config), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(folder / "course" / "app_server.py")]
        with processes.running(command, lambda: processes.answers(f"{url}/openapi.json"), variables, START_S):
            yield url

    def script(self, folder: Path, url: str, name: str, *options: str) -> str:
        """Return what a script of chapter 5 prints."""
        command = [sys.executable, str(folder / "course" / "breaks" / name), *options]
        environment = os.environ | {"COURSE_URL": url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SCRIPT_S, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def numbers(self, pattern: str, printed: str) -> list[float]:
        """Return the numbers in all places that match a pattern with one group."""
        found = [float(number) for number in re.findall(pattern, printed)]
        self.assertTrue(found, printed)
        return found


class MendedTest(CourseCase):
    def test_the_mended_service_stands_up_to_what_breaks_it_and_passes_the_tests_of_chapter_4(self) -> None:
        folder = self.copy(mended=True)
        with self.service(folder) as url:
            with self.model_server():
                command = [sys.executable, "-m", "unittest", "discover", "-s", "course/unit_test", "-p", "*_test.py"]
                environment = os.environ | {"COURSE_URL": url}
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)

                sideways = self.script(folder, url, "sideways_photo.py")
                self.assertEqual(re.findall(r"200 (\w+)", sideways), ["DOG"] * 4)
                self.assertGreater(min(self.numbers(r"sideways: 200 DOG ([\d.]+)", sideways)), 99)

                bomb = self.script(folder, url, "picture_bomb.py")
                self.assertIn('400 {"status":"Failed","msg":"The picture has more than 50 megapixels"}', bomb)
                self.assertLess(self.numbers(r"memory \+(\d+) MB", bomb)[0], 100)
            self.assertEqual(
                self.script(folder, url, "killed_model_server.py").strip(),
                '503 {"status":"Failed","msg":"The model server does not answer: UNAVAILABLE"}  Retry-After: 1',
            )
            with self.model_server():
                self.assertRegex(self.script(folder, url, "killed_model_server.py", "--wait"), r"^200 CAT .* after ")

    def test_the_mended_model_runner_does_not_execute_tensorflow(self) -> None:
        program = "import model_runner, sys; print('tensorflow.python' in sys.modules)"
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=self.copy(mended=True) / "course", capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout.strip(), "False")

    def test_a_script_says_that_the_service_does_not_run(self) -> None:
        for name in ("sideways_photo", "blocking_call", "killed_model_server", "picture_bomb"):
            command = [sys.executable, str(PROJECT / "course" / "breaks" / f"{name}.py")]
            environment = os.environ | {"COURSE_URL": f"http://127.0.0.1:{processes.free_port()}"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            with self.subTest(name):
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertRegex(done.stderr, r"^http\S+ does not answer\. Start the service: \S+ \S+\n$")


if __name__ == "__main__":
    unittest.main()
