"""Tests the command line client as a program: what it sends, what it prints, and its exit status."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from preprocess_service.app import app_server, config, errors
from preprocess_service.app.serving_client import predict_response
from unit_test.preprocess_service.app_server_test import FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.tools.programs import answering_with

PROJECT = Path(__file__).parents[2]


class BrightnessRunner(FakeRunner):
    """Answers CAT to bright and DOG to dark photos, and takes longer for dark ones."""

    async def predict(self, pixels: Any, model: Any, timeout: float, *rest: Any) -> Any:
        bright = pixels.mean() > 127
        await asyncio.sleep(0.1 if bright else 0.3)
        self.answer = 0.9 if bright else 0.2
        return await super().predict(pixels, model, timeout, *rest)


class MeetingRunner(FakeRunner):
    """Answers only when several requests are waiting at the same time."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._barrier = asyncio.Barrier(count)

    async def predict(self, pixels: Any, model: Any, timeout: float, *rest: Any) -> Any:
        await self._barrier.wait()
        return await super().predict(pixels, model, timeout, *rest)


class BusyRunner(FakeRunner):
    """Is overloaded for the first few requests."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    async def predict(self, pixels: Any, model: Any, timeout: float, *rest: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise errors.Overloaded
        return await super().predict(pixels, model, timeout, *rest)


class DoubtfulRunner(FakeRunner):
    """Answers that no photo is in the domain."""

    async def predict(self, pixels: Any, model: Any, timeout: float, *rest: Any) -> Any:
        return predict_response.Prediction({"CAT": 0.6, "DOG": 0.4}, 3, 0.0, 0.3)


class AnotherProgram(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class ClassifyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def serve(self, runner: Any, **limits: Any) -> str:
        return self.enterContext(serving(app_server.create_app(settings(**limits), runner)))

    def paint(self, name: str, color: str = "white") -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), color).save(path)
        return str(path)

    def run_it(self, url: str, *arguments: object, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tools.classify", *map(str, arguments), "--url", url]
        environment = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(PROJECT)}
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=self.folder,
            encoding="utf-8",
            timeout=60,
            check=False,
            env=environment,
        )

    def lines(self, url: str, *arguments: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run_it(url, "--json", *arguments).stdout.splitlines()]

    def test_each_photo_has_its_own_answer_in_the_order_of_the_arguments(self) -> None:
        url = self.serve(BrightnessRunner())
        photos = [self.paint(f"{number}.png", "black" if number % 3 == 0 else "white") for number in (3, 1, 2, 6, 5, 4)]
        run = self.run_it(url, *photos, "--clients", 3)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(
            [line.split() for line in run.stdout.splitlines()],
            [[photo, *(("DOG", "80.00") if photo[-5] in "36" else ("CAT", "90.00")), "%"] for photo in photos],
        )

    def test_the_models_own_doubt_is_told(self) -> None:
        photo = self.paint("tree.png")
        for runner, doubts in ((DoubtfulRunner(), True), (FakeRunner(), False)):
            with self.subTest(doubts=doubts):
                self.assertEqual("probably neither" in self.run_it(self.serve(runner), photo).stdout, doubts)

    def test_what_got_no_answer_says_why_and_ends_with_1(self) -> None:
        url = self.serve(FakeRunner())
        (self.folder / "text.jpg").write_text("meow")
        (self.folder / "empty").mkdir()
        photo = self.paint("good.png")
        run = self.run_it(url, "text.jpg", photo, "missing.jpg", "empty")
        self.assertEqual(run.returncode, 1)
        text, good, missing, empty = run.stdout.splitlines()
        self.assertRegex(text, r"^text\.jpg .*not a picture")
        self.assertRegex(good, r"DOG +75\.00 %$")
        self.assertRegex(missing, r"^missing\.jpg .*no such file")
        self.assertRegex(empty, r"^empty .*no photos in this folder")

    def test_json_has_the_services_answer_and_the_file(self) -> None:
        url = self.serve(FakeRunner())
        (self.folder / "text.jpg").write_text("meow")
        good, bad, missing = self.lines(url, self.paint("é ü.png"), "text.jpg", "missing.jpg")
        self.assertEqual((good["file"], good["status"]), (str(self.folder / "é ü.png"), "Success"))
        self.assertEqual(good["probabilities"], {"CAT": 0.25, "DOG": 0.75})
        self.assertEqual((bad["file"], bad["status"], bad["code"]), ("text.jpg", "Failed", "invalid_image"))
        self.assertEqual((missing["status"], missing["code"]), ("Failed", "file_unreadable"))

    def test_folders_and_patterns_give_their_photos_sorted_and_each_once(self) -> None:
        url = self.serve(FakeRunner())
        for name in ("b/2.PNG", "b/1.jpg", "b/deep/3.webp", "b/._1.jpg", "b/notes.txt", "a.gif"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(self.folder / name, "PNG")
        for name, arguments, expected in (
            ("a folder", ["b"], ["b/1.jpg", "b/2.PNG", "b/deep/3.webp"]),
            ("a pattern", ["b/*.jpg"], ["b/1.jpg"]),
            ("a pattern of folders", ["b/**/*.webp"], ["b/deep/3.webp"]),
            ("the same twice", ["a.gif", "b/1.jpg", "b", "a.gif"], ["a.gif", "b/1.jpg", "b/2.PNG", "b/deep/3.webp"]),
            ("a file of any name", ["b/notes.txt"], ["b/notes.txt"]),
        ):
            with self.subTest(name):
                found = [Path(line["file"]).as_posix() for line in self.lines(url, *arguments)]
                self.assertEqual(found, expected)

    def test_a_name_with_brackets_is_a_file_where_there_is_one(self) -> None:
        url = self.serve(FakeRunner())
        self.paint("cat[1].png")
        self.assertEqual([line["status"] for line in self.lines(url, "cat[1].png")], ["Success"])

    def test_as_many_photos_are_in_flight_as_there_are_clients(self) -> None:
        url = self.serve(MeetingRunner(5), deadline_seconds=20.0)
        run = self.run_it(url, *(self.paint(f"{number}.png") for number in range(5)), "--clients", 5)
        self.assertEqual(run.returncode, 0, run.stdout)

    def test_a_busy_service_is_asked_again_but_not_for_ever(self) -> None:
        photo = self.paint("cat.png")
        for times, status, word in ((1, 0, "DOG"), (100, 1, "is overloaded")):
            with self.subTest(times):
                runner = BusyRunner(times)
                run = self.run_it(self.serve(runner), photo)
                self.assertEqual(run.returncode, status)
                self.assertIn(word, run.stdout)
                # At most three attempts.
                self.assertGreaterEqual(runner.left, times - 3)

    def test_a_service_that_asks_for_a_key_gets_the_one_of_the_environment(self) -> None:
        key = "0123456789abcdef"
        keyed = config.load_config({"SERVICE_API_KEYS": f"another-key-of-many, {key}"})
        url = self.enterContext(serving(app_server.create_app(keyed, FakeRunner())))
        photo = self.paint("cat.png")
        for name, sent, status in (("right", key, 0), ("wrong", key[::-1], 2), ("none", "", 2)):
            with self.subTest(name), patch.dict(os.environ, CATDOG_API_KEY=sent):
                run = self.run_it(url, photo)
                self.assertEqual(run.returncode, status, run.stderr)
                self.assertEqual("CATDOG_API_KEY" in run.stderr, status == 2)

    def test_a_photo_over_the_limit_fails_alone(self) -> None:
        url = self.serve(FakeRunner(), body_bytes=2000)
        (self.folder / "big.jpg").write_bytes(bytes(50_000_000))
        big, small = self.lines(url, "big.jpg", self.paint("small.png"))
        # If the connection ends before the answer is read, the client can report only that.
        self.assertIn(big["code"], ("image_too_large", "connection_lost"))
        self.assertEqual(small["status"], "Success")

    def test_the_messages_come_in_the_language_that_is_asked_for(self) -> None:
        url = self.serve(FakeRunner())
        (self.folder / "text.jpg").write_text("meow")
        for language, words in (("en", "not a picture"), ("pt", "não é uma imagem")):
            with self.subTest(language):
                self.assertIn(words, self.lines(url, "text.jpg", "--language", language)[0]["msg"])

    def test_where_nothing_can_be_done_one_line_says_so_and_the_status_is_2(self) -> None:
        photo = self.paint("cat.png")
        alive = self.serve(FakeRunner())
        without_model = FakeRunner()
        without_model.answer = errors.ModelUnavailable()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
        another = f"http://127.0.0.1:{self.enterContext(answering_with(AnotherProgram))}"
        for name, url, argument, word in (
            ("no such file", alive, "missing.jpg", "missing.jpg"),
            ("no match", alive, "*.tiff", "nothing to do"),
            ("no service", closed, photo, "python run.py serve"),
            ("no address", "localhost:7998", photo, "--url"),
            ("another program", another, photo, "not this service"),
            ("no model", self.serve(without_model), photo, "model is not available"),
        ):
            with self.subTest(name):
                run = self.run_it(url, argument)
                self.assertEqual((run.returncode, run.stdout), (2, ""))
                self.assertRegex(run.stderr, r"\Aclassify: [^\n]+\n\Z")
                self.assertIn(word, run.stderr)

    @unittest.skipUnless(hasattr(os, "openpty"), "only there can a terminal be made")
    def test_a_terminal_gets_a_progress_bar_and_the_answers_stay_clean(self) -> None:
        url = self.serve(FakeRunner())
        import termios  # Windows has no termios

        ours, theirs = os.openpty()
        # A new terminal has 0 columns, too few for the bar.
        termios.tcsetwinsize(theirs, (24, 80))
        with open(ours, "rb", buffering=0) as terminal:
            run = self.run_it(url, self.paint("1.png"), self.paint("2.png"), "--json", stderr=theirs)
            os.close(theirs)
            self.assertIn(b"2/2", terminal.read(100_000))
        self.assertEqual([json.loads(line)["status"] for line in run.stdout.splitlines()], ["Success"] * 2)


if __name__ == "__main__":
    unittest.main()
