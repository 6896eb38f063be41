"""GIF."""

import struct

from tools.chaos.hostile import hostile


def head(width: int, height: int) -> bytes:
    """Return the header: the screen, and a palette of two colours."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)


def frame(width: int, height: int, data: bytes, flags: int = 0) -> bytes:
    """Return a frame with the LZW codes ``data``, which begin with 8 bits per pixel."""
    blocks = b"".join(bytes([len(part)]) + part for part in (data[at : at + 255] for at in range(0, len(data), 255)))
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, flags) + b"\x08" + blocks + b"\0"


def codes(pixels: int) -> bytes:
    """Return LZW codes for ``pixels`` pixels of colour 0. Their runs grow until the table has 4096 entries."""
    number, length, done = 256, 9, 0
    parts = []
    while done < pixels:
        # The first code of a round still has the former length, because the table is cleared after it.
        for code in (0, *range(258, 4096), 256):
            width = 12 if code == 256 else 9 if code < 512 else 10 if code < 1024 else 11 if code < 2048 else 12
            number |= code << length
            length += width
            done += 0 if code == 256 else max(1, code - 256)
            if done >= pixels:
                break
        # Complete bytes are stored, so that the number stays short.
        parts.append((number & ((1 << length // 8 * 8) - 1)).to_bytes(length // 8, "little"))
        number >>= length // 8 * 8
        length %= 8
    number |= 257 << length
    return b"".join(parts) + number.to_bytes(3, "little")


@hostile("GIF: 51 MP in LZW")
def lzw() -> bytes:
    """The maximum number of pixels per byte in LZW: two thousand."""
    return head(7140, 7140) + frame(7140, 7140, codes(7140 * 7140)) + b";"


@hostile("GIF: 51 MP in LZW, interlaced")
def interlaced() -> bytes:
    """The rows come in another order, each far from the last."""
    return head(7140, 7140) + frame(7140, 7140, codes(7140 * 7140), 0x40) + b";"


@hostile("GIF: frame of 20,000 x 20,000 on a screen of 16 x 16")
def large_frame() -> bytes:
    """The header has the size of the screen, but the frame is decoded."""
    return head(16, 16) + frame(20_000, 20_000, codes(20_000 * 20_000)) + b";"


@hostile("GIF: a comment in a million pieces")
def comment() -> bytes:
    """Appending each piece copies all pieces before it, a million times."""
    return head(16, 16) + b"!\xfe" + b"\1x" * 1_000_000 + b"\0" + frame(16, 16, codes(256)) + b";"


@hostile("GIF: a million extensions")
def extensions() -> bytes:
    """Each is parsed in Python, before the size of the first frame is known."""
    return head(16, 16) + b"!\xf9\x04\0\0\0\0\0" * 1_000_000 + frame(16, 16, codes(256)) + b";"


@hostile("GIF: 100,000 frames")
def frames() -> bytes:
    """Only the first frame is used, but counting all of them takes long."""
    return head(16, 16) + (b"!\xf9\x04\x08\1\0\0\0" + frame(16, 16, codes(256))) * 100_000 + b";"
