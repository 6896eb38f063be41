"""JPEG: its coding, and the removal of its metadata (ITU T.81)."""

from __future__ import annotations

from collections.abc import Iterator

_END, _SCAN = 0xD9, 0xDA
# Markers without a segment.
_BARE = {0x01, *range(0xD0, 0xD9)}
# Frames (B.1.1.3): sequential and progressive DCT, with Huffman and arithmetic coding; lossless with Huffman coding.
_DCT = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_LOSSLESS, _LOSSLESS_MARKER = 0xC3, b"\xff\xc3"
_HIERARCHICAL, _LOSSLESS_ARITHMETIC = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE}, 0xCB
_JPEG_LS = 0xF7
_FRAMES = {*_DCT, _LOSSLESS, *_HIERARCHICAL, _LOSSLESS_ARITHMETIC, _JPEG_LS}
_APPLICATION, _COMMENT = range(0xE0, 0xF0), 0xFE
# The segments that define the colours, with their prefix and minimum length in bytes.
_COLOUR = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}


def is_reducible(data: bytes, headers: int) -> bool:
    """Return whether a JPEG can be decoded at a reduced scale. That is possible only with DCT coding.

    Args:
        headers: the number of bytes of ``data`` before the pixels; 0 if unknown.
    """
    # Nearly all JPEGs have DCT coding. For most files this search is enough.
    if data.find(_LOSSLESS_MARKER, 0, headers or len(data)) < 0:
        return True
    return next((marker in _DCT for marker, _, _ in _segments(data) if marker in _FRAMES), False)


def variant(data: bytes) -> str | None:
    """Return the variant of a JPEG that can't be decoded; None for all others."""
    for marker, start, end in _segments(data):
        if marker not in _FRAMES:
            continue
        bits, components = (data[start + 4], data[start + 9]) if end - start >= 10 else (0, 0)
        if end - start != 10 + 3 * components:
            return None
        if marker == _JPEG_LS:
            return "JPEG-LS"
        if marker in _HIERARCHICAL:
            return "hierarchical JPEG"
        if marker == _LOSSLESS_ARITHMETIC:
            return "lossless JPEG with arithmetic coding"
        if bits == 12 or (marker == _LOSSLESS and 2 <= bits <= 16 and bits != 8):
            name = "lossless JPEG" if marker == _LOSSLESS else "JPEG"
            return f"{name} of {bits} bits a channel"
        if components == 2:
            return "JPEG of 2 channels"
        return None
    return None


def without_metadata(data: bytes) -> tuple[bytes, bytes]:
    """Return a JPEG without comments and application data, except those that define its colours; and its EXIF."""
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    view, exif, place = memoryview(data), b"", 2
    for marker, start, end in _segments(data):
        place = end
        content = view[start + 4 : end]
        if marker == _SCAN:
            place = start
            break
        if marker in _APPLICATION or marker == _COMMENT:
            prefix, least = _COLOUR.get(marker, (b"", 0))
            if marker == 0xE1 and not exif and data.startswith(b"Exif\0\0", start + 4):
                exif = bytes(content)
            if not least or not data.startswith(prefix, start + 4) or len(content) < least:
                continue
        kept.append(view[start:end])
    return b"".join([*kept, view[place:]]), exif


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to the first scan. Bytes between segments are skipped."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in (0x00, 0xFF) or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == _END:
            return
        end = place + 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
        yield marker, place, min(end, len(data))
        if marker == _SCAN:
            return
        place = end
