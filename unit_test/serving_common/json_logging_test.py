"""Tests that each log record is one line of JSON."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest import mock

from serving_common import json_logging
from unit_test.processes import APP_SERVER


class FormatTest(unittest.TestCase):
    def line(self, message: str, *arguments: object, **extra: Any) -> Any:
        record = logging.LogRecord("x", logging.WARNING, __file__, 1, message, arguments, extra.pop("exc_info", None))
        record.__dict__ |= extra
        text = json_logging.json_formatter().format(record)
        self.assertNotIn("\n", text)
        self.assertTrue(text.isascii())
        return json.loads(text)

    def test_a_line_has_its_time_its_level_and_its_text(self) -> None:
        line = self.line("%s of %d", "one", 2)
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00$")
        self.assertEqual(line, {"level": "WARNING", "logger": "x", "message": "one of 2"})

    def test_fields_stand_beside_the_text(self) -> None:
        self.assertEqual(self.line("a", status=200)["status"], 200)

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
    """Records what each system call would write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def flush(self) -> None:
        if self.getvalue():
            self.written.append(self.getvalue())
            self.seek(0)
            self.truncate()


class BufferedHandlerTest(unittest.TestCase):
    module: Any = json_logging

    def setUp(self) -> None:
        self.stream = Stream()
        self.logger = logging.Logger("x")
        self.logger.addHandler(self.module.BufferedHandler(self.stream))

    async def wait(self) -> None:
        await asyncio.sleep(2 * self.module.FLUSH_SECONDS)

    def test_lines_that_come_soon_after_each_other_are_written_together(self) -> None:
        async def log() -> None:
            for burst in ("ab", "c"):
                for message in burst:
                    self.logger.info(message)
                await self.wait()

        asyncio.run(log())
        self.assertEqual(self.stream.written, ["a\nb\n", "c\n"])

    def test_a_warning_is_written_at_once_after_what_came_before_it(self) -> None:
        async def log() -> None:
            self.logger.info("a")
            self.assertEqual(self.stream.written, [])
            self.logger.warning("b")
            self.assertEqual(self.stream.written, ["a\nb\n"])

        asyncio.run(log())

    def test_without_an_event_loop_every_line_is_written_at_once(self) -> None:
        self.logger.info("a")
        self.logger.info("b")
        self.assertEqual(self.stream.written, ["a\n", "b\n"])

    def test_a_line_that_cannot_be_made_spoils_no_other(self) -> None:
        async def log() -> None:
            self.logger.info("a")
            self.logger.info("%s %s", 1)
            self.logger.info("c")
            self.logger.warning("d")

        with mock.patch.object(logging, "raiseExceptions", False):
            asyncio.run(log())
        self.assertEqual(self.stream.written, ["a\nc\nd\n"])

    def test_a_log_that_cannot_be_written_stops_nothing(self) -> None:
        async def log() -> None:
            self.stream.close()
            self.logger.info("a")
            await self.wait()
            self.logger.warning("b")

        with mock.patch.object(logging, "raiseExceptions", True), redirect_stderr(io.StringIO()) as told:
            asyncio.run(log())
        self.assertEqual(told.getvalue().count("--- Logging error ---"), 2)

    def test_the_last_lines_of_a_process_are_written_at_its_end(self) -> None:
        folder = Path(json_logging.__file__).parents[1]
        program = (
            "import asyncio, logging, sys\n"
            "from serving_common.json_logging import configure_json_logging\n"
            "configure_json_logging()\n"
            "async def end(): logging.info('a'); sys.exit()\n"
            "asyncio.run(end())"
        )
        command = [sys.executable, "-c", program]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(ended.stderr)["message"], "a")


class ProcessTest(unittest.TestCase):
    def test_warnings_and_every_library_write_json_too(self) -> None:
        program = (
            "import logging, warnings; from serving_common import json_logging; json_logging.configure_json_logging(); "
            "warnings.warn('old'); "
            "logging.getLogger('uvicorn.error').info('started')"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=APP_SERVER.parents[2], capture_output=True, text=True, check=True
        )
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        self.assertEqual([line["logger"] for line in lines], ["py.warnings", "uvicorn.error"])


if __name__ == "__main__":
    unittest.main()
