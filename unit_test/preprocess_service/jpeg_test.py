"""JPEG: colours and codings as another library decodes them, and metadata that never refuse a picture."""

import unittest

import imagecodecs
import numpy as np

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging.resize import resize
from unit_test.preprocess_service.picture_files import PIXELS, decode, refusal, segment
from unit_test.preprocess_service.recipes import GEOMETRY

HEIGHT, WIDTH = 520, 600
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([COLUMN * 255 // WIDTH, ROW * 255 // HEIGHT, (ROW + COLUMN) * 255 // (HEIGHT + WIDTH)], 2).astype(
    np.uint8
)
CMYK = np.dstack([RGB, np.full((HEIGHT, WIDTH), 200, np.uint8)])
SOI = b"\xff\xd8"


class CodingTest(unittest.TestCase):
    def test_every_colour_space_is_as_the_other_library_decodes_it(self) -> None:
        for name, levels, options in (
            ("grey", RGB[..., 0], {}),
            ("YCbCr", RGB, {"colorspace": "rgb", "outcolorspace": "ycbcr"}),
            ("RGB", RGB, {"colorspace": "rgb", "outcolorspace": "rgb"}),
            ("CMYK", CMYK, {"colorspace": "cmyk", "outcolorspace": "cmyk"}),
            ("YCCK", CMYK, {"colorspace": "cmyk", "outcolorspace": "ycck"}),
        ):
            with self.subTest(name):
                data = imagecodecs.jpeg8_encode(np.ascontiguousarray(levels), level=95, **options)
                if levels is CMYK:
                    # As every program does it, ink is what is missing.
                    ink = imagecodecs.jpeg8_decode(data, outcolorspace="cmyk").astype(float)
                    expected = ink[..., :3] * ink[..., 3:] / 255
                else:
                    expected = imagecodecs.jpeg8_decode(data)
                    expected = np.broadcast_to(expected.reshape(HEIGHT, WIDTH, -1), RGB.shape)
                np.testing.assert_allclose(decode(data), expected, atol=2)

    def test_a_lossless_one_is_decoded_at_every_size(self) -> None:
        for levels in (RGB, RGB[..., 0], RGB[:500, :500], RGB[:512, :512]):
            with self.subTest(levels.shape):
                data = imagecodecs.jpeg8_encode(np.ascontiguousarray(levels), lossless=True)
                expected = np.broadcast_to(levels.reshape(*levels.shape[:2], -1), (*levels.shape[:2], 3))
                np.testing.assert_array_equal(decode(data), expected)
                with service_utils.open_image(data, PIXELS, GEOMETRY) as opened:
                    self.assertFalse(opened.one_scan)
                reduced = service_utils.decode_image(data, PIXELS, GEOMETRY)
                found = resize(reduced, GEOMETRY).astype(int)
                whole = resize(service_utils.decode_image(data, PIXELS), GEOMETRY)
                np.testing.assert_allclose(found, whole, atol=2)

    def test_what_cannot_be_decoded_is_named(self) -> None:
        frame = b"\x08\0\x10\0\x10\x01\x01\x11\0"
        scan = segment(0xDA, b"\x01\x01\0\0\x3f\0") + bytes(20)
        for name, data in (
            ("JPEG of 12 bits", imagecodecs.jpeg8_encode(RGB.astype(np.uint16) << 4, level=95, bitspersample=12)),
            *(
                (
                    f"lossless JPEG of {bits} bits",
                    imagecodecs.jpeg8_encode(RGB.astype(np.uint16) << bits - 8, lossless=True, bitspersample=bits),
                )
                for bits in (10, 12, 16)
            ),
            ("JPEG-LS", imagecodecs.jpegls_encode(RGB)),
            ("hierarchical JPEG", SOI + segment(0xC5, frame) + scan),
            ("lossless JPEG with arithmetic coding", SOI + segment(0xCB, frame) + scan),
            ("JPEG of 2 channels", SOI + segment(0xC0, b"\x08\0\x10\0\x10\x02\x01\x11\0\x02\x11\0") + scan),
        ):
            with self.subTest(name):
                error = refusal(data)
                self.assertIsInstance(error, errors.UnsupportedMediaType)
                self.assertIn(f"not supported: {name}", str(error))

    def test_what_is_broken_is_not_called_another_kind(self) -> None:
        data = imagecodecs.jpeg8_encode(RGB, level=95)
        for broken in (
            data[:2],
            data[:3],
            data[:20],
            data[:200],
            data[: len(data) // 2],
            SOI + b"\xff\xee" + bytes(30),
        ):
            with self.subTest(len(broken)):
                self.assertIsInstance(refusal(broken), errors.InvalidImage)


class MetadataTest(unittest.TestCase):
    def test_no_fault_in_application_data_refuses_a_picture(self) -> None:
        photo = imagecodecs.jpeg8_encode(RGB, level=95, colorspace="rgb", outcolorspace="ycbcr")
        expected = decode(photo)
        for name, content in (
            ("Adobe, 5 bytes", segment(0xEE, b"Adobe")),
            ("Adobe, 6 bytes", segment(0xEE, b"Adobe\0")),
            ("Adobe, 11 bytes", segment(0xEE, b"Adobe\0d\0\0\0\0")),
            ("JFIF, 5 bytes", segment(0xE0, b"JFIF\0")),
            ("profile", segment(0xE2, b"ICC_PROFILE\0")),
            ("several pictures", segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff")),
            ("EXIF", segment(0xE1, b"Exif\0\0MM\0*\0\0\0\xff")),
            ("resources", segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02ab")),
            ("length 0", b"\xff\xe5\0\0"),
            ("length 1", b"\xff\xe5\0\x01"),
            ("no comment", segment(0xFE, b"")),
            ("bytes that are nothing", b"\0\x01\x02"),
        ):
            with self.subTest(name):
                np.testing.assert_array_equal(decode(SOI + content + photo[2:]), expected)

    def test_its_orientation_stays_where_other_metadata_are_broken(self) -> None:
        photo = imagecodecs.jpeg8_encode(RGB, level=95)
        exif = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
        expected = np.rot90(decode(photo), -1)
        for broken in (b"", segment(0xEE, b"Adobe")):
            np.testing.assert_array_equal(decode(SOI + exif + broken + photo[2:]), expected)


if __name__ == "__main__":
    unittest.main()
