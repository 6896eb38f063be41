"""PNG: the removal of its metadata, and its transparent colours."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngImageFile

from preprocess_service.app.errors import InvalidImage
from preprocess_service.app.imaging.kinds import unsupported_variant

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT")
_END = b"\0\0\0\0IEND\xaeB`\x82"
# XMP that is not compressed.
_TEXT, _XMP = b"iTXt", b"XML:com.adobe.xmp\0\0"
_GREY, _RGB, _PALETTE = 0, 2, 3
# The next chunk that is needed, after a chunk whose length is wrong.
_NEXT = re.compile(rb"PLTE|tRNS|IDAT|IEND")
_NAME = re.compile(rb"[A-Za-z]{4}")
# Length, name and checksum.
_FRAME_BYTES = 12


def without_metadata(data: bytes) -> bytes:
    """Return a PNG with only the chunks that the pixels depend on, and the metadata with the orientation.

    Pillow unpacks texts and profiles, and rejects a picture for a fault in any chunk. Here, an ancillary chunk with a
    fault (PNG 3rd edition, 5.4) is dropped. A critical chunk with a fault is an error.

    Raises:
        InvalidImage: a critical chunk has a wrong checksum or is in the wrong place.
        UnsupportedMediaType: Apple's own variant, which packs and orders the pixels differently.
    """
    if data.startswith(b"CgBI", len(_SIGNATURE) + 4):
        raise unsupported_variant("PNG of an iPhone app (CgBI)")
    # The first chunk of each type. They go before the pixels: Pillow reads later metadata too late.
    kept: dict[bytes, bytes | memoryview] = {}
    view = memoryview(data)
    # Start and end of each run of consecutive pixel chunks.
    pixels: list[tuple[int, int]] = []
    for start, name, end in _chunks(data):
        is_critical = name in _CRITICAL
        if not (is_critical or name in (b"tRNS", b"eXIf") or (name == _TEXT and data.startswith(_XMP, start + 8))):
            continue
        is_sound = zlib.crc32(view[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if (name == b"IHDR") != (start == len(_SIGNATURE)) or (is_critical and not is_sound) or end > len(data):
            raise InvalidImage("image_broken")
        if name == b"IDAT":
            if pixels and pixels[-1][1] == start:
                start = pixels.pop()[0]
            pixels.append((start, end))
        elif is_sound and not (pixels and name in (b"PLTE", b"tRNS")):
            is_transparency = name == b"tRNS"
            kept.setdefault(name, _transparency(data, start, end) if is_transparency else view[start:end])
    return b"".join([_SIGNATURE, *kept.values(), *(view[start:end] for start, end in pixels), _END])


def _chunks(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield start, name and end of each chunk. An ancillary chunk with an impossible length is skipped."""
    start = len(_SIGNATURE)
    while start + _FRAME_BYTES <= len(data):
        name = data[start + 4 : start + 8]
        if name == b"IEND":
            return
        end = start + _FRAME_BYTES + int.from_bytes(data[start : start + 4], "big")
        following = data[end + 4 : end + 8]
        if name in _CRITICAL or (end <= len(data) and (len(following) < 4 or _NAME.fullmatch(following))):
            yield start, name, end
            start = end
        elif found := _NEXT.search(data, start + 8):
            start = found.start() - 4
        else:
            return


def _transparency(data: bytes, start: int, end: int) -> bytes:
    """Return the chunk tRNS scaled to 8 bits if the file has fewer, because Pillow compares it with 8-bit pixels."""
    value, bits, colour = data[start + 8 : end - 4], *data[24:26]
    if colour == _PALETTE:
        levels = value if len(value) <= 256 else b""
    elif len(value) == {_GREY: 2, _RGB: 6}.get(colour):
        most = (1 << bits) - 1
        scale = 255 // most if bits < 8 else 1
        levels = b"".join(struct.pack(">H", (level & most) * scale) for (level,) in struct.iter_unpack(">H", value))
    else:
        levels = b""
    chunk = b"tRNS" + levels
    return struct.pack(">I", len(levels)) + chunk + struct.pack(">I", zlib.crc32(chunk)) if levels else b""


def has_deep_transparency(image: Image.Image, data: bytes) -> bool:
    """Return whether one colour of 16 bits per channel is transparent. Pillow keeps only 8 bits of it."""
    return isinstance(image, PngImageFile) and data[24:26] == bytes([16, _RGB]) and "transparency" in image.info


def load_deep_transparency(image: Image.Image, data: bytes) -> Image.Image:
    """Decode such a picture as RGBA. Its lower bytes are compared with the transparent colour too."""
    colour = image.info.pop("transparency")
    image.load()
    with Image.open(io.BytesIO(data), formats=["PNG"]) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        opaque: Image.Image | None = None
        for part, shift in ((image, 8), (lower, 0)):
            for channel, value in enumerate(colour):
                level = value >> shift & 0xFF
                differs = part.getchannel(channel).point([255 * (one != level) for one in range(256)])
                opaque = ImageChops.lighter(opaque, differs) if opaque else differs
    assert opaque is not None
    image.putalpha(opaque)
    return image
