"""Makes a bare ``python -m unittest`` find what VS Code's pattern ``*test*.py`` finds."""

from pathlib import Path
from unittest import TestLoader, TestSuite


def load_tests(loader: TestLoader, standard_tests: TestSuite, pattern: str | None) -> TestSuite:
    here = str(Path(__file__).parent)
    return loader.discover(here, pattern="*test*.py", top_level_dir=here)
