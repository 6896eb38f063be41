"""Whatever is logged is one line of JSON."""

import json
import logging
import subprocess
import sys
import unittest
from typing import Any

from preprocess_service import FOLDER, logs


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


class ProcessTest(unittest.TestCase):
    def test_warnings_and_every_library_write_json_too(self) -> None:
        program = (
            "import logging, warnings, logs; logs.log_json(); warnings.warn('old'); "
            "logging.getLogger('uvicorn.error').info('started')"
        )
        ended = subprocess.run([sys.executable, "-c", program], cwd=FOLDER, capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        self.assertEqual([line["logger"] for line in lines], ["py.warnings", "uvicorn.error"])


if __name__ == "__main__":
    unittest.main()
