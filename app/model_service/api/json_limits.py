"""Estimates the memory of parsed JSON by counting characters: the 3 bytes `[],` become 80 bytes in Python."""

import re

from model_service.errors import invalid_argument

# Upper limits, in bytes, for one Python object of each kind, with its pointer in the list that holds it.
_LIST, _OBJECT, _STRING, _NUMBER = 80, 240, 120, 48
_ANY = 4096
# Python stores a string with 4 bytes per character if one of its characters is above U+FFFF.
_WIDE = 4

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
