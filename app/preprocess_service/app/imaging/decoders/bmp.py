"""BMP: its supported variants, run-length encoding and alpha."""

from __future__ import annotations

import struct

from PIL import BmpImagePlugin, Image, ImageFile  # noqa: F401 - the first registers what is replaced below

_HEADERS = (12, 40, 52, 56, 64, 108, 124)
# OS/2 headers may end after any field. Pillow knows only the longest.
_SHORT_HEADERS = range(16, 64, 4)
_CORE = 12
_COMPRESSIONS = {0: "no compression", 1: "RLE8", 2: "RLE4", 3: "masks", 4: "a JPEG in it", 5: "a PNG in it", 6: "masks"}
_MASKS, _EMBEDDED, _HAS_ALPHA = 3, (4, 5), 56
_BITS = (1, 2, 4, 8, 16, 24, 32, 64)
# The masks of red, green, blue and alpha that Pillow knows, by bits per pixel.
_KNOWN_MASKS = {
    16: ((0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)),
    24: ((0xFF0000, 0xFF00, 0xFF, 0),),
    32: (
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        (0, 0, 0, 0),
    ),
}


def variant(data: bytes) -> str | None:
    """Return the unsupported variant of a BMP that could not be opened or decoded; None if it is broken."""
    if len(data) < 26:
        return None
    (size,) = struct.unpack_from("<I", data, 14)
    if size == _CORE:
        bits, compression = struct.unpack_from("<H", data, 24)[0], 0
    elif (size in _HEADERS or size in _SHORT_HEADERS) and len(data) >= 34:
        bits, compression = struct.unpack_from("<HI", data, 28)
    else:
        return None
    if compression not in _COMPRESSIONS or (bits not in _BITS and compression not in _EMBEDDED):
        return None
    if size not in _HEADERS:
        return f"BMP with a header of {size} bytes"
    if bits in (2, 64):
        return f"BMP of {bits} bits a pixel"
    if compression > _MASKS:
        return f"BMP with {_COMPRESSIONS[compression]}"
    if compression == _MASKS and len(data) >= 70:
        # Headers of versions 1 and 2 have no alpha mask, and Pillow uses one only for pixels of 32 bits.
        count = 4 if bits == 32 and size >= _HAS_ALPHA else 3
        masks = struct.unpack_from(f"<{count}I", data, 54)
        if (*masks, 0)[:4] not in _KNOWN_MASKS.get(bits, ()):
            named = " ".join(f"{mask:x}" for mask in masks)
            return f"BMP with bit masks {named}"
    return None


def load(image: Image.Image) -> Image.Image:
    """Decode an open BMP. If alpha is 0 everywhere, it was never written, and the picture is opaque."""
    image.load()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


class RunLengthDecoder(ImageFile.PyDecoder):
    """Decodes RLE4 and RLE8. Pillow's own decoder ends a row at an empty line, and adds pixels one by one."""

    _pulls_fd = True

    def decode(self, buffer: object) -> tuple[int, int]:
        assert self.fd is not None
        width, height = self.state.xsize, self.state.ysize
        pixels = _unpack_runs(self.fd.read(), width, height, is_4bit=bool(self.args[1]))
        self.set_as_raw(bytes(pixels), "L" if self.mode in ("1", "L") else "P", (0, self.args[-1]))
        return -1, 0


def _unpack_runs(data: bytes, width: int, height: int, is_4bit: bool) -> bytearray:
    """Return one byte per pixel, in the order of the file. Skipped and missing pixels are 0.

    Raises:
        EOFError: the data end before the picture.
    """
    pixels = bytearray(width * height)
    runs = [bytes((value >> 4, value & 15) if is_4bit else (value, value)) * 128 for value in range(256)]
    # The positions of the next pixel and of the end of its row. Pixels that do not fit into the row are ignored.
    at, row_end, place = 0, width, 0
    while row_end <= len(pixels):
        if place + 2 > len(data):
            raise EOFError("BMP ends before its picture")
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            end = at + count
            if end > row_end:
                end = max(at, row_end)
            pixels[at:end] = runs[value][: end - at]
            at = end
        elif value == 0:
            at, row_end = row_end, row_end + width
        elif value == 1:
            break
        elif value == 2:
            right, up = data[place : place + 2]
            at, row_end, place = at + right + up * width, row_end + up * width, place + 2
        else:
            size = -(-value // 2) if is_4bit else value
            levels = data[place : place + size]
            if len(levels) < size:
                raise EOFError("BMP ends before its picture")
            if is_4bit:
                levels = b"".join(runs[byte][:2] for byte in levels)
            end = min(at + value, max(at, row_end))
            pixels[at:end] = levels[: end - at]
            at = end
            # Padded to an even number of bytes.
            place += size + size % 2
    return pixels


# Replaces the decoder that the import of Pillow's plugin has registered.
Image.register_decoder("bmp_rle", RunLengthDecoder)
