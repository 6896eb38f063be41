"""Tests the way from base64 to the tensor: what is read, and which error a broken input gets."""

import base64
import io
import platform
import unittest
import warnings
import zlib
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageOps

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging import resize
from tools import service
from unit_test.preprocess_service.recipes import SHIPPED, recipe
from unit_test.utils import IMAGES

PICTURE = SHIPPED.preprocessor_config
GEOMETRY = PICTURE.geometry()
PLAIN = {"do_rescale": False, "do_normalize": False}
PIXELS = 1_000_000
CAT = IMAGES / "cat_1.jpg"


def decode(data: bytes) -> Image.Image:
    image: Image.Image = service_utils.decode_image(data, PIXELS)
    return image


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quadrants() -> Image.Image:
    """Return 64x32 pixels: red and green above, blue and white below. Each rotation and flip changes it visibly."""
    image = Image.new("RGB", (64, 32), "white")
    for colour, box in (("red", (0, 0, 32, 16)), ("lime", (32, 0, 64, 16)), ("blue", (0, 16, 32, 32))):
        image.paste(colour, box)
    return image


class Base64Test(unittest.TestCase):
    def test_base64_is_taken_as_people_send_it(self) -> None:
        data = bytes(range(256)) + b"?>"
        plain = base64.b64encode(data).decode()
        for name, text in (
            ("plain", plain),
            ("line breaks", "\r\n".join(plain[n : n + 76] for n in range(0, len(plain), 76))),
            ("spaces around", f"  {plain}\n"),
            ("no padding", plain.rstrip("=")),
            ("URL-safe alphabet", base64.urlsafe_b64encode(data).decode()),
            ("data URL", f"data:image/jpeg;base64,{plain}"),
            ("data URL with a parameter", f"data:image/svg+xml;charset=utf-8;base64,{plain}"),
            ("data URL without a type", f"data:;base64,{plain}"),
        ):
            with self.subTest(name):
                self.assertEqual(service_utils.decode_base64(text), data)

    def test_what_is_not_base64_is_refused_in_the_tutorials_words(self) -> None:
        for name, text in (
            ("empty", ""),
            ("blank", " \n"),
            ("padding alone", "===="),
            ("a sentence", "this is no base64!"),
            ("a letter too many", "QUJDR"),
            ("padding in the middle", "QUI=QUJD"),
            ("not ASCII", "QUJDé"),
            ("an empty data URL", "data:image/png;base64,"),
            ("a data URL that is not base64", "data:text/plain,hello"),
        ):
            with self.subTest(name), self.assertRaisesRegex(errors.InvalidBase64, "^Image base64 invalid"):
                service_utils.decode_base64(text)


