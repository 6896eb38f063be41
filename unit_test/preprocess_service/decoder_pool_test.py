"""Tests that pictures are decoded in processes, within limits of time and memory, and that these can be ended."""

import asyncio
import base64
import contextlib
import gc
import io
import logging
import os
import signal
import struct
import sys
import tempfile
import time
import unittest
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from PIL import Image

from preprocess_service.app import errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging import decode_cost, resize
from preprocess_service.app.imaging.downscale import min_side
from preprocess_service.app.inference import decoder_pool, decoder_process, decoder_threads
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.observability import metrics
from preprocess_service.app.recipe import Geometry
from preprocess_service.app.served_models import ServedModels
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, settings
from unit_test.preprocess_service.formats_test import HEIC, save
from unit_test.preprocess_service.picture_files import bmp, chunk, png
from unit_test.preprocess_service.recipes import GEOMETRY

PHOTO = Image.open(io.BytesIO(base64.b64decode(CAT))).convert("RGB")
PNG = save(PHOTO, "PNG")
IS_LINUX = sys.platform == "linux"


def large(mode: str = "RGB", side: int = 1700) -> Image.Image:
    return PHOTO.resize((side, side)).convert(mode)


def tiff(width: int, height: int, tags: dict[int, tuple[int, ...]], strip: bytes = b"") -> bytes:
    """Return an uncompressed or deflated TIFF with one strip or tile."""
    tags = {256: (width,), 257: (height,), **tags}
    body = bytearray(struct.pack("<H", len(tags)))
    extra = bytearray()
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        if tag in (273, 324):
            values = (start + 8 * len(tags),)
        data = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            extra += data
            data = struct.pack("<I", start + len(extra) - len(data))
        body += struct.pack("<HHI", tag, 4, len(values)) + data
    return b"II*\0" + struct.pack("<I", 8) + bytes(body) + bytes(4) + bytes(extra).ljust(8 * len(tags), b"\0") + strip


def hidden_tile(side: int = 20_000) -> bytes:
    """Return a picture of 16 x 16 pixels in one tile of ``side`` x ``side`` pixels."""
    strip = zlib.compress(bytes(1000))
    tags = {258: (8,), 259: (8,), 262: (1,), 277: (1,), 322: (side,), 323: (side,), 324: (0,), 325: (len(strip),)}
    return tiff(16, 16, tags, strip)


def made_photos(side: int) -> dict[str, bytes]:
    """Kinds of pictures that Pillow does not write, each of one colour."""
    grey, rgb = np.zeros((side, side, 1), np.int64), np.zeros((side, side, 3), np.int64)
    palette = np.zeros((256, 3), np.int64)
    rows = b"".join(bytes([255, 7]) * (side // 255) + bytes([side % 255, 7, 0, 0]) for _ in range(side))
    small = side // 2
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    return {
        "PNG, grey of 16 bits with a transparent level": png(grey, 0, 16, chunk(b"tRNS", b"\0\1")),
        "PNG, RGB of 16 bits with a transparent colour": png(rgb, 2, 16, chunk(b"tRNS", bytes(6))),
        "PNG with 3 MB of text": png(rgb, 2, 8, chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(3_000_000)))),
        "BMP, alpha 0": bmp(small, small, 32, bytes(4 * small * small), 124, compression=3, masks=masks),
        "BMP, run lengths": bmp(side, side, 8, rows, palette=palette, compression=1),
        "TIFF, grey of 32 bits": deflated_tiff(side, 1, 32, 1),
        "TIFF, grey of 16 bits, white is 0": deflated_tiff(side, 1, 16, 0),
    }


