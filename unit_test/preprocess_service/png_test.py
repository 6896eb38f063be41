"""PNG: every layout, transparent colours, and metadata that never refuse a picture."""

import itertools
import struct
import unittest
import zlib

import numpy as np
from PIL import Image

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging.decoders import png as png_module
from unit_test.preprocess_service.decoder_pool_test import save
from unit_test.preprocess_service.picture_files import PIXELS, chunk, decode, on_background, png, refusal
from unit_test.preprocess_service.recipes import GEOMETRY

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
LAYOUTS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
ANCILLARY = "tEXt zTXt iTXt iCCP gAMA cHRM sRGB pHYs eXIf tRNS acTL fcTL fdAT bKGD tIME sBIT prVt quuX"
RANDOM = np.random.default_rng(20)
LEVELS = RANDOM.integers(0, 256, (19, 23, 3))
PHOTO = png(LEVELS, RGB, 8)


def with_chunk(name: bytes, data: bytes, late: bool = False) -> bytes:
    return png(LEVELS, RGB, 8, **{"after" if late else "before": chunk(name, data)})


class LayoutTest(unittest.TestCase):
    def test_every_colour_type_and_depth_gives_the_pixels_that_it_says(self) -> None:
        for colour, passes in itertools.product(LAYOUTS, (0, 7)):
            for bits in LAYOUTS[colour]:
                with self.subTest(colour=colour, bits=bits, passes=passes):
                    most = (1 << bits) - 1
                    levels = RANDOM.integers(0, most + 1, (19, 23, CHANNELS[colour]))
                    shades, before = levels * 255 / most, b""
                    alpha = shades[..., -1] if colour in (GREY_ALPHA, RGBA) else np.full(levels.shape[:2], 255)
                    if colour == PALETTE:
                        palette = RANDOM.integers(0, 256, (most + 1, 3))
                        before = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
                        before += chunk(b"tRNS", bytes(range(255, 255 - (most + 1) // 2, -1)))
                        rgb = palette[levels[..., 0]]
                        alpha = np.where(levels[..., 0] < (most + 1) // 2, 255 - levels[..., 0], 255)
                    else:
                        rgb = shades[..., :3] if colour in (RGB, RGBA) else np.repeat(shades[..., :1], 3, 2)
                    found = decode(png(levels, colour, bits, before, passes=passes))
                    np.testing.assert_allclose(found, on_background(rgb, alpha), atol=2)

    def test_one_level_or_colour_of_any_depth_is_transparent_and_its_neighbours_are_not(self) -> None:
        for colour, bits in [(GREY, bits) for bits in LAYOUTS[GREY]] + [(RGB, 8), (RGB, 16)]:
            for extra in (0, 0 if bits == 16 else 1 << bits):
                with self.subTest(colour=colour, bits=bits, extra=extra):
                    most = (1 << bits) - 1
                    levels = RANDOM.integers(0, most + 1, (40, 30, CHANNELS[colour]))
                    levels[4:9] = transparent = levels[0, 0].copy()
                    # They differ in the lowest bit alone.
                    levels[12:14] = transparent
                    levels[12:14, :, 0] ^= 1
                    value = b"".join(struct.pack(">H", int(level) | extra) for level in transparent)
                    found = decode(png(levels, colour, bits, chunk(b"tRNS", value)))
                    rgb = np.broadcast_to(levels * 255 / most, (40, 30, 3))
                    expected = on_background(rgb, np.where((levels == transparent).all(2), 0, 255))
                    np.testing.assert_allclose(found, expected, atol=2)

    def test_grey_of_16_bits_means_the_same_however_dark_and_however_far_it_is_reduced(self) -> None:
        for value, transparency in ((200, b""), (200, chunk(b"tRNS", b"\0\1")), (60_000, chunk(b"tRNS", b"\0\1"))):
            levels = np.full((1200, 1000, 1), value)
            for picture in (None, GEOMETRY):
                with self.subTest(value=value, transparency=transparency, picture=picture is not None):
                    image = service_utils.decode_image(png(levels, GREY, 16, transparency), PIXELS, picture)
                    np.testing.assert_allclose(np.asarray(image), value * 255 / 65535, atol=1)


class MetadataTest(unittest.TestCase):
    def check_taken(self, name: str, data: bytes) -> None:
        with self.subTest(name):
            self.assertEqual(decode(data).tolist(), LEVELS.tolist())

    def test_large_texts_and_profiles_are_passed_over_before_and_after_the_pixels(self) -> None:
        packed = zlib.compress(bytes(3_000_000))
        for late in (False, True):
            self.check_taken(f"zTXt {late}", with_chunk(b"zTXt", b"key\0\0" + packed, late))
            self.check_taken(f"iTXt {late}", with_chunk(b"iTXt", b"key\0\1\0\0\0" + packed, late))
            self.check_taken(f"XMP {late}", with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed, late))
            self.check_taken(f"iCCP {late}", with_chunk(b"iCCP", b"name\0\0" + packed, late))
            self.check_taken(f"tEXt {late}", with_chunk(b"tEXt", b"key\0" + bytes(3_000_000), late))
            self.check_taken(f"eXIf {late}", with_chunk(b"eXIf", b"MM\0*\0\0\0\x08" + bytes(3_000_000), late))

    def test_texts_and_profiles_are_not_even_unpacked(self) -> None:
        packed = zlib.compress(bytes(1000))
        for name, data in ((b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0"), (b"iCCP", b"name\0\0")):
            kept = png_module.without_metadata(with_chunk(name, data + packed))
            self.assertNotIn(name, kept)
            self.assertIn(b"IDAT", kept)

    def test_a_fault_in_an_ancillary_chunk_never_refuses_a_picture(self) -> None:
        for late in (False, True):
            for name in (word.encode() for word in ANCILLARY.split()):
                for content in (b"", b"\0", b"\xff\xff", b"x\0\7\7\7", bytes(40)):
                    self.check_taken(f"{name!r} {content!r} {late}", with_chunk(name, content, late))
                sound = chunk(name, b"some text")
                for fault, broken in (
                    ("checksum", sound[:-1] + bytes([sound[-1] ^ 1])),
                    ("length beyond the file", b"\x7f\xff\xff\xff" + sound[4:]),
                    ("length a little too large", struct.pack(">I", 11) + sound[4:]),
                    ("length too small", struct.pack(">I", 3) + sound[4:]),
                    ("no length", bytes(4) + sound[4:]),
                ):
                    data = png(LEVELS, RGB, 8, **{"after" if late else "before": broken})
                    self.check_taken(f"{name!r} {fault} {late}", data)

    def test_text_between_the_pixels_is_passed_over(self) -> None:
        start = PHOTO.index(b"IDAT") - 4
        pixels = PHOTO[start + 8 : -16]
        parts = [chunk(b"IDAT", pixels[at : at + 100]) for at in range(0, len(pixels), 100)]
        data = PHOTO[:start] + chunk(b"tEXt", b"key\0between").join(parts) + chunk(b"IEND", b"")
        self.check_taken("between", data)

    def test_a_fault_in_the_pixels_does_refuse_it(self) -> None:
        place = PHOTO.index(b"IDAT")
        for name, data in (
            ("pixels", PHOTO[: place + 90] + bytes([PHOTO[place + 90] ^ 1]) + PHOTO[place + 91 :]),
            ("checksum of the pixels", PHOTO[:-13] + bytes([PHOTO[-13] ^ 1]) + PHOTO[-12:]),
            ("checksum of the header", PHOTO[:32] + bytes([PHOTO[32] ^ 1]) + PHOTO[33:]),
            ("no header", PHOTO[:8] + PHOTO[33:]),
            ("two headers", PHOTO[:33] + PHOTO[8:]),
            ("cut off", PHOTO[:-100]),
            ("no pixels", PHOTO[: place - 4] + chunk(b"IEND", b"")),
        ):
            with self.subTest(name):
                self.assertIsInstance(refusal(data), errors.InvalidImage)

    def test_the_variant_of_apple_is_named(self) -> None:
        self.assertIn("CgBI", str(refusal(PHOTO[:8] + chunk(b"CgBI", bytes(4)) + PHOTO[8:])))

    def test_the_orientation_is_read_from_exif_and_xmp_wherever_they_are(self) -> None:
        exif = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"
        xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
        for late in (False, True):
            for name, content in ((b"eXIf", exif + bytes(4)), (b"eXIf", exif + bytes(2_000_000)), (b"iTXt", xmp)):
                with self.subTest(name, late=late):
                    np.testing.assert_array_equal(decode(with_chunk(name, content, late)), np.rot90(LEVELS, -1))

    def test_of_an_animation_the_picture_itself_counts(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        data = save(frames[0], "PNG", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decode(data), np.broadcast_to([255, 0, 0], (8, 8, 3)))


if __name__ == "__main__":
    unittest.main()