class DecodeImageTest(unittest.TestCase):
    def test_every_lossless_format_gives_the_same_pixels(self) -> None:
        original = Image.open(CAT).convert("RGB")
        for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {})):
            with self.subTest(kind):
                decoded = decode(save(original, kind, **options))
                np.testing.assert_array_equal(np.asarray(decoded), np.asarray(original))

    def test_all_eight_exif_orientations_are_turned_upright(self) -> None:
        upright = quadrants()
        # How a camera stores the picture for each EXIF orientation.
        stored = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
        for orientation, method in stored.items():
            with self.subTest(orientation):
                exif = Image.Exif()
                exif[0x0112] = orientation
                turned = upright if method is None else upright.transpose(Image.Transpose(method))
                decoded = decode(save(turned, "PNG", exif=exif))
                np.testing.assert_array_equal(np.asarray(decoded), np.asarray(upright))

    def test_broken_exif_is_no_reason_to_refuse_a_photo(self) -> None:
        photo = save(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about the broken EXIF; the service ignores it
            self.assertEqual(decode(photo).size, (64, 32))

    def test_other_modes_become_rgb(self) -> None:
        grey = Image.new("L", (4, 4), 200)
        for name, image, kind in (
            ("grey", grey, "PNG"),
            ("palette", grey.convert("P"), "GIF"),
            ("CMYK", Image.new("CMYK", (4, 4), (55, 55, 55, 0)), "TIFF"),
            ("one bit", Image.new("1", (4, 4), 1), "PNG"),
            ("16 bit", Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)), "PNG"),
        ):
            with self.subTest(name):
                decoded = decode(save(image, kind))
                self.assertEqual(decoded.mode, "RGB")
                expected = 255 if name == "one bit" else 200
                np.testing.assert_allclose(np.asarray(decoded), expected, atol=1)

    def test_transparency_is_laid_on_grey(self) -> None:
        decoded = decode(save(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "PNG"))
        self.assertEqual(decoded.getpixel((0, 0)), (127, 127, 127))

    def test_the_first_frame_of_an_animation_counts(self) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        decoded = decode(save(frames[0], "GIF", save_all=True, append_images=frames[1:]))
        self.assertEqual(decoded.getpixel((0, 0)), (255, 0, 0))

    def test_what_is_no_whole_picture_is_refused(self) -> None:
        jpeg = CAT.read_bytes()
        png = save(quadrants(), "PNG")
        for name, data in (
            ("nothing", b""),
            ("a text", b"meow, said the dog"),
            ("half a JPEG", jpeg[: len(jpeg) // 2]),
            ("the head of a JPEG", jpeg[:20]),
            ("half a PNG", png[: len(png) // 2]),
            ("a PNG with a byte changed", png[:60] + bytes([png[60] ^ 0xFF]) + png[61:]),
        ):
            with self.subTest(name), self.assertRaises(errors.InvalidImage):
                decode(data)

    def test_a_file_of_another_kind_is_refused_by_name(self) -> None:
        for kind, data in (
            ("PPM", save(quadrants(), "PPM")),
            ("JPEG 2000", save(quadrants(), "JPEG2000")),
            ("Photoshop", b"8BPS\0\1" + bytes(20)),
            ("Scalable Vector", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>'),
            ("Portable Document", b"%PDF-1.7\n"),
            ("MPEG-4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"),
        ):
            with self.subTest(kind), self.assertRaises(errors.UnsupportedMediaType) as caught:
                decode(data)
            self.assertIn(kind, str(caught.exception))

    def test_a_big_jpeg_at_reduced_scale_gives_the_same_tensor_nearly(self) -> None:
        photo = Image.open(CAT).resize((3600, 2400), Image.Resampling.BICUBIC)
        data = save(photo, "JPEG", quality=95)
        reduced = service_utils.decode_image(data, 10**8, GEOMETRY)
        self.assertLess(reduced.width, 3600)
        whole = service.to_tensor(service_utils.decode_image(data, 10**8), PICTURE)
        difference = np.abs(service.to_tensor(reduced, PICTURE) - whole)
        self.assertLess(difference.mean(), 0.01)

    def test_too_many_pixels_are_refused_from_the_header_alone(self) -> None:
        # A PNG of a gigapixel without picture data. It is rejected for its size, so nothing was decoded.
        head = save(Image.new("L", (1, 1)), "PNG")[:33]
        gigapixel = head[:16] + (32768).to_bytes(4, "big") * 2 + head[24:29]
        gigapixel += zlib.crc32(gigapixel[12:29]).to_bytes(4, "big") + b"\0\0\0\x10IDAT"
        with self.assertRaisesRegex(errors.ImageTooLarge, "1 megapixel"):
            decode(gigapixel)


class ToTensorTest(unittest.TestCase):
    def test_it_is_the_centre_in_the_models_size_and_range(self) -> None:
        # A white square between black bars. The bars are outside the centre and must not appear.
        image = Image.new("RGB", (600, 300), "black")
        image.paste("white", (150, 0, 450, 300))
        whole = PICTURE.model_copy(update={"crop_pct": 1.0})
        tensor = service.to_tensor(image, whole)
        self.assertEqual((tensor.shape, tensor.dtype), ((GEOMETRY.height, GEOMETRY.width, 3), np.float32))
        # The outermost columns are not compared: the filter reads pixels beyond the edge of the crop.
        np.testing.assert_array_equal(tensor[:, 2:-2], np.float32(1))

    def test_the_pixels_are_the_tensor_before_it_is_normalised(self) -> None:
        pixels = service.to_pixels(quadrants(), PICTURE)
        self.assertEqual((pixels.shape, pixels.dtype), ((GEOMETRY.height, GEOMETRY.width, 3), np.uint8))
        tensor = service.normalise(pixels, PICTURE)
        self.assertEqual(tensor.dtype, np.float32)
        np.testing.assert_array_equal(tensor, service.to_tensor(quadrants(), PICTURE))
        np.testing.assert_array_equal(tensor * 128 + 127, pixels)

    def test_it_is_what_pillow_fits(self) -> None:
        noise = np.random.default_rng(0)
        # Scaled to 7 pixels and back, a side of 29 becomes larger than 29 by a rounding error.
        for size in ((1, 1), (3, 2), (17, 400), (240, 240), (401, 333), (1000, 7), (58, 29), (29, 58)):
            image = Image.fromarray(noise.integers(0, 256, (*size, 3), np.uint8))
            for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"):
                for shape in (
                    {"crop": 1.0},
                    {"crop": 0.95},
                    {"crop": 0.3, "width": 64, "height": 128},
                    {"crop": 1.0, "width": 7, "height": 7},
                ):
                    shaped = GEOMETRY.model_copy(update={"resampling": name, **shape})
                    target, bleed = (shaped.width, shaped.height), (1 - shaped.crop) / 2
                    fitted = np.asarray(ImageOps.fit(image, target, Image.Resampling[name.upper()], bleed))
                    with self.subTest(size=size, resampling=name, **shape):
                        np.testing.assert_allclose(resize.resize(image, shaped).astype(int), fitted, rtol=0, atol=2)
                        with patch.object(resize, "fast_resizer", None):
                            np.testing.assert_array_equal(resize.resize(image, shaped), fitted)

    @unittest.skipIf(platform.machine() in ("aarch64", "ARM64"), "NO BUILD OF THE FAST RESIZER FOR THIS MACHINE")
    def test_photos_are_scaled_by_the_fast_resizer(self) -> None:
        photo = decode(CAT.read_bytes())
        with patch.object(Image.Image, "resize", side_effect=AssertionError("scaled by Pillow")):
            service.to_pixels(photo, PICTURE)

    def test_crop_keeps_the_middle(self) -> None:
        image = Image.new("RGB", (400, 400), "black")
        image.paste("white", (100, 100, 300, 300))
        half = PICTURE.model_copy(update={"crop_pct": 0.5, "resample": 4, **PLAIN})
        np.testing.assert_array_equal(service.to_tensor(image, half), np.float32(255))

    def test_width_and_height_keep_their_places(self) -> None:
        wide = recipe(64, 32, resize_mode="crop", decode="fast").preprocessor_config
        tensor = service.to_tensor(quadrants(), wide)
        np.testing.assert_array_equal(tensor, np.asarray(quadrants(), np.float32))
