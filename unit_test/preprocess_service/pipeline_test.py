"""Tests that a request past its deadline, or of a client that has disconnected, is dropped before its next stage."""

import asyncio
import base64
import io
import json
import socket
import threading
import time
import traceback
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import requests
from PIL import Image

from preprocess_service.app import app_server
from preprocess_service.app.api import routes
from preprocess_service.app.errors import InvalidImage
from preprocess_service.app.inference import decoder_pool, decoder_threads
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.served_models import ServedModels
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, HeldRunner, settings
from unit_test.preprocess_service.formats_test import save
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.uvicorn_server_test import whole

# Not a JPEG, so that a process decodes it.
PNG = base64.b64encode(save(Image.open(io.BytesIO(base64.b64decode(CAT))), "PNG")).decode()
BROKEN = base64.b64encode(base64.b64decode(CAT)[:1000]).decode()
BODY = {"image_b64": PNG}


class DroppedWorkTest(unittest.TestCase):
    def serve(self, runner: Any = None, **limits: Any) -> None:
        self.runner = runner or FakeRunner()
        # While this event is not set, decoding waits for it.
        self.may_decode = threading.Event()
        self.held_calls = 100
        self.may_decode.set()
        self.begun: list[str] = []
        for owner, name in ((decoder_pool.DecoderProcess, "decode"), (decoder_threads, "resize")):
            self.enterContext(patch.object(owner, name, self.held(getattr(owner, name), name)))
        self.app = app_server.create_app(settings(**limits), self.runner)
        self.url = self.enterContext(serving(self.app))

    def held(self, function: Any, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.begun.append(name)
            if len(self.begun) <= self.held_calls:
                self.assertTrue(self.may_decode.wait(60))
            return function(*arguments)

        return call

    def ask(self, path: str = "/predict", body: Any = BODY, milliseconds: int = 300) -> tuple[int, str]:
        headers = {"X-Request-Timeout-Ms": str(milliseconds)}
        answer = requests.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)
        return answer.status_code, answer.json().get("code", "ok")

    def wait_until_begun(self, count: int) -> None:
        end = time.monotonic() + 30
        while len(self.begun) < count:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def test_a_picture_that_waits_for_a_process_longer_than_its_deadline_is_not_decoded(self) -> None:
        self.serve(decode_threads=1)
        self.may_decode.clear()
        with ThreadPoolExecutor(2) as senders:
            # These two requests occupy both processes.
            first = [senders.submit(self.ask, milliseconds=60_000) for _ in range(2)]
            self.wait_until_begun(2)
            self.assertEqual(self.ask(), (504, "deadline_exceeded"))
            self.may_decode.set()
            self.assertEqual([answer.result() for answer in first], [(200, "ok")] * 2)
        self.assertEqual(self.ask(milliseconds=60_000), (200, "ok"))
        self.assertEqual(len(self.begun), 3)

    def test_a_photo_that_waits_for_a_thread_longer_than_its_deadline_is_not_decoded(self) -> None:
        self.serve(decode_threads=1)
        self.may_decode.clear()
        with ThreadPoolExecutor(1) as senders:
            first = senders.submit(self.ask, body={"image_b64": CAT}, milliseconds=60_000)
            self.wait_until_begun(1)
            self.assertEqual(self.ask(body={"image_b64": CAT}), (504, "deadline_exceeded"))
            self.may_decode.set()
            self.assertEqual(first.result(), (200, "ok"))
        self.assertEqual(self.ask(body={"image_b64": CAT}, milliseconds=60_000), (200, "ok"))
        self.assertEqual(len(self.begun), 2)

    def test_a_small_photo_that_is_broken_is_refused_as_any_other(self) -> None:
        self.serve()
        self.assertEqual(self.ask(body={"image_b64": BROKEN}, milliseconds=60_000), (400, "invalid_image"))
        self.assertEqual(self.ask(body={"image_b64": CAT + "!"}, milliseconds=60_000), (400, "invalid_base64"))
        self.assertEqual(self.ask(body={"image_b64": PNG + "!"}, milliseconds=60_000), (400, "invalid_base64"))
        self.wait_for("catdog_queue_length 0.0")
        self.assertEqual(self.ask(body={"image_b64": CAT}, milliseconds=60_000), (200, "ok"))

    def test_photos_that_wait_for_a_thread_are_each_answered_as_they_are(self) -> None:
        self.serve(decode_threads=1)
        self.may_decode.clear()
        answers = []
        with ThreadPoolExecutor(6) as senders:
            for photo in (CAT, CAT, BROKEN, CAT, CAT, CAT):
                # The first photo occupies the thread and waits there.
                answers.append(senders.submit(self.ask, body={"image_b64": photo}, milliseconds=60_000))
                self.wait_for(f"catdog_in_flight {len(answers)}.0")
            self.wait_for("catdog_queue_length 5.0")
            self.may_decode.set()
            found = [answer.result() for answer in answers]
        self.assertEqual(found.pop(2), (400, "invalid_image"))
        self.assertEqual(found, [(200, "ok")] * 5)

    def test_the_error_of_a_refused_photo_does_not_hold_its_picture(self) -> None:
        async def refuse() -> Any:
            app = app_server.create_app(settings(), FakeRunner())
            photos = ServedModels(app.state.config, [FakeRunner()], app.state.metrics)
            found = await asyncio.gather(photos.first.classify(BROKEN, RequestContext("x", 60)), return_exceptions=True)
            await photos.close()
            return found[0]

        error = asyncio.run(refuse())
        self.assertIsInstance(error, InvalidImage)
        functions = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        self.assertIn("_prepare", functions)
        self.assertNotIn("_pixels", functions)
        self.assertIsNone(error.__context__)

    def test_only_so_many_photos_are_prepared_as_may_wait_for_the_model(self) -> None:
        runner = HeldRunner()
        self.serve(runner, prepared=1)
        with ThreadPoolExecutor(2) as senders:
            first = senders.submit(self.ask, milliseconds=60_000)
            self.assertTrue(runner.wait_for(1))
            second = senders.submit(self.ask, milliseconds=60_000)
            self.wait_for("catdog_queue_length 1.0")
            self.assertEqual(self.ask(), (504, "deadline_exceeded"))
            self.assertEqual(len(self.begun), 1)
            runner.release()
            self.assertEqual((first.result(), second.result()), ((200, "ok"), (200, "ok")))
        self.assertEqual(len(self.begun), 2)
        self.wait_for("catdog_queue_length 0.0")

    def test_a_photo_whose_sender_leaves_while_it_waits_for_a_process_is_not_decoded(self) -> None:
        # The deadline would cancel it too, so it is longer than this test waits.
        self.serve(decode_threads=1, deadline_seconds=60)
        self.may_decode.clear()
        with ThreadPoolExecutor(2) as senders:
            first = [senders.submit(self.ask, milliseconds=60_000) for _ in range(2)]
            self.wait_until_begun(2)
            with socket.create_connection(self.url.removeprefix("http://").split(":")) as client:
                client.sendall(whole(json.dumps(BODY).encode()))
                self.wait_for("catdog_in_flight 3.0")
            self.wait_for("catdog_client_disconnects_total 1.0")
            self.may_decode.set()
            self.assertEqual([answer.result() for answer in first], [(200, "ok")] * 2)
        self.assertEqual(len(self.begun), 2)

    def test_a_batch_leaves_places_for_other_photos(self) -> None:
        self.serve(decode_threads=1, in_flight=8, prepared=4)
        self.may_decode.clear()
        self.held_calls = 1
        with ThreadPoolExecutor(1) as senders:
            batch = senders.submit(self.ask, "/predict/batch", {"images_b64": [PNG] * 32}, 60_000)
            self.wait_until_begun(1)
            self.wait_for("catdog_concurrency 2.0")
            # It leaves a process too: the batch uses one, and this photo gets the other.
            self.assertEqual(self.ask(milliseconds=60_000), (200, "ok"))
            self.assertEqual(len(self.begun), 2)
            self.may_decode.set()
            self.assertEqual(batch.result(), (200, "ok"))

    def test_a_batch_that_is_late_is_late_as_a_whole_and_its_calls_are_cancelled(self) -> None:
        runner = HeldRunner()
        self.serve(runner)
        self.assertEqual(
            self.ask("/predict/batch", {"images_b64": [CAT] * 3}, milliseconds=2000), (504, "deadline_exceeded")
        )
        self.assertTrue(runner.was_cancelled.wait(10))
        self.wait_for("catdog_in_flight 0.0")
        self.wait_for("catdog_concurrency 0.0")

    def test_the_time_in_which_the_head_waited_counts(self) -> None:
        self.serve()
        with patch.object(routes, "start_request", late(routes.start_request)):
            self.assertEqual(self.ask(), (504, "deadline_exceeded"))

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + 30
        while line not in requests.get(f"{self.url}/metrics", timeout=30).text:
            self.assertLess(time.monotonic(), end, line)
            time.sleep(0.02)


def late(start_request: Any) -> Any:
    """Simulate a busy event loop: the app sees a request half a second after its headers arrived."""

    def start(request: Any, seconds: float) -> Any:
        time.sleep(0.5)
        return start_request(request, seconds)

    return start
