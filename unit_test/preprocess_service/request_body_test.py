"""Bodies as browsers, libraries and proxies send them: forms, packed bodies, JSON in other encodings."""

import asyncio
import codecs
import contextlib
import gzip
import io
import json
import os
import time
import tracemalloc
import unittest
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests

from preprocess_service.app import app_server
from preprocess_service.app.api import content_coding, form_body
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.utils import IMAGES

PHOTO = (IMAGES / "cat_1.jpg").read_bytes()
TEXT = json.dumps({"image_b64": CAT})
IMAGE = {"Content-Type": "image/jpeg"}
JSON = {"Content-Type": "application/json"}


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = "\r\n".join((f"Content-Disposition: form-data; {disposition}", *headers))
    return b"--B\r\n" + lines.encode() + b"\r\n\r\n" + content + b"\r\n"


FILE = part('name="file"; filename="cat.jpg"', PHOTO, "Content-Type: image/jpeg")
END = b"--B--\r\n"


class BodyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.runner = FakeRunner()
        self.url = self.enterContext(serving(app_server.create_app(self.settings(), self.runner)))

    def settings(self) -> Any:
        return settings()

    def post(self, body: Any, headers: dict[str, str], path: str = "/predict") -> requests.Response:
        return requests.post(f"{self.url}{path}", data=body, headers=headers, timeout=30)

    def check_taken(self, body: Any, headers: dict[str, str], path: str = "/predict", count: int = 0) -> None:
        """Whether the model gets the photo's pixels, whichever way it comes; ``count`` times, in a batch."""
        self.post(PHOTO, IMAGE)
        expected, self.runner.pixels = self.runner.pixels, None
        response = self.post(body, headers, path)
        self.assertEqual(response.status_code, 200, response.text)
        np.testing.assert_array_equal(self.runner.pixels, expected)
        if count:
            labels = [one.get("pet_type") for one in response.json()["predictions"]]
            self.assertEqual(labels, ["DOG"] * count)

    def check_refused(self, response: requests.Response, status: int, code: str, *words: str) -> None:
        self.assertEqual((response.status_code, response.json()["code"]), (status, code), response.text)
        for word in words:
            self.assertIn(word, response.json()["msg"])


