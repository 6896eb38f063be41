"""The README tells the truth about commands, routes, settings and files."""

import re
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

from model_service import model_server
from preprocess_service.app import app_server, config, model_runner
from preprocess_service.app.observability import metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


class ReadmeTest(unittest.TestCase):
    def test_it_lists_the_routes_of_the_service_and_no_others(self) -> None:
        settings = config.load_config({})
        app = app_server.create_app(settings, model_runner.ModelRunner(settings))
        served = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
        listed = set(re.findall(r"`((?:GET|POST) /[^`]*)`", README.partition("## The HTTP face")[2].partition("##")[0]))
        self.assertEqual(listed - {"GET /", "GET /metrics", "GET /docs", "GET /openapi.json"}, served)

    def test_it_names_every_variable_of_the_environment(self) -> None:
        self.assertEqual(set(re.findall(r"`(SERVICE_\w+)`", README)), {*config.ENVIRONMENT, "SERVICE_CONFIG"})

    def test_every_command_of_run_py_is_known_to_it(self) -> None:
        usage = subprocess.run(
            [sys.executable, ROOT / "run.py", "--help"], capture_output=True, text=True, check=True
        ).stdout
        for command in set(re.findall(r"python run\.py (\w+)", README)):
            with self.subTest(command):
                self.assertIn(f"python run.py {command}", usage)

    def test_its_ports_are_those_of_the_settings(self) -> None:
        settings = config.load_config({})
        self.assertIn(f"HTTP {settings.server.port}", README)
        self.assertIn(f"gRPC {settings.model_server.port}", README)

    def test_every_file_that_it_links_or_names_exists(self) -> None:
        links = re.findall(r"\]\(([\w./-]+)\)", README)
        scripts = re.findall(r"python ((?:tools|app)/[\w./]+\.py)", README)
        composes = re.findall(r"-f (app/[\w./-]+\.yml)", README)
        for name in {*links, *scripts, *composes}:
            with self.subTest(name):
                self.assertTrue((ROOT / name).exists())

    def test_its_supported_pythons_are_those_that_run_py_takes(self) -> None:
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launcher.environment import *; "
            "print(OLDEST_PYTHON, SERVE.newest_python, ALL.newest_python)"
        )
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        self.assertEqual(printed.strip(), "(3, 11) (3, 14) (3, 13)")
        self.assertIn("Python 3.11, 3.12, 3.13 or 3.14", README)

    def test_the_version_is_the_same_everywhere(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self.assertEqual({metrics.VERSION, model_server.VERSION}, {project["version"]})
