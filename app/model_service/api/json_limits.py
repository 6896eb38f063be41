"""What JSON would take in memory, found by counting its signs: Python makes of three bytes `[],` eighty."""

import re

from model_service.errors import invalid_argument

# Bytes of Python's objects, at the most, for each sign that can begin one, with its place in the list that holds it.
_LIST, _OBJECT, _STRING, _NUMBER = 80, 240, 120, 48
_ANY = 4096
# Text with a sign beyond 16 bits takes four bytes for each.
_WIDE = 4

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# All up to the first escape that is half of a pair, or a half before anything else.
_WHOLE_PAIRS = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+", re.DOTALL
)


def memory_of(body: bytes) -> int:
    """Return how many bytes of memory reading this JSON takes at most, itself included."""
    text = len(body) * (1 if body.isascii() else _WIDE)
    # A sign within a string counts too: so much of it is in no honest request.
    counts = {_LIST: body.count(b"["), _OBJECT: body.count(b"{"), _NUMBER: body.count(b",")}
    strings = body.count(b'"') // 2
    # The text is there as a whole, and again as its strings.
    longest = text if strings else 0
    return _ANY + len(body) + text + longest + strings * _STRING + sum(each * count for each, count in counts.items())


def check_surrogates(body: bytes) -> None:
    r"""Raise ServingError where an escape such as \ud800 stands without its other half: it is no character."""
    if not _ESCAPED_SURROGATE.search(body):
        return
    whole = _WHOLE_PAIRS.match(body)
    if whole and whole.end() < len(body):
        raise invalid_argument(f"JSON Parse error: The surrogate pair in string is invalid. at offset: {whole.end()}")
