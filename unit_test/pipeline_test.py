"""What is late, or whose sender has left, is dropped before the next costly step, wherever it waits."""

import base64
import json
import socket
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import requests
from app_server_test import CAT, FakeRunner, HeldRunner, settings
from http_server import serving
from preprocess_service import app_server, pipeline, predict
from server_test import whole

# Behind its end stands what begins a scan: a photo may have many, so this one is for a thread, even alone.
SLOW = base64.b64encode(base64.b64decode(CAT) + b"\xff\xda").decode()
BROKEN = base64.b64encode(base64.b64decode(CAT)[:1000]).decode()
BODY = {"image_b64": SLOW}


class DroppedWorkTest(unittest.TestCase):
    def serve(self, runner: Any = None, **limits: Any) -> None:
        self.runner = runner or FakeRunner()
        self.app = app_server.create_app(settings(**limits), self.runner)
        self.url = self.enterContext(serving(self.app))
        self.to_pixels = self.enterContext(patch.object(pipeline, "to_pixels", wraps=pipeline.to_pixels))

    def ask(self, path: str = "/predict", body: Any = BODY, milliseconds: int = 300) -> tuple[int, str]:
        headers = {"X-Request-Timeout-Ms": str(milliseconds)}
        answer = requests.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)
        return answer.status_code, answer.json().get("code", "ok")

    def all_pixels(self) -> Any:
        """Hold all room there is for decoded pixels."""
        return self.app.state.pipeline._budget.take(settings().limits.pixels)

    def check_nothing_was_prepared(self) -> None:
        # The next one is answered, and when it is, whatever stood before it in the threads is through.
        self.assertEqual(self.ask(milliseconds=60_000), (200, "ok"))
        self.assertEqual(self.to_pixels.call_count, 1)

    def test_a_photo_that_waits_for_room_longer_than_its_deadline_is_not_decoded(self) -> None:
        self.serve(decode_threads=1)
        with self.all_pixels():
            self.assertEqual(self.ask(), (504, "deadline_exceeded"))
        self.check_nothing_was_prepared()

    def test_a_photo_that_waits_for_a_thread_longer_than_its_deadline_is_not_decoded(self) -> None:
        self.serve(decode_threads=1)
        with self.all_pixels():
            # The first keeps the one thread waiting, the second waits for the thread.
            self.assertEqual([self.ask(), self.ask()], [(504, "deadline_exceeded")] * 2)
        self.check_nothing_was_prepared()

    def test_a_quick_photo_that_is_alone_waits_for_no_thread_and_no_room(self) -> None:
        runner = HeldRunner()
        self.serve(runner, decode_threads=1)
        quick = {"image_b64": CAT}
        with ThreadPoolExecutor(2) as senders:
            with self.all_pixels():
                # It leaves behind a thread that waits for room.
                self.assertEqual(self.ask(), (504, "deadline_exceeded"))
                alone = senders.submit(self.ask, body=quick, milliseconds=60_000)
                self.assertTrue(runner.wait_for(1))
                # Not alone any more.
                self.assertEqual(self.ask(body=quick), (504, "deadline_exceeded"))
                self.assertEqual(self.to_pixels.call_count, 1)
            runner.release()
            self.assertEqual(alone.result(), (200, "ok"))

    def test_a_quick_photo_that_is_broken_is_refused_as_any_other(self) -> None:
        self.serve()
        self.assertEqual(self.ask(body={"image_b64": BROKEN}), (400, "invalid_image"))
        self.assertEqual(self.ask(body={"image_b64": CAT + "!"}), (400, "invalid_base64"))
        self.wait_for("catdog_queue_length 0.0")
        self.assertEqual(self.ask(body={"image_b64": CAT}), (200, "ok"))

    def test_photos_that_wait_for_a_thread_are_prepared_together_and_each_is_answered(self) -> None:
        large = base64.b64encode(base64.b64decode(CAT) + bytes(400_000)).decode()
        names = {SLOW: "slow", CAT: "photo", BROKEN: "broken", large: "large"}
        prepared: list[list[str]] = []
        together = pipeline.Pipeline._prepare_together

        async def prepare(self: Any, raws: Any) -> Any:
            prepared.append([names[raw.photo] for raw in raws])
            return await together(self, raws)

        self.enterContext(patch.object(pipeline.Pipeline, "_prepare_together", prepare))
        self.serve(decode_threads=1)
        answers = []
        with ThreadPoolExecutor(7) as senders:
            with self.all_pixels():
                for photo in (SLOW, CAT, BROKEN, CAT, CAT, CAT, large):
                    answers.append(senders.submit(self.ask, body={"image_b64": photo}, milliseconds=60_000))
                    # The first has the thread, and waits in it for room.
                    self.wait_for(f"catdog_in_flight {len(answers)}.0")
            found = [answer.result() for answer in answers]
        self.assertEqual(found.pop(2), (400, "invalid_image"))
        self.assertEqual(found, [(200, "ok")] * 6)
        self.assertEqual(prepared, [["slow"], ["photo", "broken", "photo", "photo"], ["photo"], ["large"]])

    def test_only_so_many_photos_are_prepared_as_may_wait_for_the_model(self) -> None:
        runner = HeldRunner()
        self.serve(runner, prepared=1)
        with ThreadPoolExecutor(2) as senders:
            first = senders.submit(self.ask, milliseconds=60_000)
            self.assertTrue(runner.wait_for(1))
            second = senders.submit(self.ask, milliseconds=60_000)
            self.wait_for("catdog_queue_length 1.0")
            self.assertEqual(self.ask(), (504, "deadline_exceeded"))
            self.assertEqual(self.to_pixels.call_count, 1)
            runner.release()
            self.assertEqual((first.result(), second.result()), ((200, "ok"), (200, "ok")))
        self.assertEqual(self.to_pixels.call_count, 2)
        self.wait_for("catdog_queue_length 0.0")

    def test_a_photo_whose_sender_leaves_while_it_waits_for_room_is_not_decoded(self) -> None:
        # The deadline, which would drop it too, is beyond what is waited for.
        self.serve(decode_threads=1, deadline_seconds=60)
        with self.all_pixels():
            with socket.create_connection(self.url.removeprefix("http://").split(":")) as client:
                client.sendall(whole(json.dumps(BODY).encode()))
                self.wait_for("catdog_in_flight 1.0")
            self.wait_for("catdog_gone_total 1.0")
        self.check_nothing_was_prepared()

    def test_a_batch_that_is_late_is_late_as_a_whole_and_its_calls_are_cancelled(self) -> None:
        runner = HeldRunner()
        self.serve(runner)
        self.assertEqual(
            self.ask("/predict/batch", {"images_b64": [CAT] * 3}, milliseconds=2000), (504, "deadline_exceeded")
        )
        self.assertTrue(runner.was_cancelled.wait(10))
        self.wait_for("catdog_in_flight 0.0")
        self.wait_for("catdog_places_taken 0.0")

    def test_the_time_in_which_the_head_waited_counts(self) -> None:
        self.serve()
        with patch.object(predict, "start_job", late(predict.start_job)):
            self.assertEqual(self.ask(), (504, "deadline_exceeded"))

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + 30
        while line not in requests.get(f"{self.url}/metrics", timeout=30).text:
            self.assertLess(time.monotonic(), end, line)
            time.sleep(0.02)


def late(start_job: Any) -> Any:
    """As on an event loop that is so busy that the app sees a request half a second after its head was there."""

    def start(request: Any, seconds: float) -> Any:
        time.sleep(0.5)
        return start_job(request, seconds)

    return start
