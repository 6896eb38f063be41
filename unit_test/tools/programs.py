"""Starts the programs of tools/, for the tests; what needs TensorFlow runs as a program only: the tests hold none."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "tools"


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `training.train`, the package `bench`, or what else of tools/ is a program, and keep what it prints."""
    command = [sys.executable, "-m", f"tools.{name}", *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=PROJECT
    )
