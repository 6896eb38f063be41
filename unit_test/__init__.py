"""Makes ``python -m unittest`` find the same files as VS Code's pattern ``*test*.py``."""

from pathlib import Path
from unittest import TestLoader, TestSuite

import tools  # noqa: F401 - finds the services' packages


def load_tests(loader: TestLoader, standard_tests: TestSuite, pattern: str | None) -> TestSuite:
    here = Path(__file__).parent
    # unittest's default pattern is test*.py.
    wanted = "*test*.py" if pattern in (None, "test*.py") else pattern
    return loader.discover(str(here), pattern=wanted, top_level_dir=str(here.parent))
