"""GIF: the first frame, and what surrounds it."""

import struct
import unittest

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app import utils as service_utils
from unit_test.preprocess_service.picture_files import PIXELS, decode
from unit_test.preprocess_service.recipes import GEOMETRY

WIDTH, HEIGHT = 20, 16
RANDOM = np.random.default_rng(7)
GLOBAL, LOCAL = (RANDOM.integers(0, 256, (8, 3)) for _ in range(2))
BACKGROUND = 3


def blocks(indices: NDArray[np.int64]) -> bytes:
    """LZW of 3 bits that never lets its table grow: codes of 4 bits, and the one that clears it before every fifth."""
    codes = [
        code for place, index in enumerate(indices.ravel()) for code in ([8] * (place % 5 == 0) + [int(index)])
    ] + [9]
    codes += [0] * (len(codes) % 2)
    data = bytes(low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True))
    parts = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"\3" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def gif(
    indices: NDArray[np.int64],
    left: int = 0,
    top: int = 0,
    palette: NDArray[np.int64] | None = GLOBAL,
    local: NDArray[np.int64] | None = None,
    transparent: int | None = None,
) -> bytes:
    """A GIF of one frame on a canvas of 20 x 16."""
    height, width = indices.shape
    colours, own = (b"" if some is None else some.astype(np.uint8).tobytes() for some in (palette, local))
    data = b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, 0x82 if colours else 0, BACKGROUND, 0) + colours
    if transparent is not None:
        data += b"!\xf9\4" + struct.pack("<BHBB", 1, 0, transparent, 0)
    data += b"," + struct.pack("<HHHHB", left, top, width, height, 0x82 if own else 0) + own
    return data + blocks(indices) + b";"


class GifTest(unittest.TestCase):
    def test_the_frame_has_its_own_colours_and_the_rest_the_background(self) -> None:
        whole, part = RANDOM.integers(0, 8, (HEIGHT, WIDTH)), RANDOM.integers(0, 8, (8, 10))
        greys = np.repeat(np.arange(8)[:, None], 3, 1)
        for name, indices, options, colours, around in (
            ("whole", whole, {}, GLOBAL, None),
            ("whole, palette of its own", whole, {"local": LOCAL}, LOCAL, None),
            ("part", part, {}, GLOBAL, GLOBAL[BACKGROUND]),
            ("part, palette of its own", part, {"local": LOCAL}, LOCAL, GLOBAL[BACKGROUND]),
            ("part, no other palette", part, {"palette": None, "local": LOCAL}, LOCAL, np.full(3, 127)),
            ("part, greys", part, {"palette": greys}, greys, np.full(3, BACKGROUND)),
            ("part, transparent", part, {"transparent": 9}, GLOBAL, np.full(3, 127)),
        ):
            with self.subTest(name):
                top, left = (3, 4) if around is not None else (0, 0)
                expected = np.broadcast_to(around if around is not None else 0, (HEIGHT, WIDTH, 3)).copy()
                expected[top : top + len(indices), left : left + indices.shape[1]] = colours[indices]
                data = gif(indices, left, top, **options)
                np.testing.assert_array_equal(decode(data), expected)
                self.assertEqual(service_utils.decode_image(data, PIXELS, GEOMETRY).size, (WIDTH, HEIGHT))

    def test_one_index_is_transparent(self) -> None:
        indices = RANDOM.integers(0, 8, (HEIGHT, WIDTH))
        expected = np.where((indices == 2)[..., None], 127, GLOBAL[indices])
        np.testing.assert_array_equal(decode(gif(indices, transparent=2)), expected)


if __name__ == "__main__":
    unittest.main()
