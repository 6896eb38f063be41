"""TIFF: every layout has the pixels that another library wrote into it, or is refused by name."""

import io
import itertools
import unittest
from typing import Any, ClassVar

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging.resize import resize
from unit_test.preprocess_service.decoder_pool_test import save
from unit_test.preprocess_service.picture_files import (
    PIXELS,
    Pixels,
    decode,
    on_background,
    packed_rows,
    refusal,
    tiff,
)
from unit_test.preprocess_service.recipes import GEOMETRY

HEIGHT, WIDTH = 37, 53
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH]
# Smooth, so that a lossy codec keeps it; every channel another one, 0 to 255.
CHANNELS = np.stack(
    [
        COLUMN * 255 / (WIDTH - 1),
        ROW * 255 / (HEIGHT - 1),
        (ROW + COLUMN) * 255 / (HEIGHT + WIDTH - 2),
        255 - COLUMN * 200 / (WIDTH - 1),
        np.full((HEIGHT, WIDTH), 128.0),
    ],
    axis=-1,
)
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Photometric, channels, what the last of them is; the types that are decoded.
LAYOUTS: tuple[tuple[str, int, str | None, str], ...] = (
    ("miniswhite", 1, None, "u1 u2 f4"),
    ("minisblack", 1, None, "u1 u2 u4 f4"),
    ("minisblack", 2, "unassalpha", "u1"),
    ("minisblack", 2, "assocalpha", "u1"),
    ("minisblack", 2, "unspecified", "u1"),
    ("rgb", 3, None, "u1 u2"),
    ("rgb", 4, "unassalpha", "u1 u2"),
    ("rgb", 4, "assocalpha", "u1 u2"),
    ("rgb", 4, "unspecified", "u1 u2"),
    ("rgb", 5, "unspecified", "u1"),
    ("separated", 4, None, "u1 u2"),
)
TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
# Compression, predictor, planes, tiles.
STORED = (
    *itertools.product((None, "lzw", "deflate"), (False, True), ("contig", "separate"), (None, (16, 16))),
    *itertools.product(("packbits", "zstd", "lzma"), (False,), ("contig", "separate"), (None,)),
)


def samples(channels: int, kind: str, premultiplied: bool) -> NDArray[Any]:
    """``CHANNELS`` as numbers of a type: float 0 to 1, whole numbers 0 to the highest."""
    levels = CHANNELS[..., :channels] / 255
    if premultiplied:
        levels = np.dstack([levels[..., :-1] * levels[..., -1:], levels[..., -1]])
    most = 1 if kind[0] == "f" else np.iinfo(kind).max
    return (levels if most == 1 else np.round(levels * most)).astype(kind)


def expected(levels: NDArray[Any], photometric: str, extra: str | None) -> Pixels:
    kind = levels.dtype
    shades = levels * (255.0 if kind.kind == "f" else 255 / float(np.iinfo(kind).max))
    colours = {"rgb": 3, "separated": 4}.get(photometric, 1)
    rgb, alpha = shades[..., :colours], shades[..., -1]
    if photometric == "separated":
        rgb = (255 - rgb[..., :3]) * (255 - rgb[..., 3:]) / 255
    rgb = np.broadcast_to(255 - rgb if photometric == "miniswhite" else rgb, (*rgb.shape[:2], 3))
    if extra == "unassalpha":
        return on_background(rgb, alpha)
    return np.asarray(rgb + on_background(np.zeros_like(rgb), alpha) if extra == "assocalpha" else rgb)


def write(levels: NDArray[Any], photometric: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, levels, photometric=photometric, metadata=None, **options)
    return stream.getvalue()


def write_layout(
    levels: NDArray[Any], photometric: str, extra: str | None, stored: Any, order: str, big: bool
) -> bytes:
    compression, predictor, planes, tile = stored
    count = levels.shape[2]
    data = levels[..., 0] if count == 1 else np.moveaxis(levels, 2, 0) if planes == "separate" else levels
    return write(
        np.ascontiguousarray(data),
        photometric,
        planarconfig=planes if count > 1 else None,
        extrasamples=[extra] * (count - {"rgb": 3, "separated": 4}.get(photometric, 1)) if extra else None,
        compression=compression,
        predictor=predictor or None,
        tile=tile,
        rowsperstrip=None if tile else 10,
        byteorder=order,
        bigtiff=big,
    )