class FormTest(BodyTest):
    TYPE = "multipart/form-data; boundary=B"

    def form(self, *parts: bytes, end: bytes = END, path: str = "/predict") -> requests.Response:
        return self.post(b"".join(parts) + end, {"Content-Type": self.TYPE}, path)

    def test_other_fields_are_skipped(self) -> None:
        for name, parts in (
            ("FilePond", [part('name="file"', b"{}"), FILE]),
            ("Uppy", [part(f'name="{field}"', b"null") for field in ("relativePath", "name", "type")] + [FILE]),
            ("a page's token", [part('name="csrfmiddlewaretoken"', b"x" * 64), FILE]),
            ("behind it", [FILE, part('name="submit"', b"Send")]),
            ("another file", [part('name="thumbnail"; filename="t.jpg"', b"\xff\xd8"), FILE]),
            ("no name", [b"--B\r\n\r\nx\r\n", part('filename="a"', b"x"), FILE]),
            ("a large one", [part('name="note"', b"x" * 1_000_000), FILE]),
        ):
            with self.subTest(name):
                self.check_taken(b"".join(parts) + END, {"Content-Type": self.TYPE})
        pairs = [part('name="file"', b"{}"), FILE] * 3
        self.check_taken(b"".join(pairs) + END, {"Content-Type": self.TYPE}, "/predict/batch", 3)

    def test_a_picture_may_have_no_file_name(self) -> None:
        for name, one in (
            ("none", part('name="file"', PHOTO)),
            ("a type", part('name="file"', PHOTO, "Content-Type: image/jpeg")),
            ("an empty one", part('name="file"; filename=""', PHOTO)),
            ("an encoded one", part("name=\"file\"; filename*=UTF-8''g%C3%A1to.jpg", PHOTO)),
            ("no quotes", part("name=file", PHOTO)),
            ("small letters", FILE.replace(b"Content-Disposition", b"content-disposition")),
        ):
            with self.subTest(name):
                self.check_taken(one + END, {"Content-Type": self.TYPE})
        self.check_taken(part('name="file"', PHOTO) * 2 + END, {"Content-Type": self.TYPE}, "/predict/batch", 2)

    def test_each_refusal_says_the_true_reason(self) -> None:
        for name, response, words in (
            ("two", self.form(FILE, FILE), ["2 pictures", "/predict/batch"]),
            ("two without names", self.form(part('name="file"', PHOTO) * 2), ["2 pictures"]),
            ("no boundary", self.post(FILE + END, {"Content-Type": "multipart/form-data"}), ["no boundary"]),
            (
                "an empty one",
                self.post(FILE + END, {"Content-Type": "multipart/form-data; boundary="}),
                ["no boundary"],
            ),
            ("another field", self.form(part('name="photo"; filename="a"', PHOTO)), ["it has: 'photo'"]),
            ("other fields", self.form(part('name="a"', b""), part('name="b"', b"")), ["it has: 'a', 'b'"]),
            ("no field", self.form(), ["no field"]),
            ("nothing", self.form(end=b""), ["missing"]),
            ("its start", self.form(end=b"--B\r\n"), ["missing"]),
            ("half of it", self.form(FILE[:-100], end=b""), ["missing"]),
            ("no end", self.form(FILE, end=b""), ["missing"]),
            ("another boundary", self.form(FILE.replace(b"--B", b"--C")), ["boundary"]),
            ("no form", self.form(PHOTO), ["boundary"]),
            ("a broken header", self.form(b"--B\r\nno header\r\n\r\nx\r\n"), ["headers of a part"]),
            ("fields without end", self.form(part('name="a"', b"") * 500), ["too many fields"]),
        ):
            with self.subTest(name):
                self.check_refused(response, 422, "invalid_request", *words)
        self.check_refused(self.form(part('name="file"; filename=""', b"")), 400, "invalid_image", "0 bytes")

    def test_of_a_batch_with_too_many_all_are_counted(self) -> None:
        most = settings().limits.batch_items
        response = self.form(part('name="file"; filename="a"', b"x") * (most + 8), path="/predict/batch")
        self.check_refused(response, 422, "invalid_request", f"this one has {most + 8}")
        self.check_refused(self.form(path="/predict/batch"), 422, "invalid_request", "no field")

    def test_a_form_may_come_in_any_parts(self) -> None:
        whole = part('name="file"', b"{}") + FILE + END
        for size in (1, 7, 4096):
            with self.subTest(size):
                step = max(size, len(whole) // 500) if size == 1 else size
                cuts = [whole[:200][i : i + size] for i in range(0, 200, size)]
                cuts += [whole[i : i + step] for i in range(200, len(whole), step)]
                self.check_taken(iter(cuts), {"Content-Type": self.TYPE})

    def test_a_field_that_is_skipped_takes_no_memory(self) -> None:
        form = form_body._Form(1)
        data = bytes(1000)
        form.on_part_begin()
        form.on_headers_finished()
        tracemalloc.start()
        try:
            for _ in range(10_000):
                form.on_part_data(data, 0, len(data))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 100_000)


