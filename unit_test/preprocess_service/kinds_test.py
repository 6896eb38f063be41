"""The right word: a file of another kind is named, and a broken one of a kind that is taken is not."""

import random
import time
import unittest

import imagecodecs
import numpy as np
from PIL import Image

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging import formats
from unit_test.preprocess_service.decoder_pool_test import PHOTO, save
from unit_test.preprocess_service.formats_test import HEIC
from unit_test.preprocess_service.picture_files import PIXELS, refusal

SMALL = PHOTO.resize((60, 40))
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
PROLOG = (
    '<?xml version="1.0"?>\n<!-- <svg> -->\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x" [ <!ENTITY a "b"> ]>\n'
)
TAKEN = {kind: save(SMALL, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")}
TAKEN["HEIF"] = HEIC.read_bytes()


def box(brand: str) -> bytes:
    return b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mp42isom" + bytes(40)


class NamesTest(unittest.TestCase):
    def test_what_is_not_taken_is_named(self) -> None:
        for name, data in (
            ("SVG", SVG.encode()),
            ("SVG", b"\xef\xbb\xbf" + SVG.encode()),
            ("SVG", ("\ufeff" + PROLOG + SVG).encode("utf-16-le")),
            ("SVG", ("\ufeff" + SVG).encode("utf-16-be")),
            ("SVG", (PROLOG + SVG).encode()),
            ("SVG", b"<svg:svg xmlns:svg='http://www.w3.org/2000/svg'></svg:svg>"),
            ("TGA", save(SMALL, "TGA")),
            ("TGA", save(SMALL, "TGA")[:-26]),
            ("TGA", save(SMALL, "TGA", mode="P", compression="tga_rle")[:-26]),
            ("TGA", save(SMALL, "TGA", mode="L")[:-26]),
            ("DICOM", bytes(128) + b"DICM" + bytes(100)),
            ("CR3", box("crx ")),
            ("ORF", b"IIRO\x08\0\0\0" + bytes(50)),
            ("ORF", b"IIRS\x08\0\0\0" + bytes(50)),
            ("RW2", b"IIU\0\x18\0\0\0" + bytes(50)),
            ("RAF", b"FUJIFILMCCD-RAW 0201"),
            ("JPEG 2000", save(SMALL, "JPEG2000")),
            ("JPEG 2000", save(SMALL, "JPEG2000", no_jp2=True)),
            ("JPEG XL", imagecodecs.jpegxl_encode(np.asarray(SMALL))),
            ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30)),
            ("JPEG XR", imagecodecs.jpegxr_encode(np.asarray(SMALL))),
            ("Radiance HDR", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n"),
            ("Radiance HDR", b"#?RGBE\n"),
            ("OpenEXR", b"\x76\x2f\x31\x01\x02\0\0\0"),
            ("PSD", b"8BPS\0\x01" + bytes(20)),
            ("ICO", save(SMALL, "ICO")),
            ("PPM", save(SMALL, "PPM")),
            ("PCX", save(SMALL, "PCX")),
            ("DDS", save(SMALL, "DDS", mode="RGBA")),
            ("SGI", save(SMALL, "SGI")),
            ("QOI", save(SMALL, "QOI")),
            ("EPS", save(SMALL, "EPS")),
            ("PDF", save(SMALL, "PDF")),
            ("ICNS", save(SMALL.resize((64, 64)), "ICNS")),
            ("XBM", save(SMALL, "XBM", mode="1")),
            ("GIMP", b"gimp xcf v011\0"),
            ("MPEG-4 video", box("mp42")),
            ("MPEG-4 video", box("isom")),
            ("QuickTime video", box("qt  ")),
            ("WebM", b"\x1a\x45\xdf\xa3\x01\0\0\0"),
            ("AVI", b"RIFF\0\0\0\0AVI LIST"),
        ):
            with self.subTest(name, data=data[:20]):
                error = refusal(data)
                self.assertIsInstance(error, errors.UnsupportedMediaType)
                self.assertRegex(str(error), f"not supported: .*{name}")

    def test_what_is_no_picture_is_not_named(self) -> None:
        noise = random.Random(1)
        for data in (b"meow", bytes(1000), noise.randbytes(1000), b"<html><body><svg></svg>", b"PK\3\4" + bytes(30)):
            with self.subTest(data[:20]):
                error = refusal(data)
                self.assertIsInstance(error, errors.InvalidImage)
                self.assertIn("not a picture of a supported format", str(error))

    def test_a_broken_file_of_a_kind_that_is_taken_is_broken(self) -> None:
        for kind, data in TAKEN.items():
            for length in (12, 16, 24, 40, 100, len(data) // 2):
                with self.subTest(kind, length=length):
                    self.assertEqual(refusal(data[:length]).message, "image_broken")
        for head in (b"\xff\xd8", b"\xff\xd8\xff\xee", box("avif"), box("avis"), box("heic"), box("mif1")):
            with self.subTest(head):
                self.assertEqual(refusal(head).message, "image_broken")

    def test_bytes_that_changed_do_not_make_it_another_kind(self) -> None:
        noise = random.Random(2)
        for kind, data in TAKEN.items():
            for _ in range(60):
                changed = bytearray(data)
                for _ in range(noise.choice((1, 3, 20))):
                    changed[noise.randrange(len(data) // 3, len(data))] = noise.randrange(256)
                with self.subTest(kind):
                    try:
                        service_utils.decode_image(bytes(changed), PIXELS)
                    except errors.ServiceError as exc:
                        self.assertIn(type(exc), (errors.InvalidImage, errors.ImageTooLarge))

    def test_no_text_makes_the_search_for_a_name_slow(self) -> None:
        for data in (
            b"<!-- -->" * 100_000,
            b" " * 1_000_000,
            b"<!DOCTYPE svg [" * 100_000,
            b"<?xml" * 100_000,
            b"<!--" * 100_000,
            b"<?x?> <!-- -->" * 100_000,
        ):
            with self.subTest(data[:20]):
                began = time.process_time()
                self.assertIsInstance(formats.refusal(data), errors.InvalidImage)
                self.assertLess(time.process_time() - began, 5)


class AvifTest(unittest.TestCase):
    def test_every_depth_is_as_the_other_library_decodes_it(self) -> None:
        ramp = np.asarray(Image.linear_gradient("L").resize((64, 48)), np.float64) / 255
        rgba = np.dstack([ramp, ramp[::-1], 1 - ramp, 0.2 + 0.8 * ramp[:, ::-1]])
        for bits, channels in ((bits, channels) for bits in (8, 10, 12) for channels in (1, 3, 4)):
            with self.subTest(bits=bits, channels=channels):
                most = (1 << bits) - 1
                levels = np.round(rgba[..., :channels] * most).astype(np.uint8 if bits == 8 else np.uint16)
                levels = np.ascontiguousarray(levels[..., 0] if channels == 1 else levels)
                data = imagecodecs.avif_encode(levels, level=100, bitspersample=bits, speed=10)
                shades = imagecodecs.avif_decode(data).astype(np.float64).reshape(48, 64, -1) * (255 / most)
                alpha = shades[..., 3:] / 255 if channels == 4 else 1
                expected = np.broadcast_to(shades[..., :3], (48, 64, 3)) * alpha + 127 * (1 - alpha)
                found = np.asarray(service_utils.decode_image(data, PIXELS), np.float64)
                np.testing.assert_allclose(found, expected, atol=2)


if __name__ == "__main__":
    unittest.main()