def deflated_tiff(side: int, channels: int, bits: int, photometric: int) -> bytes:
    strip = zlib.compress(bytes(bits // 8 * channels * side * side))
    tags = {258: (bits,) * channels, 259: (8,), 262: (photometric,), 273: (0,), 277: (channels,)}
    return tiff(side, side, {**tags, 278: (side,), 279: (len(strip),)}, strip)


def repeated_scans(times: int = 3000) -> bytes:
    """Return a progressive JPEG with its last scan repeated: each copy has few bytes and goes through all pixels."""
    data = save(large(), "JPEG", progressive=True)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:last] + data[last:end] * times + data[end:]


class DecoderPoolTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        # The tests make pictures and wait in the event loop's thread. That is no defect.
        asyncio.get_running_loop().slow_callback_duration = 60
        # The pool logs each process that ends.
        for module in (decoder_pool, decoder_process):
            module.logger.addHandler(logging.NullHandler())
        self.config = settings(decode_threads=1)
        self.metrics = metrics.Metrics()
        self.pool = decoder_pool.DecoderPool(self.config, self.metrics)
        self.addAsyncCleanup(self.pool.close)

    async def decode(self, photo: "bytes | str", request: Any = None) -> Any:
        context = request or RequestContext("a_request", 120)
        return (await self.pool.decode(photo, context, GEOMETRY, lambda: None)).pixels

    def processes(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process().children():
            # A process that has ended but is not reaped yet has no command line.
            with contextlib.suppress(psutil.Error):
                found += [child] if "decoder_worker" in " ".join(child.cmdline()) else []
        return found

    def ended(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("catdog_decoders_ended_total", {"reason": reason}) or 0.0

    async def test_it_makes_the_same_pixels_as_are_made_here(self) -> None:
        for name, photo in (("PNG", PNG), ("large", save(large(), "PNG")), ("HEIC", HEIC.read_bytes())):
            with self.subTest(name):
                request = RequestContext("a_request", 120)
                image = service_utils.decode_image(photo, 10**8, GEOMETRY)
                expected = resize.resize(image, GEOMETRY)
                np.testing.assert_array_equal(await self.decode(photo, request), expected)
                np.testing.assert_array_equal(await self.decode(base64.b64encode(photo).decode()), expected)
                self.assertEqual([picture[0] for picture in request.images], ["HEIF" if name == "HEIC" else "PNG"])
                self.assertEqual(set(request.timings()), {"decode"})

    async def test_what_is_refused_is_refused_with_its_reason(self) -> None:
        for photo, error, text in (
            (b"", errors.InvalidImage, "0 bytes"),
            (PNG[:1000], errors.InvalidImage, "truncated or broken"),
            (b"%PDF-1.7", errors.UnsupportedMediaType, "Portable Document"),
            ("!", errors.InvalidBase64, "base64"),
            (save(Image.new("1", (8000, 8000)), "PNG"), errors.ImageTooLarge, "51 megapixels"),
            (save(Image.new("L", (5000, 5000)), "WEBP"), errors.ImageTooLarge, "too much memory"),
        ):
            with self.subTest(text), self.assertRaisesRegex(error, text):
                await self.decode(photo)
        self.assertEqual(len(self.processes()), 1)

    @unittest.skipUnless(IS_LINUX, "limits of memory are Linux's")
    async def test_a_size_that_the_header_hides_gets_no_memory(self) -> None:
        await self.decode(PNG)
        (process,) = self.processes()
        with self.assertRaisesRegex(errors.ServiceError, "memory|broken"):
            await self.decode(hidden_tile())
        # The memory was neither granted nor used: this file asks for 400 MB.
        self.assertLess(process.memory_info().rss, 150e6)
        with self.assertRaises(errors.ServiceError):
            await self.decode(hidden_tile(60_000))
        self.assertEqual((await self.decode(PNG)).shape, (240, 240, 3))

    @unittest.skipUnless(hasattr(signal, "SIGPROF"), "needs a limit of computing time")
    async def test_a_file_that_takes_too_long_is_ended_and_the_next_is_decoded(self) -> None:
        self.enterContext(patch.object(decoder_pool, "BASE_SECONDS", 0.3))
        self.enterContext(patch.object(decoder_pool, "SECONDS_PER_MEGAPIXEL", 0.1))
        with self.assertRaisesRegex(errors.ImageTooLarge, "takes too long"):
            await self.decode(repeated_scans())
        self.assertEqual(self.ended("time"), 1)
        self.assertEqual((await self.decode(PNG)).shape, (240, 240, 3))

    async def test_pictures_of_one_request_that_take_long_leave_a_process_for_others(self) -> None:
        request = RequestContext("a_request", 120)
        photo = repeated_scans(30_000)
        slow = [asyncio.create_task(self.decode(photo, request)) for _ in range(4)]
        await asyncio.sleep(0.5)
        self.assertEqual((await self.decode(PNG)).shape, (240, 240, 3))
        self.assertFalse(any(task.done() for task in slow))
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
        # The request was cancelled.
        end = time.monotonic() + 60
        while not self.ended("cancelled"):
            self.assertLess(time.monotonic(), end)
            await asyncio.sleep(0.05)

    async def test_the_pictures_of_one_request_have_only_so_many_pixels_together(self) -> None:
        self.enterContext(patch.object(self.pool, "_request_pixels", 6_000_000))
        request = RequestContext("a_request", 120)
        photo = save(large(), "PNG")
        for _ in range(2):
            await self.decode(photo, request)
        with self.assertRaisesRegex(errors.ImageTooLarge, "more than 6 megapixels in total"):
            await self.decode(photo, request)
        await self.decode(PNG, request)
        await self.decode(photo)

    async def test_a_process_that_dies_costs_one_picture_and_is_replaced(self) -> None:
        await self.decode(PNG)
        (process,) = self.processes()
        task = asyncio.create_task(self.decode(repeated_scans(30_000)))
        await asyncio.sleep(0.5)
        with self.assertLogs(decoder_pool.logger, "WARNING") as logged:
            process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGSEGV)
            with self.assertRaisesRegex(errors.InvalidImage, "broken"):
                await task
        self.assertIn("a decoder ended at a picture", logged.output[0])
        self.assertEqual(self.ended("crash"), 1)
        self.assertEqual((await self.decode(PNG)).shape, (240, 240, 3))
        self.assertNotIn(process.pid, [other.pid for other in self.processes()])

    async def test_what_a_process_was_made_to_answer_is_not_trusted(self) -> None:
        # Like a real decoder, it reads its task completely and then waits for the next one.
        program = (
            "import json, sys; print('{}', flush=True); size = json.loads(sys.stdin.buffer.readline())['size']; "
            "sys.stdin.buffer.read(size); print(%r, flush=True); sys.stdin.buffer.read()"
        )
        for answer in (
            "[]",
            "{}",
            '{"pixels": 1e12}',
            '{"pixels": 7}',
            '{"pixels": 0, "error": ["open", "x", {}]}',
            "x" * 99,
            '{"pixels": 0, "needs": 5}',
            '{"pixels": 0, "needs": {"memory_bytes": -1, "pixels": 1}}',
            '{"pixels": 0, "needs": {"memory_bytes": 1000000000000, "pixels": 1}}',
        ):
            with self.subTest(answer):
                fake = Path(self.enterContext(tempfile.TemporaryDirectory())) / "fake.py"
                fake.write_text(program % answer, encoding="utf-8")
                with patch.object(decoder_process, "PROGRAM", (str(fake),)):
                    pool = decoder_pool.DecoderPool(self.config, self.metrics)
                    with self.assertRaises(errors.InvalidImage):
                        await pool.decode(PNG, RequestContext("a_request", 120), GEOMETRY, lambda: None)
                    await pool.close()

    async def test_a_process_that_cannot_start_is_no_fault_of_the_picture(self) -> None:
        with (
            patch.object(decoder_process, "PROGRAM", ("nowhere.py",)),
            self.assertLogs(decoder_process.logger, "ERROR"),
            self.assertRaises(errors.Overloaded),
        ):
            await self.decode(PNG)
        self.assertEqual((await self.decode(PNG)).shape, (240, 240, 3))

    async def test_the_first_check_starts_all_and_tells_where_one_does_not_start(self) -> None:
        self.assertIsNone(await self.pool.check(60))
        self.assertEqual(len(self.processes()), 2)
        pool = decoder_pool.DecoderPool(self.config, self.metrics)
        nowhere = patch.object(decoder_process, "PROGRAM", ("nowhere.py",))
        with nowhere, self.assertLogs(decoder_process.logger, "ERROR"):
            self.assertIsInstance(await pool.check(60), errors.Overloaded)
        self.assertIsNone(await pool.check(60))
        await pool.close()
        slow = decoder_pool.DecoderPool(self.config, self.metrics)
        self.assertIsInstance(await slow.check(0.0), errors.Overloaded)
        await slow.close()

    async def test_a_process_that_ends_during_a_check_leaves_it_an_answer(self) -> None:
        pool = decoder_pool.DecoderPool(self.config, self.metrics)
        check = asyncio.create_task(pool.check(60))
        await asyncio.sleep(0)
        with (
            patch.object(decoder_process.DecoderProcess, "decode", side_effect=decoder_process.DecoderEnded(None)),
            self.assertRaises(errors.Overloaded),
        ):
            await pool.decode(PNG, RequestContext("a_request", 120), GEOMETRY, lambda: None)
        self.assertIsNone(await check)
        await pool.close()

    @unittest.skipUnless(IS_LINUX, "reads /proc")
    async def test_a_process_knows_no_keys(self) -> None:
        with patch.dict(os.environ, {"SERVICE_API_KEYS": "a-key-of-16-characters"}):
            await self.decode(PNG)
        (process,) = self.processes()
        self.assertNotIn(b"SERVICE_", Path(f"/proc/{process.pid}/environ").read_bytes())

    async def test_no_process_outlives_the_pool(self) -> None:
        await self.decode(PNG)
        processes = self.processes()
        await self.pool.close()
        _, alive = psutil.wait_procs(processes, timeout=30)
        self.assertEqual(alive, [])

    async def test_a_call_may_end_while_the_pool_is_closed(self) -> None:
        pool = decoder_pool.DecoderPool(self.config, self.metrics)
        # As a process that comes back does.
        with patch.object(decoder_pool.DecoderProcess, "end", side_effect=pool._idle.rotate) as end:
            await pool.close()
        self.assertEqual(end.call_count, len(pool._processes))


class CostTest(unittest.TestCase):
    """Each kind of picture is decoded within the cost that is estimated from its header."""

    def test_a_phones_largest_photo_may_be_decoded_as_a_whole(self) -> None:
        stream = io.BytesIO()
        Image.new("L", (8064, 6048)).convert("RGB").save(stream, "JPEG")
        whole = GEOMETRY.model_copy(update={"decode": "exact"})
        limits = settings().limits
        with service_utils.open_image(stream.getvalue(), limits.pixels, whole) as opened:
            self.assertLess(opened.cost.memory_bytes, limits.decode_bytes)

    KINDS = (
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("JPEG", "L", {"progressive": True}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "L", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "1", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", {"compression": "tiff_deflate"}),
        ("TIFF", "LAB", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {"compression": "tiff_lzw"}),
        ("AVIF", "RGB", {"speed": 10}),
        ("AVIF", "RGBA", {"speed": 10, "subsampling": "4:4:4"}),
    )

    def setUp(self) -> None:
        self.config = settings(decode_threads=1)

    @unittest.skipUnless(IS_LINUX, "limits of memory are Linux's")
    def test_each_kind_of_picture_is_decoded_within_its_cost(self) -> None:
        async def decode_all() -> None:
            pool = decoder_pool.DecoderPool(self.config, metrics.Metrics())
            # The most pixels that a second look may leave when it reduces a photo first.
            part = GEOMETRY.model_copy(update={"box": (0.3, 0.3, 0.7, 0.7)})
            most = 2 * min_side(part) - 1
            for side, geometry in ((300, GEOMETRY), (900, GEOMETRY), (2600, GEOMETRY), (most, part), (2600, part)):
                for kind, mode, options in self.KINDS:
                    with self.subTest(kind, mode=mode, side=side, box=geometry.box, **options):
                        # All pixels are equal, so that the file is small: some decoders keep a copy of it that counts.
                        image = Image.new(mode, (side, side))
                        stream = io.BytesIO()
                        image.save(stream, kind, **options)
                        pixels, _ = await pool.decode(
                            stream.getvalue(), RequestContext("a_request", 120), geometry, lambda: None
                        )
                        self.assertEqual(pixels.shape, (240, 240, 3))
            for channels, photometric in ((3, 2), (4, 5)):
                with self.subTest("TIFF of 16 bits", channels=channels):
                    photo = deflated_tiff(2600, channels, 16, photometric)
                    await pool.decode(photo, RequestContext("a_request", 120), GEOMETRY, lambda: None)
            for name, photo in made_photos(2600).items():
                with self.subTest(name):
                    pixels, _ = await pool.decode(photo, RequestContext("a_request", 120), GEOMETRY, lambda: None)
                    self.assertEqual(pixels.shape, (240, 240, 3))
            await pool.close()

        asyncio.run(decode_all())

    @unittest.skipUnless(IS_LINUX, "limits of memory are Linux's")
    def test_a_photo_that_is_decoded_exactly_is_resized_within_its_cost_in_each_way(self) -> None:
        geometries = [
            Geometry(width=24, height=16),
            Geometry(width=24, height=16, mode="pad", dtype="float32"),
            Geometry(width=24, height=16, mode="crop", antialias=False, resampling="bicubic"),
            Geometry(width=24, height=16, mode="shortest_edge", shortest_edge=32, antialias=False, dtype="float32"),
        ]
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6
        photos = {
            "PNG": save(noise.resize((2100, 1700)), "PNG", compress_level=1),
            "RGBA": save(Image.new("RGBA", (2100, 1700), (9, 99, 199, 99)), "PNG"),
            "16 bit": save(Image.new("I;16", (1700, 1700), 999), "PNG"),
            "a JPEG that is turned": save(noise.resize((2100, 1700)), "JPEG", exif=exif),
            "WebP": save(noise.resize((1300, 900)), "WEBP"),
            "small": save(noise, "JPEG"),
        }

        async def decode_all() -> None:
            pool = decoder_pool.DecoderPool(self.config, metrics.Metrics())
            for geometry in geometries:
                for name, photo in photos.items():
                    with self.subTest(name, **geometry.model_dump()):
                        pixels, _ = await pool.decode(photo, RequestContext("a_request", 120), geometry, lambda: None)
                        expected = resize.resize(service_utils.decode_image(photo, 10**8, geometry), geometry)
                        np.testing.assert_array_equal(pixels, expected)
                        self.assertEqual(pixels.dtype, geometry.dtype)
                # Pillow would make a picture of 24 by 1,500,000 of it.
                for size in ((2, 1_500_000), (1_500_000, 2)):
                    with self.subTest(size, **geometry.model_dump()), contextlib.suppress(errors.ImageTooLarge):
                        photo = save(Image.new("RGB", size, "red"), "PNG")
                        await pool.decode(photo, RequestContext("a_request", 120), geometry, lambda: None)
            await pool.close()

        asyncio.run(decode_all())

    def test_a_phones_photo_of_one_scan_costs_little_and_one_of_many_scans_all_its_coefficients(self) -> None:
        for name, options, memory, pixels in (
            ("one scan", {"exif": b"Exif\0\0" + b"\xff\xda\xff\xd9" * 20}, 10e6, 2e6 / 16),
            ("progressive", {"progressive": True, "subsampling": 0}, 20e6, 2e6),
        ):
            with self.subTest(name):
                photo = save(PHOTO.resize((2000, 1000)), "JPEG", **options)
                with service_utils.open_image(photo, 10**8, GEOMETRY) as opened:
                    self.assertAlmostEqual(opened.cost.memory_bytes, memory, delta=0.2 * memory)
                    self.assertAlmostEqual(opened.cost.pixels, pixels, delta=1)

    def test_scans_that_are_not_progressive_count_too(self) -> None:
        plain = save(PHOTO, "JPEG")
        start = decode_cost.first_scan(plain)
        end = plain.rfind(b"\xff\xd9")
        for name, photo, one_scan in (
            ("one", plain, True),
            ("two", plain[:end] + plain[start:], False),
            ("another picture behind the end", plain + plain, True),
        ):
            with self.subTest(name), service_utils.open_image(photo, 10**8) as opened:
                self.assertEqual(opened.one_scan, one_scan)

    def test_the_size_of_a_webp_is_read_without_opening_it(self) -> None:
        for options in ({}, {"lossless": True}, {"exif": b"Exif\0\0"}):
            with self.subTest(**options):
                self.assertEqual(decode_cost.webp_size(save(PHOTO, "WEBP", **options)), PHOTO.size)
        self.assertIsNone(decode_cost.webp_size(PNG))


class SmallJpegTest(unittest.TestCase):
    """Only small JPEGs are decoded in a thread: a thread can't be interrupted."""

    def test_only_a_small_jpeg_of_one_scan_is_decoded_in_a_thread(self) -> None:
        data = base64.b64decode(CAT)
        threads = decoder_threads.DecoderThreads(settings())
        self.addCleanup(threads.close)
        segment = b"\xff\xe1" + (20_002).to_bytes(2, "big") + bytes(20_000)
        for name, photo, is_small in (
            ("a photo", data, True),
            ("as many bytes as may be", data + bytes(decoder_threads.SMALL_BYTES - 1 - len(data)), True),
            ("one more", data + bytes(decoder_threads.SMALL_BYTES + 2 - len(data)), False),
            ("as many pixels as may be", save(Image.new("L", (1000, 500)), "JPEG"), True),
            ("a few more", save(Image.new("L", (1000, 501)), "JPEG"), False),
            ("much metadata", data[:2] + segment + data[2:], False),
            ("progressive", save(PHOTO, "JPEG", progressive=True), False),
            ("of another format", PNG, False),
            ("no picture", b"hello", False),
            ("nothing", b"", False),
        ):
            for sent in (photo, base64.b64encode(photo).decode()):
                with self.subTest(name, type=type(sent)):
                    may_be = decoder_threads._may_be_small_jpeg(sent)
                    self.assertEqual(
                        may_be and threads._pixels(sent, RequestContext("x", 120), GEOMETRY) is not None, is_small
                    )


class LeftoversTest(unittest.IsolatedAsyncioTestCase):
    async def test_refused_pictures_leave_nothing_behind_without_any_collection_of_garbage(self) -> None:
        asyncio.get_running_loop().slow_callback_duration = 60
        models = ServedModels(settings(), [FakeRunner()], metrics.Metrics())
        broken = base64.b64decode(CAT)[:1000]
        gc.collect()
        gc.disable()
        try:
            for photo in (broken, PNG[:2000], base64.b64encode(broken).decode() + "!", hidden_tile()):
                with self.subTest(photo[:20]):
                    before = {id(thing) for thing in gc.get_objects()}
                    # In its own task, like a request, so that everything that the task keeps is freed with it.
                    await asyncio.create_task(self.refused(models.first, photo))
                    # Let the threads finish.
                    await asyncio.sleep(0.5)
                    kinds = (BaseException, Image.Image, bytes, RequestContext)
                    left = [thing for thing in gc.get_objects() if id(thing) not in before and isinstance(thing, kinds)]
                    self.assertEqual(left, [])
        finally:
            gc.enable()
            await models.close()

    async def refused(self, service: Any, photo: "bytes | str") -> None:
        with self.assertRaises(errors.ServiceError):
            await service.classify(photo, RequestContext("a_request", 120))


if __name__ == "__main__":
    unittest.main()
