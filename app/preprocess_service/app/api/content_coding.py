"""Content-Encoding: decompresses a request body while it arrives."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from starlette.datastructures import Headers

from preprocess_service.app.errors import ImageTooLarge, InvalidEncoding, UnsupportedEncoding

# The names of RFC 9110 (8.4.1), and the coding that each means.
CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# How many codings may be applied one after the other.
MAX_CODINGS = 2
# A gzip file may have several members in sequence. Each one starts a new decompressor, which copies the remaining data.
MAX_MEMBERS = 1000
# Bytes that are decompressed at a time. In between, other tasks of the event loop run.
PIECE_BYTES = 1 << 18
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


def content_codings(headers: Headers) -> list[str]:
    """Return the codings of a body in the order in which to undo them.

    Raises:
        UnsupportedEncoding: a coding is not one of ``CODINGS``, or there are more than ``MAX_CODINGS``.
    """
    sent = ",".join(headers.getlist("content-encoding"))
    names = [name for part in sent.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    unknown = [name for name in names if name not in CODINGS]
    if unknown or len(names) > MAX_CODINGS:
        raise UnsupportedEncoding("content_encoding", name=(unknown[0] if unknown else ", ".join(names))[:100])
    return [CODINGS[name] for name in reversed(names)]


async def unpack(parts: AsyncIterator[bytes], coding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """Decompress a body.

    Args:
        parts: the parts of the body as they arrive.
        coding: ``gzip`` or ``deflate``.
        max_bytes: limit on the decompressed size.

    Yields:
        Its content, at most ``PIECE_BYTES`` at a time.

    Raises:
        InvalidEncoding: the body is broken or truncated.
        ImageTooLarge: the content has more than ``max_bytes``.
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
        """Decompress a part; raises zlib.error."""
        if self._member is None:
            # Clients send both zlib and raw DEFLATE data as "deflate". The first two bytes tell which (RFC 1950, 2.2).
            data = self._start = self._start + data
            if len(data) < 2:
                return
            is_zlib = data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._member = self._next_member(_ZLIB if is_zlib else _RAW)
        while data:
            if self._member.eof:
                # Zero bytes at the end are padding, as on tapes.
                data = data.lstrip(b"\0") if self._is_gzip else data
                if not data:
                    return
                if not self._is_gzip:
                    raise zlib.error("there are data after the end")
                self._member = self._next_member(_GZIP)
            piece = b"?"
            # A full piece: the decompressor may still hold output, even if no input is left.
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
    """Return the error for a body over the limit, as received or decompressed."""
    return ImageTooLarge("body_bytes", megabytes=f"{max_bytes / 1e6:.3g}")