class PackedTest(BodyTest):
    def settings(self) -> Any:
        return settings(body_bytes=2_000_000)

    def packed(self, coding: str, body: Any, **headers: str) -> requests.Response:
        return self.post(body, IMAGE | {"Content-Encoding": coding} | headers)

    def test_gzip_and_deflate_are_unpacked(self) -> None:
        zipped, raw = gzip.compress(PHOTO), zlib.compress(PHOTO, wbits=-15)
        halves = gzip.compress(PHOTO[:9999]) + gzip.compress(PHOTO[9999:])
        for coding, body in (
            ("gzip", zipped),
            ("GZIP", zipped),
            ("x-gzip", zipped),
            ("gzip", halves),
            ("gzip", zipped + bytes(512)),
            ("deflate", zlib.compress(PHOTO)),
            ("deflate", zlib.compress(PHOTO, level=9, wbits=9)),
            ("deflate", raw),
            ("identity", PHOTO),
            ("", PHOTO),
            ("gzip, identity", zipped),
            ("deflate, gzip", gzip.compress(raw)),
            ("gzip,,gzip", gzip.compress(zipped)),
        ):
            with self.subTest(coding, size=len(body)):
                headers = IMAGE | {"Content-Encoding": coding}
                self.check_taken(body, headers)
                self.check_taken(iter([body[:1], body[1:3], body[3:1000], body[1000:]]), headers)
        self.check_taken(gzip.compress(TEXT.encode()), JSON | {"Content-Encoding": "gzip"})
        self.check_taken(gzip.compress(TEXT.encode("utf-16")), JSON | {"Content-Encoding": "gzip"})
        form = {"Content-Type": FormTest.TYPE, "Content-Encoding": "gzip"}
        self.check_taken(gzip.compress(FILE + END), form)
        batch = json.dumps({"images_b64": [CAT, CAT]}).encode()
        self.check_taken(zlib.compress(batch), JSON | {"Content-Encoding": "deflate"}, "/predict/batch", 2)

    def test_what_is_broken_is_told_so(self) -> None:
        zipped, deflated = gzip.compress(PHOTO), zlib.compress(PHOTO)
        for coding, body, word in (
            ("gzip", PHOTO, "not valid gzip"),
            ("deflate", PHOTO, "not valid deflate"),
            ("gzip", deflated, "not valid gzip"),
            ("gzip", zipped[:-9] + b"x" + zipped[-8:], "not valid gzip"),
            ("gzip", zipped + b"more", "not valid gzip"),
            ("deflate", deflated + b"more", "not valid deflate"),
            ("gzip", zipped[:-5], "end of its gzip data is missing"),
            ("deflate", deflated[:-5], "end of its deflate data is missing"),
            ("gzip", b"", "end of its gzip data is missing"),
            ("deflate", b"x", "end of its deflate data is missing"),
            ("gzip, gzip", zipped, "not valid gzip"),
            ("gzip", gzip.compress(b"") * 1500, "not valid gzip"),
        ):
            with self.subTest(coding, size=len(body)):
                self.check_refused(self.packed(coding, body), 400, "invalid_encoding", word)

    def test_others_are_refused_by_name(self) -> None:
        for coding, word in (
            ("br", "br"),
            ("zstd", "zstd"),
            ("compress", "compress"),
            ("gzip, br", "br"),
            ("gzip, gzip, gzip", "gzip, gzip, gzip"),
            ("gzip," * 2000, "gzip, gzip"),
            ("aws-chunked", "aws-chunked"),
            ("n\u00e3o", "n\u00e3o"),
        ):
            with self.subTest(coding[:40]):
                response = self.post(PHOTO, {"Content-Encoding": coding.encode("latin-1")} | IMAGE)  # type: ignore[dict-item]
                self.check_refused(response, 415, "unsupported_media_type", f"Content-Encoding {word}")
                self.assertEqual(response.headers["accept-encoding"], "gzip, deflate")

    def test_the_limit_holds_for_what_it_is_unpacked_to(self) -> None:
        bomb = gzip.compress(bytes(300_000_000))
        self.assertLess(len(bomb), 500_000)
        noise = os.urandom(2_100_000)
        for name, coding, body in (
            ("a little over it", "gzip", gzip.compress(bytes(2_000_001))),
            ("far over it", "gzip", bomb),
            ("deflate", "deflate", zlib.compress(bytes(300_000_000))),
            ("one in another", "gzip, gzip", gzip.compress(bomb)),
            ("as it comes", "gzip", gzip.compress(noise)),
            ("as it comes, in parts", "gzip", iter([gzip.compress(noise)])),
        ):
            with self.subTest(name):
                self.check_refused(self.packed(coding, body), 413, "image_too_large", "2 MB")
        within = b'{"image_b64": "' + CAT.encode() + b'"' + b" " * 1_800_000 + b"}"
        self.check_taken(gzip.compress(within), JSON | {"Content-Encoding": "gzip"})


class MemoryOfPackedTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_bomb_is_unpacked_a_piece_at_a_time(self) -> None:
        bomb = gzip.compress(bytes(60_000_000))

        async def parts() -> Any:
            yield bomb

        sizes = []
        tracemalloc.start()
        try:
            with self.assertRaises(content_coding.ImageTooLarge):
                async for piece in content_coding.unpack(parts(), "gzip", 50_000_000):
                    sizes.append(len(piece))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLessEqual(max(sizes), content_coding.PIECE_BYTES)
        self.assertLessEqual(sum(sizes), 50_000_000)
        self.assertLess(peak, 5_000_000)

    async def test_others_have_their_turn_in_between(self) -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def parts() -> Any:
            yield gzip.compress(bytes(10_000_000))

        task = asyncio.create_task(other())
        size = sum([len(piece) async for piece in content_coding.unpack(parts(), "gzip", 20_000_000)])
        task.cancel()
        self.assertEqual(size, 10_000_000)
        self.assertGreaterEqual(turns, 10_000_000 // content_coding.PIECE_BYTES)


class RoomForPackedTest(BodyTest):
    def settings(self) -> Any:
        return settings(buffered_bytes=1_000_000, body_bytes=5_000_000)

    def test_what_it_is_unpacked_to_is_what_counts_for_the_memory_of_all(self) -> None:
        body = gzip.compress(b'{"image_b64": "' + b" " * 1_500_000 + b'"}')
        self.assertLess(len(body), 10_000)
        self.check_refused(self.post(body, JSON | {"Content-Encoding": "gzip"}), 503, "overloaded")
        self.check_taken(gzip.compress(TEXT.encode()), JSON | {"Content-Encoding": "gzip"})


class RateOfPackedTest(BodyTest):
    def settings(self) -> Any:
        return settings(body_grace_seconds=0.5, body_bytes_per_second=5000, deadline_seconds=600)

    def test_one_that_is_slow_is_ended_whatever_it_is_unpacked_to(self) -> None:
        packed = gzip.compress(b'{"image_b64": "' + b" " * 19_000_000 + b'"}')

        def parts() -> Iterator[bytes]:
            # Each is unpacked to some 100 KB; 1,000 bytes a second come.
            for start in range(0, len(packed), 100):
                yield packed[start : start + 100]
                time.sleep(0.1)

        # The connection may be ended while it is still being sent.
        with contextlib.suppress(requests.ConnectionError):
            self.check_refused(self.post(parts(), JSON | {"Content-Encoding": "gzip"}), 408, "request_timeout")
        text = requests.get(f"{self.url}/metrics", timeout=30).text
        self.assertIn('catdog_failures_total{code="request_timeout"} 1.0', text)


class JsonTest(BodyTest):
    def test_json_may_be_in_any_encoding_of_unicode(self) -> None:
        for name, body in (
            ("utf-8", codecs.BOM_UTF8 + TEXT.encode()),
            ("utf-16", TEXT.encode("utf-16")),
            ("utf-16le", TEXT.encode("utf-16-le")),
            ("utf-16be", TEXT.encode("utf-16-be")),
            ("utf-16", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
            ("utf-32", TEXT.encode("utf-32")),
            ("utf-32le", TEXT.encode("utf-32-le")),
            ("utf-32be", f" \n{TEXT}".encode("utf-32-be")),
        ):
            for content_type in ("application/json", f"application/json; charset={name}", "application/json;charset=x"):
                with self.subTest(name, content_type=content_type):
                    self.check_taken(body, {"Content-Type": content_type})
        batch = json.dumps({"images_b64": [CAT, CAT]})
        self.check_taken(batch.encode("utf-16"), JSON, "/predict/batch", 2)

    def test_what_only_looks_like_it_is_no_json(self) -> None:
        for body in (
            TEXT.encode("utf-16")[:-1],
            codecs.BOM_UTF16_LE + b"\x00\xd8",
            b"\x00\x00\x00\x1cftypheic",
            codecs.BOM_UTF32_LE + b"\xff" * 8,
            codecs.BOM_UTF8 * 2 + TEXT.encode(),
            codecs.BOM_UTF8,
        ):
            with self.subTest(body[:12]):
                self.check_refused(self.post(body, JSON), 422, "invalid_request", "not JSON")

    def test_its_parts_are_counted_in_every_encoding(self) -> None:
        body = ('{"images_b64": [' + "[]," * 9999 + "[]]}").encode("utf-16")
        response = self.post(body, JSON, "/predict/batch")
        self.check_refused(response, 422, "invalid_request", "too many items")


class TypesTest(BodyTest):
    def test_a_batch_that_is_one_file_is_told_what_a_batch_is(self) -> None:
        response = self.post(PHOTO, IMAGE, "/predict/batch")
        self.assertEqual(response.status_code, 415)
        self.assertIn("image/jpeg", response.json()["msg"])
        self.assertNotIn("the picture itself", response.json()["msg"])

    def test_what_stores_of_files_call_a_file_is_taken(self) -> None:
        for content_type in ("binary/octet-stream", "Binary/Octet-Stream; charset=binary"):
            with self.subTest(content_type):
                self.check_taken(io.BytesIO(PHOTO), {"Content-Type": content_type})


if __name__ == "__main__":
    unittest.main()
