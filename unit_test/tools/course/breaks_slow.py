"""Tests that each script of the course's chapter 5 shows a fault of the course's service, and that it is mended."""

import base64
import contextlib
import time
import unittest
from concurrent import futures

import grpc
import requests

from tools.service import PROJECT
from unit_test.tools.course.breaks_test import CourseCase

# Without a limit gRPC's next attempt to connect is about 13 s after an outage of this length (1.6 times as long each).
OUTAGE_S = 30
LONGEST_WAIT_S = 5


class BreaksTest(CourseCase):
    def test_each_fault_is_shown_and_then_mended(self) -> None:
        plain, mended = self.copy(mended=False), self.copy(mended=True)
        with contextlib.ExitStack() as running:
            services = [(folder, running.enter_context(self.service(folder))) for folder in (plain, mended)]

            def both(script: str, *options: str) -> list[str]:
                return [self.script(folder, url, script, *options) for folder, url in services]

            with self.model_server():
                sideways = both("sideways_photo.py")
                before, after = (self.numbers(r"sideways: 200 DOG ([\d.]+)", one) for one in sideways)
                self.assertIn("sideways: 200 CAT", sideways[0])
                self.assertLess(before[0], 90)
                self.assertEqual(len(after), 2)
                self.assertGreater(min(after), 99)

                # The shortest of three: another program may take the processor at any time.
                waits = [
                    [self.numbers(r"photos +([\d.]+) s", one)[0] for one in both("blocking_call.py")] for _ in "123"
                ]
                before_s, after_s = map(min, zip(*waits, strict=True))
                self.assertGreater(before_s, 3 * after_s)

                bombs = both("picture_bomb.py")
                before_mb, after_mb = (self.numbers(r"memory \+(\d+) MB", one)[0] for one in bombs)
                self.assertGreater(before_mb, 500)
                self.assertLess(after_mb, 100)

            self.assertEqual([one[:3] for one in both("killed_model_server.py")], ["500", "503"])

    def test_the_mended_service_connects_soon_after_a_long_outage(self) -> None:
        body = {"image_b64": base64.b64encode((PROJECT / "images" / "cat_1.jpg").read_bytes()).decode()}
        with self.service(self.copy(mended=True)) as url:
            end = time.monotonic() + OUTAGE_S
            while time.monotonic() < end:
                self.assertIn("UNAVAILABLE", requests.post(f"{url}/predict", json=body, timeout=60).text)
                time.sleep(0.5)
            # It knows no function and so answers UNIMPLEMENTED. A model server's first prediction may take seconds.
            server = grpc.server(futures.ThreadPoolExecutor(1))
            server.add_insecure_port(f"127.0.0.1:{self.ports[0]}")
            server.start()
            self.addCleanup(server.stop, None)
            start = time.monotonic()
            while "UNIMPLEMENTED" not in requests.post(f"{url}/predict", json=body, timeout=60).text:
                self.assertLess(time.monotonic() - start, LONGEST_WAIT_S)
                time.sleep(0.1)

    def test_tensorflow_is_shown_and_then_avoided(self) -> None:
        rows = [self.script(self.copy(mended), "", "tensorflow_weight.py") for mended in (False, True)]
        seconds = [self.numbers(r"model_runner.py +([\d.]+) s", one)[0] for one in rows]
        megabytes = [self.numbers(r"model_runner.py .* (\d+) MB", one)[0] for one in rows]
        self.assertGreater(seconds[0], 3 * seconds[1])
        self.assertGreater(megabytes[0], 3 * megabytes[1])


if __name__ == "__main__":
    unittest.main()