class LayoutTest(unittest.TestCase):
    def test_every_layout_is_right_or_refused_by_name(self) -> None:
        for (photometric, count, extra, taken), kind in itertools.product(LAYOUTS, TYPES):
            levels = samples(count, kind, extra == "assocalpha")
            for stored, order, big in itertools.product(STORED, "<>", (False, True)):
                compression, predictor, planes, tile = stored
                if (predictor and not compression) or (planes == "separate" and count == 1) or (big and tile):
                    continue
                if kind not in taken.split() and (compression or big):
                    continue
                with self.subTest(
                    photometric, count=count, extra=extra, kind=kind, stored=stored, order=order, big=big
                ):
                    data = write_layout(levels, photometric, extra, stored, order, big)
                    # Alpha in a plane of its own is the one thing that is not read.
                    is_apart = (
                        photometric == "minisblack" and extra in ("unassalpha", "assocalpha") and planes == "separate"
                    )
                    if kind in taken.split() and not is_apart and not (big and order == ">"):
                        found = decode(data)
                    else:
                        try:
                            found = decode(data)
                        except errors.UnsupportedMediaType as exc:
                            self.assertRegex(str(exc), "of this kind are not supported: (big-endian Big)?TIFF")
                            continue
                    np.testing.assert_allclose(found, expected(levels, photometric, extra), atol=2)

    def test_no_compression_of_planes_of_16_bits_scrambles_them(self) -> None:
        levels = samples(3, "u2", False)
        for order in "<>":
            data = write_layout(levels, "rgb", None, (None, False, "separate", None), order, False)
            np.testing.assert_allclose(decode(data), expected(levels, "rgb", None), atol=2)

    def test_few_bits_and_reversed_bits(self) -> None:
        for photometric, bits, order, compression in itertools.product(
            (0, 1, 2, 3), (1, 2, 4, 8, 12, 16), (1, 2), (1, 5)
        ):
            if (bits < 8 and photometric == 2) or (bits > 8 and photometric) or (bits == 12 and order == 2):
                continue
            with self.subTest(photometric=photometric, bits=bits, order=order, compression=compression):
                most = (1 << bits) - 1
                levels = np.round(CHANNELS[..., : 3 if photometric == 2 else 1] / 255 * most).astype(np.int64)
                shades = np.broadcast_to(levels * 255 / most, (HEIGHT, WIDTH, 3))
                tags: dict[int, Any] = {256: WIDTH, 257: HEIGHT, 258: [bits] * levels.shape[2], 259: compression}
                tags |= {262: photometric, 266: order, 277: levels.shape[2]}
                if photometric == 0:
                    shades = 255 - shades
                if photometric == 3:
                    palette = np.random.default_rng(3).integers(0, 65536, (3, most + 1))
                    tags[320], shades = palette.ravel().tolist(), palette.T[levels[..., 0]] / 257
                pixels = b"".join(packed_rows(levels, bits, "<")) if bits != 12 else twelve(levels)
                pixels = pixels if compression == 1 else imagecodecs.lzw_encode(pixels)
                data = tiff(tags, pixels if order == 1 else pixels.translate(REVERSED))
                if bits == 12 or (bits == 16 and (photometric, order) == (0, 2)):
                    self.assertIn("TIFF", str(refusal(data)))
                else:
                    np.testing.assert_allclose(decode(data), shades, atol=2)

    def test_twelve_bits_of_grey(self) -> None:
        levels = np.round(CHANNELS[..., :1] / 255 * 4095).astype(np.int64)
        data = tiff({256: WIDTH, 257: HEIGHT, 258: 12, 259: 1, 262: 1, 277: 1}, twelve(levels))
        np.testing.assert_allclose(decode(data), np.broadcast_to(levels * 255 / 4095, (HEIGHT, WIDTH, 3)), atol=2)

    def test_chroma_of_fewer_samples_than_pixels(self) -> None:
        rgb = np.round(CHANNELS[:36, :52, :3]).astype(np.uint8)
        ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
        pixels = b"".join(
            ycbcr[y : y + 2, x : x + 2, 0].tobytes()
            + ycbcr[y : y + 2, x : x + 2, 1:].mean((0, 1)).astype(np.uint8).tobytes()
            for y in range(0, 36, 2)
            for x in range(0, 52, 2)
        )
        data = tiff({256: 52, 257: 36, 258: [8, 8, 8], 259: 1, 262: 6, 277: 3, 530: [2, 2]}, pixels)
        np.testing.assert_allclose(decode(data), rgb, atol=8)
        whole = write(ycbcr, "ycbcr", subsampling=(1, 1))
        np.testing.assert_allclose(decode(whole), rgb, atol=3)

    def test_lab_is_what_the_formula_says(self) -> None:
        lab = np.round(CHANNELS[..., [3, 0, 1]]).astype(np.uint8)
        data = tiff({256: WIDTH, 257: HEIGHT, 258: [8, 8, 8], 259: 1, 262: 8, 277: 3}, lab.tobytes())
        lightness, (a, b) = lab[..., 0] * (100 / 255), np.moveaxis(lab[..., 1:].view(np.int8).astype(float), 2, 0)
        y = (lightness + 16) / 116
        cube = np.stack([y + a / 500, y, y - b / 200], 2)
        xyz = np.where(cube > 6 / 29, cube**3, 3 * (6 / 29) ** 2 * (cube - 4 / 29)) * [0.9642, 1, 0.8249]
        to_linear = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.033454]]
        to_linear += [[0.0719453, -0.2289914, 1.4052427]]
        linear = np.clip(xyz @ np.transpose(to_linear), 0, 1)
        srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(decode(data), srgb * 255, atol=2)

    def test_jpeg_in_it_is_what_the_other_library_reads(self) -> None:
        rgb = np.round(CHANNELS[..., :3]).astype(np.uint8)
        for name, options in (("YCbCr", {}), ("RGB", {"outcolorspace": "rgb"})):
            for tile in (None, (16, 16)):
                with self.subTest(name, tile=tile):
                    data = write(rgb, "rgb", compression="jpeg", compressionargs=options, tile=tile)
                    np.testing.assert_allclose(decode(data), tifffile.imread(io.BytesIO(data)), atol=2)

    def test_pictures_that_are_reduced_have_the_same_levels(self) -> None:
        for kind, photometric in (
            ("u2", "minisblack"),
            ("u2", "miniswhite"),
            ("u4", "minisblack"),
            ("f4", "minisblack"),
        ):
            with self.subTest(kind, photometric=photometric):
                levels = np.repeat(np.repeat(samples(1, kind, False), 24, 0), 24, 1)
                data = write(levels[..., 0], photometric, compression="lzw")
                image = service_utils.decode_image(data, PIXELS, GEOMETRY)
                whole = service_utils.decode_image(data, PIXELS)
                found, all_levels = (resize(one, GEOMETRY).astype(int) for one in (image, whole))
                np.testing.assert_allclose(found, all_levels, atol=2)

    def test_it_lies_as_its_orientation_says(self) -> None:
        rgb = np.round(CHANNELS[..., :3]).astype(np.uint8)
        for compression in (None, "lzw"):
            data = write(rgb, "rgb", compression=compression, extratags=[(274, 3, 1, 6, True)])
            np.testing.assert_array_equal(decode(data), np.rot90(rgb, -1))


