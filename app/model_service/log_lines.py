"""The log: each line one JSON object, in the fields of the preprocess service's, so that both are read together.

TensorFlow Serving's log is plain text; its texts stand in `message`.
"""

import json
import logging
import sys
from datetime import UTC, datetime

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


def log_json() -> None:
    """Write all logs of this process to stderr from now on, from INFO up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
