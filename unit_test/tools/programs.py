"""Starts the programs of tools/, and what they ask. What needs TensorFlow is a program only: the tests hold none."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


@contextmanager
def answering_with(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Have ``handler`` answer on a port of its own, which is given, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