def twelve(levels: NDArray[Any]) -> bytes:
    """Rows of samples of 12 bits."""
    texts = ("".join(f"{int(level):012b}" for level in row) for row in levels[..., 0])
    return b"".join(np.packbits([int(bit) for bit in text]).tobytes() for text in texts)


class KindTest(unittest.TestCase):
    """What is refused by name, and what is broken."""

    RGB: ClassVar[dict[int, Any]] = {256: 8, 257: 8, 258: [8, 8, 8], 259: 1, 262: 2, 277: 3}

    def test_a_cameras_raw_is_not_answered_from_its_preview(self) -> None:
        for name, data in (
            ("DNG", tiff({**self.RGB, 50706: 1}, bytes(192))),
            ("CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(100)),
            ("camera RAW", tiff({**self.RGB, 258: 16, 262: 32803, 277: 1}, bytes(128))),
            ("camera RAW", tiff({**self.RGB, 262: 34892}, bytes(192))),
        ):
            with self.subTest(name):
                self.assertRegex(str(refusal(data)), f"not supported: .*{name}")
        # The raw picture in a directory of its own, as in NEF and ARW.
        inner = tiff({**self.RGB, 258: 16, 262: 32803, 277: 1})
        place = len(tiff({**self.RGB, 330: 0}, bytes(192)))
        data = tiff({**self.RGB, 330: place}, bytes(192)) + inner[8:]
        self.assertRegex(str(refusal(data)), "not supported: camera RAW")

        # Or as a page of its own behind the preview.
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream) as writer:
            writer.write(np.zeros((8, 8, 3), np.uint8), photometric="rgb", subfiletype=1)
            writer.write(np.zeros((80, 80, 3), np.uint8), photometric="rgb")
        self.assertRegex(str(refusal(stream.getvalue())), "not supported: .* whose first picture is a preview")

    def test_a_picture_of_several_pages_is_its_first(self) -> None:
        pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        data = save(pages[0], "TIFF", save_all=True, append_images=pages[1:])
        np.testing.assert_array_equal(decode(data), np.broadcast_to([255, 0, 0], (8, 8, 3)))

    def test_codecs_that_are_not_there_are_named(self) -> None:
        rgb = np.round(CHANNELS[..., :3]).astype(np.uint8)
        for codec in ("webp", "jpeg2000", "jpegxl", "lerc", "jpegxr", "png"):
            name = {"webp": "WebP", "jpeg2000": "JPEG 2000", "jpegxl": "JPEG XL", "jpegxr": "JPEG XR"}
            with self.subTest(codec):
                error = refusal(write(rgb, "rgb", compression=codec))
                self.assertIsInstance(error, errors.UnsupportedMediaType)
                self.assertIn(f"TIFF compressed by {name.get(codec, codec.upper())}", str(error))
        deep = write(
            np.round(CHANNELS[..., 0] * 16).astype(np.uint16), "minisblack", compression="jpeg", bitspersample=12
        )
        self.assertIn("TIFF compressed by JPEG of 12 bits", str(refusal(deep)))

    def test_floats_below_black_are_refused(self) -> None:
        for lowest, expected in ((-100.0, True), (-1e-6, False), (0.0, False)):
            with self.subTest(lowest):
                stream = io.BytesIO()
                tifffile.imwrite(stream, np.linspace(lowest, 155, 64 * 64, dtype=np.float32).reshape(64, 64))
                if expected:
                    with self.assertRaisesRegex(errors.UnsupportedMediaType, "numbers below 0"):
                        decode(stream.getvalue())
                else:
                    self.assertEqual(decode(stream.getvalue()).max(), 155)

    def test_what_is_broken_is_not_called_another_kind(self) -> None:
        rgb = np.round(CHANNELS[..., :3]).astype(np.uint8)
        for compression in (None, "lzw", "deflate", "packbits", "zstd"):
            # Its directory is before its pixels.
            data = write(rgb, "rgb", compression=compression)
            for length in (8, 12, 100, len(data) // 2, len(data) - 40):
                with self.subTest(compression, length=length):
                    self.assertIsInstance(refusal(data[:length]), errors.InvalidImage)

    def test_a_directory_that_is_nowhere_is_broken(self) -> None:
        for data in (b"MM\0+\0\x08\0\0" + b"\xff" * 8, b"II+\0\x08\0\0\0" + b"\xff" * 8, b"II*\0" + b"\xff" * 4):
            with self.subTest(data):
                self.assertIsInstance(refusal(data + bytes(100)), errors.ServiceError)


if __name__ == "__main__":
    unittest.main()
