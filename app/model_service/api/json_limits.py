"""Parses JSON within limits, and quotes it in errors.

Its memory is estimated by counting characters before: the 3 bytes `[],` become 80 bytes in Python.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from model_service.errors import invalid_argument

# Upper limits, in bytes, for one Python object of each kind, with its pointer in the list that holds it.
_LIST, _OBJECT, _STRING, _NUMBER = 80, 240, 120, 48
_ANY = 4096
# Python stores a string with 4 bytes per character if one of its characters is above U+FFFF.
_WIDE = 4
# Errors quote the invalid value. This limits the quote, for example of a whole image as a list of numbers.
_MAX_QUOTE = 256

_PARSE_ERRORS = {
    "Expecting value": "Invalid value",
    "Extra data": "The document root must not be followed by other values",
}

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Matches everything before the first surrogate escape that has no partner.
_WHOLE_PAIRS = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+", re.DOTALL
)


def memory_of(body: bytes) -> int:
    """Return an upper limit of the memory for parsing this JSON, in bytes, with the body itself."""
    text = len(body) * (1 if body.isascii() else _WIDE)
    # Characters inside strings count too. No normal request has many of them there.
    counts = {_LIST: body.count(b"["), _OBJECT: body.count(b"{"), _NUMBER: body.count(b",")}
    strings = body.count(b'"') // 2
    # The decoded text, and the strings that are made from it.
    longest = text if strings else 0
    return _ANY + len(body) + text + longest + strings * _STRING + sum(each * count for each, count in counts.items())


def check_surrogates(body: bytes) -> None:
    r"""Raise ServingError if a surrogate escape such as \ud800 has no partner: alone it is not a character."""
    if not _ESCAPED_SURROGATE.search(body):
        return
    whole = _WHOLE_PAIRS.match(body)
    if whole and whole.end() < len(body):
        raise invalid_argument(f"JSON Parse error: The surrogate pair in string is invalid. at offset: {whole.end()}")


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a predict request; raises ServingError if the body is not valid."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    check_surrogates(body)
    try:
        document = json.loads(body.decode())
    except json.JSONDecodeError as exc:
        text = _PARSE_ERRORS.get(exc.msg, exc.msg)
        raise invalid_argument(f"JSON Parse error: {text}. at offset: {exc.pos}") from exc
    except UnicodeDecodeError as exc:
        raise invalid_argument(f"JSON Parse error: Invalid encoding in string. at offset: {exc.start}") from exc
    except (RecursionError, ValueError) as exc:  # ValueError: a number with thousands of digits
        raise invalid_argument("JSON Parse error: a value is too long or too deeply nested.") from exc
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {quote(document)} Is not object")
    return document


def quote(value: Any) -> str:
    """Return the JSON of a value for an error text, cut after 256 characters."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _MAX_QUOTE:
            return text[:_MAX_QUOTE] + "..."
    return text


def _pieces(value: Any) -> Iterator[str]:
    """Yield the JSON of a value piece by piece, so that a long quote is never built as a whole."""
    if isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield ", " * bool(number) + json.dumps(key[:_MAX_QUOTE]) + ": "
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number, item in enumerate(value):
            yield ", " * bool(number)
            yield from _pieces(item)
        yield "]"
    else:
        yield json.dumps(value[:_MAX_QUOTE] if isinstance(value, str) else value)
