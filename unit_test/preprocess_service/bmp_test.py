"""BMP: every header, depth, mask and run-length encoding has the pixels that it says, or is refused by name."""

import itertools
import unittest

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app import errors
from unit_test.preprocess_service.picture_files import bmp, decode, on_background, packed_rows, refusal

HEIGHT, WIDTH = 23, 37
HEADERS = (12, 40, 52, 56, 64, 108, 124)
MASKS = (0xFF0000, 0xFF00, 0xFF)
ALPHA_MASK = 0xFF000000
END_OF_LINE, END_OF_BITMAP = b"\0\0", b"\0\1"
RANDOM = np.random.default_rng(4)
RGB = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3))


def rows(levels: NDArray[np.int64], bits: int) -> bytes:
    """From the lowest row up, each filled up to 4 bytes."""
    return b"".join(packed_rows(levels[::-1], bits, "<", 32))


class BmpTest(unittest.TestCase):
    def test_every_header_and_depth_without_masks(self) -> None:
        for size, bits in itertools.product(HEADERS, (1, 4, 8, 16, 24, 32)):
            with self.subTest(size=size, bits=bits):
                if bits <= 8:
                    palette = RANDOM.integers(0, 256, (1 << bits, 3))
                    levels = RANDOM.integers(0, 1 << bits, (HEIGHT, WIDTH))
                    found = decode(bmp(WIDTH, HEIGHT, bits, rows(levels, bits), size, palette))
                    np.testing.assert_array_equal(found, palette[levels])
                elif bits == 16:
                    levels = RANDOM.integers(0, 1 << 15, (HEIGHT, WIDTH))
                    expected = np.stack([(levels >> shift & 31) * 255 / 31 for shift in (10, 5, 0)], 2)
                    np.testing.assert_allclose(decode(bmp(WIDTH, HEIGHT, 16, rows(levels, 16), size)), expected, atol=2)
                else:
                    # The fourth byte has no meaning.
                    blue_first = np.dstack([RGB[..., ::-1], RGB[..., :1]][: bits // 8 - 2])
                    found = decode(bmp(WIDTH, HEIGHT, bits, rows(blue_first, 8), size))
                    np.testing.assert_array_equal(found, RGB)

    def test_from_the_highest_row_down(self) -> None:
        data = b"".join(packed_rows(RGB[..., ::-1], 8, "<", 32))
        np.testing.assert_array_equal(decode(bmp(WIDTH, -HEIGHT, 24, data)), RGB)

    def test_alpha_that_is_0_everywhere_was_never_written(self) -> None:
        for size in (56, 108, 124):
            for name, alpha, seen in (
                ("0 everywhere", np.zeros((HEIGHT, WIDTH), np.int64), 255),
                ("0 but for one pixel", np.eye(HEIGHT, WIDTH, dtype=np.int64) * 200, None),
                ("any", RANDOM.integers(0, 256, (HEIGHT, WIDTH)), None),
            ):
                with self.subTest(name, size=size):
                    levels = rows(np.dstack([RGB[..., ::-1], alpha]), 8)
                    found = decode(bmp(WIDTH, HEIGHT, 32, levels, size, compression=3, masks=(*MASKS, ALPHA_MASK)))
                    np.testing.assert_allclose(
                        found, on_background(RGB, alpha if seen is None else alpha + seen), atol=2
                    )

    def test_masks_of_16_bits(self) -> None:
        for size, green in itertools.product((40, 52, 56, 108, 124), (5, 6)):
            with self.subTest(size=size, green=green):
                levels = RANDOM.integers(0, 1 << 16, (HEIGHT, WIDTH))
                fields = ((5 + green, 5), (5, green), (0, 5))
                expected = np.stack(
                    [(levels >> shift & (1 << bits) - 1) * 255 / ((1 << bits) - 1) for shift, bits in fields], 2
                )
                masks = [(1 << bits) - 1 << shift for shift, bits in fields]
                data = bmp(WIDTH, HEIGHT, 16, rows(levels, 16), size, compression=3, masks=masks)
                np.testing.assert_allclose(decode(data), expected, atol=2)

    def test_runs_rows_and_jumps_of_both_encodings(self) -> None:
        for bits in (4, 8):
            palette = RANDOM.integers(0, 256, (1 << bits, 3))
            levels = np.repeat(RANDOM.integers(0, 1 << bits, (HEIGHT, 10)), 4, 1)[:, :WIDTH]
            levels[[3, 4, 9]] = levels[:, -5:] = levels[:, 8:12] = 0
            for name, encode in (("runs", self.runs), ("absolute", self.absolute), ("jumps", self.jumps)):
                with self.subTest(name, bits=bits):
                    data = END_OF_LINE.join(encode([int(level) for level in row], bits) for row in levels[::-1])
                    data += END_OF_BITMAP
                    found = decode(bmp(WIDTH, HEIGHT, bits, data, palette=palette, compression=1 if bits == 8 else 2))
                    np.testing.assert_array_equal(found, palette[levels])

    def runs(self, row: list[int], bits: int) -> bytes:
        parts = ((level, len(list(same))) for level, same in itertools.groupby(row))
        return b"".join(bytes([count, level if bits == 8 else level * 17]) for level, count in parts)

    def absolute(self, row: list[int], bits: int) -> bytes:
        coded = bytes(row) if bits == 8 else b"".join(packed_rows(np.array([row]), 4))
        return bytes([0, len(row)]) + coded + bytes(len(coded) % 2)

    def jumps(self, row: list[int], bits: int) -> bytes:
        """Zeros are passed over, and so is the rest of a row."""
        data, passed = b"", 0
        for level in row:
            if level:
                data += bytes([0, 2, passed, 0]) * (passed > 0) + bytes([1, level if bits == 8 else level << 4])
            passed = 0 if level else passed + 1
        return data

    def test_what_ends_before_its_last_row_is_broken_unless_it_says_so(self) -> None:
        palette = RANDOM.integers(0, 256, (256, 3))
        row = bytes([WIDTH, 7])
        for end, is_sound in ((END_OF_BITMAP, True), (b"", False), (b"\0", False), (b"\0\x09abc", False)):
            with self.subTest(end):
                data = bmp(WIDTH, HEIGHT, 8, row + END_OF_LINE + end, palette=palette, compression=1)
                if is_sound:
                    np.testing.assert_array_equal(decode(data)[-1], np.broadcast_to(palette[7], (WIDTH, 3)))
                else:
                    self.assertIsInstance(refusal(data), errors.InvalidImage)

    def test_other_kinds_are_named_and_what_is_broken_is_not(self) -> None:
        pixels = bytes(4 * WIDTH * HEIGHT)
        for name, data in (
            ("BMP of 2 bits", bmp(WIDTH, HEIGHT, 2, pixels)),
            ("BMP of 64 bits", bmp(WIDTH, HEIGHT, 64, pixels)),
            ("BMP with bit masks f00 f0 f", bmp(WIDTH, HEIGHT, 16, pixels, compression=3, masks=(0xF00, 0xF0, 0xF))),
            ("BMP with a JPEG in it", bmp(WIDTH, HEIGHT, 0, pixels, compression=4)),
            ("BMP with a PNG in it", bmp(WIDTH, HEIGHT, 0, pixels, compression=5)),
            ("BMP with a header of 48 bytes", bmp(WIDTH, HEIGHT, 24, pixels, size=48)),
        ):
            with self.subTest(name):
                error = refusal(data)
                self.assertIsInstance(error, errors.UnsupportedMediaType)
                self.assertIn(name, str(error))
        masked = bmp(WIDTH, HEIGHT, 32, pixels, 124, compression=3, masks=(*MASKS, ALPHA_MASK))
        for data in (masked[:200], bmp(WIDTH, HEIGHT, 24, bytes(100)), b"BM" + bytes(60), b"BM"):
            self.assertIsInstance(refusal(data), errors.InvalidImage)


if __name__ == "__main__":
    unittest.main()
