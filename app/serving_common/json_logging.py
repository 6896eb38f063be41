"""Logs as lines of JSON on stderr, for this project, uvicorn and the other libraries."""

import asyncio
import logging
import sys
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

# How long a line may wait for others, in seconds, to be written with them.
FLUSH_SECONDS = 0.1


def json_formatter() -> JsonFormatter:
    """Return a formatter for one JSON object per record: ``time`` (UTC), ``level``, ``logger``, ``message``, the
    fields of ``extra``, and ``exception``. Characters beyond ASCII are escaped, so no terminal or encoding can break a
    line."""
    names = {"levelname": "level", "name": "logger", "exc_info": "exception"}
    # uvicorn passes its message a second time, for coloured terminals.
    reserved = [*RESERVED_ATTRS, "color_message"]
    return JsonFormatter(
        ["time", "levelname", "name", "message"], rename_fields=names, timestamp="time", reserved_attrs=reserved
    )


class BufferedHandler(logging.StreamHandler[TextIO]):
    """Formats and writes lines together, at most ``FLUSH_SECONDS`` late. Warnings and errors are written at once.

    Each write releases the GIL and then waits for it again behind the threads that compute. Formatting several lines in
    a row is also cheaper. Without a running event loop every line is written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
        if record.levelno > logging.INFO or not self._schedule_flush():
            self.flush()

    def flush(self) -> None:
        """Write the waiting lines. ``logging.shutdown`` calls this at the end of the process."""
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

    def _schedule_flush(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if len(self._records) == 1:
            loop.call_later(FLUSH_SECONDS, self.flush)
        return True


def configure_json_logging() -> None:
    """Write all logs of this process to stderr, from level INFO."""
    handler = BufferedHandler(sys.stderr)
    handler.setFormatter(json_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
