"""A process that decodes pictures, as the service sees it: one task at a time goes in, pixels come out.

What comes back is read as JSON and pixels and never as code: a process that was broken into can't run any here.
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
# How long a process may take to end by itself.
GRACE_SECONDS = 0.2
# The longest line of JSON from a process.
_LINE_BYTES = 1 << 16
# Nothing else of this service's environment is a decoder's business: keys are in it.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG")

logger = logging.getLogger(__name__)


class DecoderEnded(Exception):
    """A process ended in the middle of a task; ``status`` as ``subprocess`` has it, None where it did not start."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"a decoder ended with status {status}")
        self.status = status


class DecoderProcess:
    """One process, started when it is needed and has ended. All but ``kill`` blocks its thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def decode(self, task: dict[str, Any], data: bytes, pixel_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Hand over one task and wait for its result, whose pixels are of ``pixel_bytes`` if there are any.

        Raises:
            DecoderEnded: the process did, or did not answer as it should.
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
        """End the process, whatever it does; a ``decode`` that waits for it then raises."""
        self._is_killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> int | None:
        """Let the process end by itself, which it does at the end of its tasks, or else kill it; answers its status."""
        process, self._process, self._is_killed = self._process, None, False
        if process is None:
            return None
        for stream in (process.stdin, process.stdout):
            # What was not written yet is lost with the process.
            with contextlib.suppress(OSError):
                assert stream
                stream.close()
        try:
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process unless it is there, and wait until it is ready; raises DecoderEnded."""
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
                # Meanwhile, when there was nothing to kill yet.
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
