"""Content-Encoding: what a body was packed with on its way; undone while it comes in."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from starlette.datastructures import Headers

from preprocess_service.app.errors import ImageTooLarge, InvalidEncoding, UnsupportedEncoding

# Names of RFC 9110 (8.4.1) -> which of the two it is.
CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# One within the other.
MAX_CODINGS = 2
# A gzip file may be several, one behind the other. Each begins anew, and copies what is left of the part.
MAX_MEMBERS = 1000
# Bytes that are unpacked at a time; others have their turn in between.
PIECE_BYTES = 1 << 18
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


def content_codings(headers: Headers) -> list[str]:
    """What a body is packed with, the last one first.

    Raises:
        UnsupportedEncoding: with anything but ``CODINGS``, or more than ``MAX_CODINGS`` times.
    """
    sent = ",".join(headers.getlist("content-encoding"))
    names = [name for part in sent.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    unknown = [name for name in names if name not in CODINGS]
    if unknown or len(names) > MAX_CODINGS:
        raise UnsupportedEncoding("content_encoding", name=(unknown[0] if unknown else ", ".join(names))[:100])
    return [CODINGS[name] for name in reversed(names)]


async def unpack(parts: AsyncIterator[bytes], coding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """Unpack a body.

    Args:
        parts: of the body, as they come in.
        coding: ``gzip`` or ``deflate``.
        max_bytes: of what it is unpacked to.

    Yields:
        Its content, at most ``PIECE_BYTES`` at a time.

    Raises:
        InvalidEncoding: it is broken, or cut off.
        ImageTooLarge: it has more than ``max_bytes``.
    """
    unpacker, size = _Unpacker(coding), 0
    async for part in parts:
        try:
            for piece in unpacker.feed(part):
                size += len(piece)
                if size > max_bytes:
                    raise too_large(max_bytes)
                yield piece
                await asyncio.sleep(0)
        except zlib.error as exc:
            raise InvalidEncoding("encoding_broken", name=coding) from exc
    if not unpacker.is_complete:
        raise InvalidEncoding("encoding_cut", name=coding)


class _Unpacker:
    def __init__(self, coding: str) -> None:
        self._is_gzip = coding == "gzip"
        self._start = b""
        self._members = 0
        self._member = None if not self._is_gzip else self._next_member(_GZIP)

    @property
    def is_complete(self) -> bool:
        return self._member is not None and self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack a part; raises zlib.error."""
        if self._member is None:
            # Which of the two that are called deflate it is, the first two bytes tell (RFC 1950, 2.2).
            data = self._start = self._start + data
            if len(data) < 2:
                return
            is_zlib = data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._member = self._next_member(_ZLIB if is_zlib else _RAW)
        while data:
            if self._member.eof:
                # Zeros fill the last block of a tape.
                data = data.lstrip(b"\0") if self._is_gzip else data
                if not data:
                    return
                if not self._is_gzip:
                    raise zlib.error("something comes behind its end")
                self._member = self._next_member(_GZIP)
            piece = b"?"
            # What it has made and not given yet is none of the input that is left.
            while not self._member.eof and (data or len(piece) == PIECE_BYTES):
                piece = self._member.decompress(data, PIECE_BYTES)
                data = self._member.unconsumed_tail
                if piece:
                    yield piece
            data = self._member.unused_data

    def _next_member(self, kind: int) -> "zlib._Decompress":
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise zlib.error("too many members")
        return zlib.decompressobj(kind)


def too_large(max_bytes: int) -> ImageTooLarge:
    """The error that says that a body is over the limit, as it came or once it is unpacked."""
    return ImageTooLarge("body_bytes", megabytes=f"{max_bytes / 1e6:.3g}")
