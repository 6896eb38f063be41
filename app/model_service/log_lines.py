"""The log: each line one JSON object, in the fields of the preprocess service's, so that both are read together.

TensorFlow Serving's log is plain text; its texts stand in `message`.
"""

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

# How long a line may wait for others to be written with.
JOIN_SECONDS = 0.1

# One for all lines: json.dumps would make one for each.
_encoder = json.JSONEncoder(default=str)


class JsonFormatter(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`, what a record carries as `fields`, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Escaped beyond ASCII, so that no encoding can break a line: names come from requests.
        return _encoder.encode(line)


class JoinedHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of up to `JOIN_SECONDS` with one call to the system, warnings and worse at once.

    Each call lets go of the interpreter's lock, and waits for it again behind the threads that compute: under load that
    costs more than to make the line. What is made outside of an event loop is written at once too.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno > logging.INFO or not self._is_flushed_soon():
                self.flush()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what there is; `logging.shutdown` does so at the end of the process."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            self.stream.write("".join(lines))
            super().flush()
        finally:
            self.release()

    def _is_flushed_soon(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if len(self._lines) == 1:
            loop.call_later(JOIN_SECONDS, self.flush)
        return True


def log_json() -> None:
    """Write all logs of this process to stderr from now on, from INFO up."""
    handler = JoinedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
