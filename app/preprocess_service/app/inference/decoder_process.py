"""The service's side of a process that decodes pictures: it sends one task at a time and reads pixels.

Results are read as JSON and pixels, never as pickles. So a compromised process can't run code in this one.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

PROGRAM = ("-m", "preprocess_service.app.inference.decoder_worker")
SOURCE_ROOT = Path(__file__).parents[3]
# Seconds that a process has to end by itself.
GRACE_SECONDS = 0.2
# The longest line of JSON that is read from a process.
_LINE_BYTES = 1 << 16
# The only variables that a decoder gets. The service's environment may hold API keys.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG")

logger = logging.getLogger(__name__)


class DecoderEnded(Exception):
    """A process ended during a task. ``status`` is ``subprocess``'s return code; None: the process did not start."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"a decoder ended with status {status}")
        self.status = status


class DecoderProcess:
    """One process. It is started when it is needed, also after it has ended. All methods but ``kill`` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def decode(self, task: dict[str, Any], data: bytes, pixel_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Send one task and wait for its result.

        Args:
            task: the limits and settings, as ``decoder_worker.run`` takes them.
            data: the file, or its base64.
            pixel_bytes: the size of the pixels, if the result has any.

        Returns:
            The result's JSON object, and its pixels: uint8, ``pixel_bytes`` long, or empty.

        Raises:
            DecoderEnded: the process ended, or gave an invalid answer and was ended.
        """
        process = self.start()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(task | {"size": len(data)}).encode() + b"\n")
            process.stdin.write(data)
            process.stdin.flush()
            result = _read_line(process.stdout)
            if result["pixels"] not in (0, pixel_bytes):
                raise ValueError(f"{result['pixels']} bytes of pixels")
            pixels = process.stdout.read(result["pixels"])
            if len(pixels) < result["pixels"]:
                raise EOFError
        except (OSError, EOFError, ValueError, LookupError, TypeError) as exc:
            raise DecoderEnded(self.end()) from exc
        if result.get("retire"):
            self.end()
        return result, pixels

    def kill(self) -> None:
        """Kill the process. A ``decode`` that waits for it then raises DecoderEnded."""
        self._is_killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> int | None:
        """Close the process's pipes, so that it ends, and kill it if it does not; return its status."""
        process, self._process, self._is_killed = self._process, None, False
        if process is None:
            return None
        for stream in (process.stdin, process.stdout):
            # Closing may fail, because buffered bytes can't be written any more. They are lost.
            with contextlib.suppress(OSError):
                assert stream
                stream.close()
        try:
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def start(self) -> "subprocess.Popen[bytes]":
        """Return the running process, or start one and wait until it is ready; raises DecoderEnded."""
        if self._is_killed:
            self.end()
        if self._process is not None:
            return self._process
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            process = subprocess.Popen(
                [sys.executable, *PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                cwd=SOURCE_ROOT,
            )
        except OSError as exc:
            raise DecoderEnded(None) from exc
        self._process = process
        try:
            assert process.stdout
            _read_line(process.stdout)
            if self._is_killed:
                # ``kill`` was called while there was no process yet.
                raise EOFError
        except (OSError, EOFError, ValueError, LookupError) as exc:
            is_ours = self._is_killed
            status = self.end()
            if not is_ours:
                logger.error("a decoder did not start: status %s", status)
            raise DecoderEnded(None) from exc
        return process


def _read_line(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline(_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError
    result = json.loads(line)
    if not isinstance(result, dict):
        raise ValueError("no object")
    return result
