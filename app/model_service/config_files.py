"""TensorFlow Serving's configuration files: messages of protobuf in their text form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_service.errors import StartError, one_line
from model_service.tensorflow_messages import ParseError


def read_config_file(flag: str, file: str, parse: Callable[[str], Any]) -> Any:
    """Return the message that `parse` finds in the file that `flag` names; raises StartError where it can't."""
    try:
        return parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ParseError) as exc:
        raise StartError(f"--{flag}={file} can't be read: {one_line(exc)}.") from exc
