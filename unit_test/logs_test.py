"""Whatever is logged is one line of JSON."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import unittest
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any
from unittest import mock

import preprocess_service
import processes
from model_server_fixtures import log_lines
from preprocess_service import logs


class FormatTest(unittest.TestCase):
    def line(self, message: str, *arguments: object, **extra: Any) -> Any:
        record = logging.LogRecord("x", logging.WARNING, __file__, 1, message, arguments, extra.pop("exc_info", None))
        record.__dict__ |= extra
        text = logs.JsonFormatter().format(record)
        self.assertNotIn("\n", text)
        self.assertTrue(text.isascii())
        return json.loads(text)

    def test_a_line_has_its_time_its_level_and_its_text(self) -> None:
        line = self.line("%s of %d", "one", 2)
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")
        self.assertEqual(line, {"level": "WARNING", "logger": "x", "message": "one of 2"})

    def test_fields_stand_beside_the_text(self) -> None:
        self.assertEqual(self.line("a", fields={"status": 200})["status"], 200)

    def test_nothing_in_a_text_breaks_the_line(self) -> None:
        for text in ('"}\n{"', "\udcff", "\x1b[2J", "\u2028", "cão"):
            with self.subTest(repr(text)):
                self.assertEqual(self.line("%s", text)["message"], text)

    def test_a_traceback_is_part_of_the_line(self) -> None:
        try:
            raise ZeroDivisionError("inner")
        except ZeroDivisionError:
            self.assertIn("inner", self.line("a", exc_info=sys.exc_info())["exception"])


class Stream(io.StringIO):
    """Keeps what each call to the system would write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def flush(self) -> None:
        if self.getvalue():
            self.written.append(self.getvalue())
            self.seek(0)
            self.truncate()


class JoinedHandlerTest(unittest.TestCase):
    """Of both services: they share no Python, but the way to log."""

    def each(self, test: Callable[[logging.Logger, Stream, float], None]) -> None:
        for module in (logs, log_lines):
            with self.subTest(module.__name__):
                stream = Stream()
                handler = module.JoinedHandler(stream)
                logger = logging.Logger("x")
                logger.addHandler(handler)
                test(logger, stream, module.JOIN_SECONDS)

    def test_lines_that_come_soon_after_each_other_are_written_together(self) -> None:
        def test(logger: logging.Logger, stream: Stream, seconds: float) -> None:
            async def log() -> None:
                for burst in ("ab", "c"):
                    for message in burst:
                        logger.info(message)
                    await asyncio.sleep(2 * seconds)

            asyncio.run(log())
            self.assertEqual(stream.written, ["a\nb\n", "c\n"])

        self.each(test)

    def test_a_warning_is_written_at_once_after_what_came_before_it(self) -> None:
        def test(logger: logging.Logger, stream: Stream, _: float) -> None:
            async def log() -> None:
                logger.info("a")
                self.assertEqual(stream.written, [])
                logger.warning("b")
                self.assertEqual(stream.written, ["a\nb\n"])

            asyncio.run(log())

        self.each(test)

    def test_without_an_event_loop_every_line_is_written_at_once(self) -> None:
        def test(logger: logging.Logger, stream: Stream, _: float) -> None:
            logger.info("a")
            logger.info("b")
            self.assertEqual(stream.written, ["a\n", "b\n"])

        self.each(test)

    def test_a_line_that_cannot_be_made_spoils_no_other(self) -> None:
        def test(logger: logging.Logger, stream: Stream, _: float) -> None:
            async def log() -> None:
                for message in ("a", 1, "c"):
                    logger.info("%s" if isinstance(message, str) else "%s %s", message)
                logger.warning("d")

            with mock.patch.object(logging, "raiseExceptions", False):
                asyncio.run(log())
            self.assertEqual(stream.written, ["a\nc\nd\n"])

        self.each(test)

    def test_a_log_that_cannot_be_written_stops_nothing(self) -> None:
        def test(logger: logging.Logger, stream: Stream, seconds: float) -> None:
            async def log() -> None:
                stream.close()
                logger.info("a")
                await asyncio.sleep(2 * seconds)
                logger.warning("b")

            with mock.patch.object(logging, "raiseExceptions", True), redirect_stderr(io.StringIO()) as told:
                asyncio.run(log())
            self.assertEqual(told.getvalue().count("--- Logging error ---"), 2)

        self.each(test)


class ProcessTest(unittest.TestCase):
    def test_warnings_and_every_library_write_json_too(self) -> None:
        program = (
            "import logging, warnings, logs; logs.log_json(); warnings.warn('old'); "
            "logging.getLogger('uvicorn.error').info('started')"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=preprocess_service.FOLDER, capture_output=True, text=True, check=True
        )
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        self.assertEqual([line["logger"] for line in lines], ["py.warnings", "uvicorn.error"])

    def test_the_last_lines_of_a_process_are_written_at_its_end(self) -> None:
        program = (
            "import asyncio, logging, sys, {0}; {0}.log_json()\n"
            "async def end(): logging.info('a'); sys.exit()\n"
            "asyncio.run(end())"
        )
        for folder, module in ((preprocess_service.FOLDER, "logs"), (processes.MODEL_SERVER.parent, "log_lines")):
            with self.subTest(module):
                command = [sys.executable, "-c", program.format(module)]
                ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
                self.assertEqual(json.loads(ended.stderr)["message"], "a")


if __name__ == "__main__":
    unittest.main()
