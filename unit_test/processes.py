"""Starts the real services for the tests: on free ports, with their output kept, and stopped at the end."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
MODEL_SERVER = PROJECT / "app" / "model_service" / "model_server.py"
APP_SERVER = PROJECT / "app" / "preprocess_service" / "app" / "app_server.py"

# Seconds. The services write log lines together, up to 0.1 s late.
LOG_DELAY_S = 0.2
# Seconds that a process has to finish its work before it is killed.
STOP_S = 10


@dataclass(frozen=True)
class Running:
    """A process, and the file with its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Return what the process has logged or printed so far, stdout and stderr together."""
        time.sleep(LOG_DELAY_S)
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class ModelServer(Running):
    """An embedded model server and its ports."""

    grpc_port: int
    rest_port: int

    @property
    def url(self) -> str:
        """Return the URL of its REST API."""
        return f"http://127.0.0.1:{self.rest_port}"


def free_port() -> int:
    """Return a TCP port that no program listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Return whether a GET of `url` is answered with a success."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (OSError, urllib.error.HTTPError):
        return False


@contextlib.contextmanager
def running(
    command: Sequence[str | os.PathLike[str]],
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> Iterator[Running]:
    """Run `command` with `env` added to the environment; yield once `ready()`, stop it at the end.

    Raises AssertionError, with what the process wrote, if it ends before it is ready or isn't ready in `timeout`
    seconds.
    """
    # In a folder that is deleted after the process has ended: Windows can't delete an open file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder, "output.txt")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )
        started = Running(process, log)
        try:
            _wait_until(ready, started, timeout)
            yield started
        finally:
            _stop(process)


def _wait_until(ready: Callable[[], bool], started: Running, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        if started.process.poll() is not None:
            raise AssertionError(f"exited with {started.process.returncode} before it was ready:\n{started.output()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not ready within {timeout} s:\n{started.output()}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def model_server(
    base_path: str | os.PathLike[str],
    model_name: str = "CAT-DOG",
    *flags: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> Iterator[ModelServer]:
    """Run the embedded model server on `base_path`, a folder of versions; yield it when it serves, see `running`."""
    grpc_port, rest_port = free_port(), free_port()
    command = [
        sys.executable,
        str(MODEL_SERVER),
        "--bind_address=127.0.0.1",
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_name={model_name}",
        f"--model_base_path={os.fspath(base_path)}",
        *flags,
    ]
    with running(command, lambda: answers(f"http://127.0.0.1:{rest_port}/readyz"), env, timeout) as started:
        yield ModelServer(started.process, started.log, grpc_port, rest_port)
