"""AVIF: pictures of one colour take very few bytes in any size."""

import functools
import struct
from io import BytesIO

from PIL import Image

from tools.chaos.hostile import hostile

SIDE = 7136


@functools.cache
def flat(mode: str, side: int, subsampling: str = "4:2:0") -> bytes:
    """Return a square picture of one colour from Pillow's encoder."""
    file = BytesIO()
    Image.new(mode, (side, side)).save(file, "AVIF", speed=10, quality=20, codec="aom", subsampling=subsampling)
    return file.getvalue()


def with_size(file: bytes, width: int, height: int) -> bytes:
    """Return the file with another size in its header (box `ispe`). Decoders do not need that size."""
    at = file.index(b"ispe") + 8
    return file[:at] + struct.pack(">II", width, height) + file[at + 8 :]


@hostile("AVIF: 51 MP in 970 bytes")
def few_bytes() -> bytes:
    """50,000 pixels per byte: 32 of these pictures are a request of 42 KB."""
    return flat("RGB", SIDE)


@hostile("AVIF: 51 MP of 4:4:4 and alpha")
def full_colour() -> bytes:
    """The maximum number of planes, all of full size."""
    return flat("RGBA", SIDE, "4:4:4")


@hostile("AVIF: 144 MP that say that they are 16 x 16", short=True)
def hidden_size() -> bytes:
    """The header, which is checked, has another size than the coded picture."""
    return with_size(flat("L", 12_000, "4:0:0"), 16, 16)


@hostile("AVIF: 16 x 16 that say that they are 51 MP")
def pretended_size() -> bytes:
    """If memory is reserved by the header, it is far too much."""
    return with_size(flat("RGB", 16), SIDE, SIDE)


@hostile("AVIF: 51 MP, cut off")
def cut_off() -> bytes:
    """It is rejected after most of it was decoded."""
    return flat("RGB", SIDE, "4:4:4")[:-100]


@hostile("AVIF: 2,000 frames")
def frames() -> bytes:
    """Only the first frame is used, but the decoder reads the list of all."""
    file = BytesIO()
    others = [Image.new("RGB", (16, 16), (number % 256, 0, 0)) for number in range(2_000)]
    Image.new("RGB", (16, 16)).save(file, "AVIF", save_all=True, append_images=others, speed=10, codec="aom")
    return file.getvalue()
