"""Decodes base64 in the forms that clients send, or says why a text is not base64."""

import binascii
import contextlib
import itertools
import re
import string

import pybase64

from preprocess_service.app.errors import InvalidBase64

# Everything up to the first ";base64,": clients write types, parameters and file names in many ways.
_DATA_URL = re.compile(r"data:.*?;\s*base64\s*,", re.IGNORECASE | re.DOTALL)
# The prefix is searched in so many characters.
_LONGEST_PREFIX = 10_000
# The start of the text of a Python value, or of a JSON string within one.
_QUOTES = (b"b'", b'b"', b"'", b'"', b"\\")
_BLANKS = re.compile(rb" +")
# How many runs of blanks are checked. So many runs have equal distances only if they separate lines.
_RUNS = 64
_ALPHABET = (string.ascii_letters + string.digits + "+/-_= ").encode("ascii")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_NOT_BLANK = string.whitespace.replace(" ", "").encode("ascii")
# Percent-encoding of the alphabet and of white space in URLs.
_ESCAPES = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%0D": b"", b"%0A": b"", b"%20": b" "}


def decode_base64(text: str) -> bytes:
    """Decode base64. It may have line breaks, a ``data:`` prefix and the URL-safe alphabet, and may lack padding.

    Raises:
        InvalidBase64: the text is empty or has other characters than base64.
    """
    # Nearly all texts are plain base64. Any other text fails here and is handled below.
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
    """Return the text after the prefix, without white space other than blanks.

    Raises:
        InvalidBase64: it is not base64, for a known reason.
        UnicodeEncodeError: it has characters that are not ASCII.
    """
    start = text[:_LONGEST_PREFIX].lstrip()
    prefix = _DATA_URL.match(start)
    if prefix is None and start[:5].lower() == "data:":
        raise InvalidBase64("base64_data_url")
    skipped = len(text[:_LONGEST_PREFIX]) - len(start) + prefix.end() if prefix else 0
    # Work on bytes. To split and join text takes 15 times the memory if a body of 20 MB has only short lines.
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
    """Return whether blanks separate lines. Otherwise the decoding of a form turned ``+`` into blanks.

    Base64 has four letters for three bytes, so the number of letters is a multiple of four, either with the blanks or
    without. If both are possible, the blanks separate lines only if all lines have the same length.
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
