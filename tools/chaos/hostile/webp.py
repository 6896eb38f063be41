"""WebP: in its lossless form, pixels that are all equal take no bits."""

import struct
from io import BytesIO

from PIL import Image

from tools.chaos.hostile import hostile
from tools.chaos.hostile.bits import Bits

# The side of the limit for this format, which is half of the pixels of others.
SIDE = 5049
# A prefix code with the single symbol 0; it uses no further bits.
ONE_SYMBOL = (1, 4)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WEBP" + b"".join(chunks))


def start(width: int, height: int) -> Bits:
    """Return the header of a lossless picture with transparency."""
    return Bits(lowest_first=True).add(0x2F, 8).add(width - 1, 14).add(height - 1, 14).add(1, 1).add(0, 3)


def codes(bits: Bits, green: int = 0) -> Bits:
    """Add five codes with one symbol each: green, red, blue, alpha and distance."""
    bits.add(0b101, 3).add(green, 8)
    for _ in range(4):
        bits.add(*ONE_SYMBOL)
    return bits


def flat(width: int, height: int) -> bytes:
    """Return a transparent picture without transforms and cache, and with one group of codes."""
    return codes(start(width, height).add(0, 1).add(0, 1).add(0, 1)).to_bytes()


@hostile("WEBP: 25 MP in 40 bytes", short=True)
def few_bytes() -> bytes:
    """Equal pixels take no bits. Pillow's decoder is one for animations, which stores the picture four times."""
    return webp(chunk(b"VP8L", flat(SIDE, SIDE)))


@hostile("WEBP: 25 MP in 50 bytes, with all transforms")
def transforms() -> bytes:
    """Each pixel is predicted from its neighbours by the slowest rule, and its colours from each other."""
    bits = start(SIDE, SIDE)
    # Predictor and colour transform, each with a small picture of blocks of 512 pixels; then green.
    for kind, green in ((0, 13), (1, 1)):
        codes(bits.add(1, 1).add(kind, 2).add(7, 3).add(0, 1), green)
    bits.add(1, 1).add(2, 2)
    return webp(chunk(b"VP8L", codes(bits.add(0, 1).add(0, 1).add(0, 1)).to_bytes()))


@hostile("WEBP: 65,536 groups of codes")
def groups() -> bytes:
    """Each block of 4 x 4 pixels has five codes in 20 bits, and a decoder creates a table for each: 400 MB."""
    bits = start(1024, 1024).add(0, 1).add(0, 1)
    # Groups per block of 4. A picture of 256 x 256 selects them: no cache, 8 bits for green and red, no bits for the
    # rest.
    bits.add(1, 1).add(0, 3).add(0, 1)
    for symbols in (280, 256):
        # A code for code lengths: two symbols, 0 (no code) and 8, with one bit each. Then the lengths of all symbols.
        bits.add(0, 1).add(12 - 4, 4)
        for length in (0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1):
            bits.add(length, 3)
        bits.add(0, 1).add((1 << 256) - 1, symbols)
    for _ in range(3):
        bits.add(*ONE_SYMBOL)
    for number in range(65_536):
        bits.add(number, 16)
    for _ in range(5 * 65_536):
        bits.add(*ONE_SYMBOL)
    return webp(chunk(b"VP8L", bits.to_bytes()))


@hostile("WEBP: 25 MP with losses")
def lossy() -> bytes:
    """The lossy form, with flat blocks: each is still predicted, transformed and filtered."""
    file = BytesIO()
    Image.new("RGB", (SIDE, SIDE), (90, 120, 40)).save(file, "WEBP", quality=0, method=0)
    return file.getvalue()


def extended(width: int, height: int, animated: bool = True) -> bytes:
    """Return the header of a file with more than one picture: the size of the canvas."""
    flags = 0x12 if animated else 0x10
    return chunk(b"VP8X", struct.pack("<I", flags) + _three(width - 1) + _three(height - 1))


def _three(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


def frame(width: int, height: int) -> bytes:
    """Return a frame in the upper left corner of the canvas."""
    head = bytes(6) + _three(width - 1) + _three(height - 1) + _three(1) + b"\0"
    return chunk(b"ANMF", head + chunk(b"VP8L", flat(width, height)))


ANIMATION = chunk(b"ANIM", bytes(6))


@hostile("WEBP: canvas of 16,384 x 16,384, frame of 1 x 1")
def large_canvas() -> bytes:
    """A decoder allocates the canvas twice before its size can be checked."""
    return webp(extended(16_384, 16_384), ANIMATION, frame(1, 1))


@hostile("WEBP: canvas of 16 x 16, picture of 16,383 x 16,383")
def small_canvas() -> bytes:
    """The header has the size of the canvas, but the picture is decoded."""
    return webp(extended(16, 16, animated=False), chunk(b"VP8L", flat(16_383, 16_383)))


@hostile("WEBP: canvas of 16 x 16, frame of 16,383 x 16,383")
def large_frame() -> bytes:
    """The same in an animation."""
    return webp(extended(16, 16), ANIMATION, frame(16_383, 16_383))


@hostile("WEBP: 100,000 frames")
def frames() -> bytes:
    """Only the first frame is used, but all of them are listed."""
    return webp(extended(16, 16), ANIMATION, frame(16, 16) * 100_000)


@hostile("WEBP: cut off, 25 MP")
def cut_off() -> bytes:
    """It is rejected after the canvas was allocated."""
    return webp(extended(SIDE, SIDE), ANIMATION, frame(SIDE, SIDE))[:-8]
