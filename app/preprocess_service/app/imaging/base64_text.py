"""Base64 as people send it, to bytes; or why it is none."""

import binascii
import contextlib
import itertools
import re
import string

import pybase64

from preprocess_service.app.errors import InvalidBase64

# Up to the first ";base64,": types, parameters and file names are whatever the sender's library makes of them.
_DATA_URL = re.compile(r"data:.*?;\s*base64\s*,", re.IGNORECASE | re.DOTALL)
# How far that is looked for.
_LONGEST_PREFIX = 10_000
# Text of a Python value, or of a JSON string within one.
_QUOTES = (b"b'", b'b"', b"'", b'"', b"\\")
_BLANKS = re.compile(rb" +")
# Runs of blanks that are looked at: so many stand at the same distance only where they separate lines.
_RUNS = 64
_ALPHABET = (string.ascii_letters + string.digits + "+/-_= ").encode("ascii")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_NOT_BLANK = string.whitespace.replace(" ", "").encode("ascii")
# What a URL may write the alphabet and white space as.
_ESCAPES = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%0D": b"", b"%0A": b"", b"%20": b" "}


def decode_base64(text: str) -> bytes:
    """Decode base64 as people send it: line breaks, a ``data:`` prefix, the URL-safe alphabet, no padding.

    Raises:
        InvalidBase64: empty, or with anything in it that base64 does not have.
    """
    # Nearly all of it is plain base64; anything else fails here, and the code below decides.
    with contextlib.suppress(ValueError):
        if text:
            return pybase64.b64decode(text, validate=True)
    try:
        payload = _payload(text).translate(_URL_SAFE, b" ").rstrip(b"=")
        if not payload:
            raise InvalidBase64("base64_empty")
        return binascii.a2b_base64(payload + b"=" * (-len(payload) % 4), strict_mode=True)
    except ValueError as exc:
        raise InvalidBase64("base64_invalid") from exc


def _payload(text: str) -> bytes:
    """What stands behind the prefix, without white space other than blanks.

    Raises:
        InvalidBase64: it is no base64, for a reason that can be told.
        UnicodeEncodeError: it has other letters than those of ASCII.
    """
    start = text[:_LONGEST_PREFIX].lstrip()
    prefix = _DATA_URL.match(start)
    if prefix is None and start[:5].lower() == "data:":
        raise InvalidBase64("base64_data_url")
    skipped = len(text[:_LONGEST_PREFIX]) - len(start) + prefix.end() if prefix else 0
    # Bytes, not split and joined as text: that takes 15 times the memory where a body of 20 MB is all short lines.
    payload = text[skipped:].encode("ascii").translate(None, _NOT_BLANK).strip(b" ")
    if payload.startswith(_QUOTES):
        raise InvalidBase64("base64_quoted")
    if b"%" in payload:
        for escape, letter in _ESCAPES.items():
            payload = payload.replace(escape, letter).replace(escape.lower(), letter)
    if b" " in payload and not payload.translate(None, _ALPHABET) and not _separate_lines(payload):
        raise InvalidBase64("base64_blanks")
    return payload


def _separate_lines(payload: bytes) -> bool:
    """Whether its blanks separate lines; else the decoding of a form made them of ``+``.

    A whole text has four letters for three bytes, with its blanks or without. Where that leaves both possible, lines
    are of one length.
    """
    if any(letter in payload for letter in b"+-_"):
        return True
    blanks = payload.count(b" ")
    if blanks % 4 and (b"=" in payload or (len(payload) - blanks) % 4 == 0):
        return (len(payload) - blanks) % 4 == 0
    runs = [match.span() for match in itertools.islice(_BLANKS.finditer(payload), _RUNS)]
    lengths = {end - start for start, end in runs}
    distances = {after[0] - before[0] for before, after in itertools.pairwise(runs)}
    return len(lengths) == 1 and len(distances) <= 1
