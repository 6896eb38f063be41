"""Logs as lines of JSON on stderr: this project's own, uvicorn's and the libraries' alike."""

import asyncio
import logging
import sys
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

# How long a line may wait to be written together with others.
FLUSH_SECONDS = 0.1


def json_formatter() -> JsonFormatter:
    """One JSON object a record: ``time`` (UTC), ``level``, ``logger``, ``message``, what was passed as ``extra``, and
    ``exception``. Characters beyond ASCII are escaped: no terminal and no encoding can break a line."""
    names = {"levelname": "level", "name": "logger", "exc_info": "exception"}
    # uvicorn passes its message once more, for coloured terminals.
    reserved = [*RESERVED_ATTRS, "color_message"]
    return JsonFormatter(
        ["time", "levelname", "name", "message"], rename_fields=names, timestamp="time", reserved_attrs=reserved
    )


class BufferedHandler(logging.StreamHandler[TextIO]):
    """Formats and writes lines together, up to ``FLUSH_SECONDS`` late; a warning or worse, and all before it, at once.

    Each write releases the GIL, and waits for it again behind the threads that compute. A line that is formatted
    between other work costs more than one that is formatted after another. Without a running event loop every line is
    written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
        if record.levelno > logging.INFO or not self._schedule_flush():
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait; ``logging.shutdown`` does so at the end of the process."""
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
    """Write all logs of this process to stderr from now on, from INFO up."""
    handler = BufferedHandler(sys.stderr)
    handler.setFormatter(json_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
