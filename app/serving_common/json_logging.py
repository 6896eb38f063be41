"""The log: each line one JSON object, this service's own, uvicorn's and the libraries' alike."""

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
    """``time`` (UTC), ``level``, ``logger``, ``message``, what a record carries as ``fields``, and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Escaped beyond ASCII, so that no terminal, no encoding and no half of a surrogate pair can break a line.
        return _encoder.encode(line)


class JoinedHandler(logging.StreamHandler[TextIO]):
    """Makes and writes lines together, up to ``JOIN_SECONDS`` late; a warning or worse, and all before it, now.

    Each write lets go of the interpreter's lock, and waits for it again behind the threads that decode; and a line
    that is made between other work costs more than one that is made after another. Where there is no event loop
    to do so later, all is written now.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
        if record.levelno > logging.INFO or not self._is_flushed_soon():
            self.flush()

    def flush(self) -> None:
        """Write what there is; ``logging.shutdown`` does so at the end of the process."""
        self.acquire()
        try:
            records, self._records = self._records, []
            if records:
                self.stream.write("".join(map(self._line, records)))
                super().flush()
        except Exception:
            self.handleError(records[-1])
        finally:
            self.release()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + self.terminator
        except Exception:
            self.handleError(record)
            return ""

    def _is_flushed_soon(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if len(self._records) == 1:
            loop.call_later(JOIN_SECONDS, self.flush)
        return True


def log_json() -> None:
    """Write all logs of this process to stderr from now on, from INFO up."""
    handler = JoinedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
