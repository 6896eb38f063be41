"""Tests that the README is short, and that its figures, ports and versions are right."""

import json
import re
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

from model_service import model_server
from preprocess_service.app.config import load_config
from preprocess_service.app.observability import metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL_CARD = (ROOT / "prev_trained_models" / "CAT-DOG" / "MODEL_CARD.md").read_text(encoding="utf-8")
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
MOST_LINES = 130


class ReadmeTest(unittest.TestCase):
    def test_it_is_short(self) -> None:
        self.assertLessEqual(len(README.splitlines()), MOST_LINES)

    def test_it_links_every_page(self) -> None:
        pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} | {"SECURITY.md", "CHANGELOG.md"}
        self.assertLessEqual(pages, set(re.findall(r"\]\(([\w./-]+\.md)\)", README)))

    def test_its_ports_are_those_of_the_settings(self) -> None:
        settings = load_config({})
        self.assertIn(f"HTTP {settings.server.port}", README)
        self.assertIn(f"gRPC {settings.model_server.port}", README)

    def test_its_answer_is_of_the_version_that_is_shipped(self) -> None:
        (answer,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
        (version,) = (ROOT / "prev_trained_models" / "CAT-DOG").glob("[0-9]*")
        self.assertEqual(json.loads(answer)["model"], {"name": "CAT-DOG", "version": int(version.name)})

    def test_its_figures_stand_on_the_pages_that_it_names(self) -> None:
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", README.partition("## Figures")[2].partition("\n## ")[0], re.M)
        figures = [figure for _, text in rows for figure in re.findall(r"[\d.]+(?: %| ms| MB| s\b)?", text)]
        self.assertGreaterEqual(len(figures), 6)
        for figure in figures:
            with self.subTest(figure):
                number = figure.removesuffix(" ms")
                self.assertRegex(PERFORMANCE + MODEL_CARD, rf"(?<![\d.]){re.escape(number)}(?![\d.]\d)")

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


if __name__ == "__main__":
    unittest.main()
