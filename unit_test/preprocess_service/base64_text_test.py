"""Base64 with what browsers, forms and programs put around it: taken, or refused for the true reason."""

import base64
import random
import time
import unittest

from preprocess_service.app import errors
from preprocess_service.app.utils import decode_base64

# Its base64 has every letter, some hundred "+" and one "=".
DATA = random.Random(7).randbytes(5000)
PLAIN = base64.b64encode(DATA).decode()
BLANKS = PLAIN.replace("+", " ")
# Without "+", "-" and "_": nothing but the blanks themselves tells what they are.
BARE_DATA = base64.b64decode(PLAIN.translate(str.maketrans("+-_", "AAA")))
BARE = base64.b64encode(BARE_DATA).decode()


def lines(text: str, length: int, separator: str) -> str:
    return separator.join(text[start : start + length] for start in range(0, len(text), length))


class DataUrlTest(unittest.TestCase):
    def test_whatever_stands_before_the_base64_is_skipped(self) -> None:
        for prefix in (
            "data:image/jpeg;name=my cat (1).jpg;base64,",
            "data:image/jpeg;name=my%20cat.jpg;base64,",
            'data:image/jpeg;name="a,b;c.jpg";base64,',
            "data:image%2Fjpeg;base64,",
            "data:image/jpeg;name=gato-é-猫.jpg;base64,",
            f"data:image/jpeg;name={'x' * 5000}.jpg;base64,",
            "data: image/jpeg ; charset=utf-8 ; base64 , ",
            " \r\n\t data:image/jpeg;base64,\n",
            "DATA:IMAGE/JPEG;BASE64,",
            "data:;base64,",
            "data:base64;base64,",
            "data:application/x-thing+json;a=b;base64,",
        ):
            with self.subTest(prefix[:60]):
                self.assertEqual(decode_base64(prefix + PLAIN), DATA)
                self.assertEqual(decode_base64(prefix + lines(PLAIN, 76, "\r\n")), DATA)

    def test_one_that_is_written_as_a_url_is_taken(self) -> None:
        escaped = PLAIN.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
        for text in (escaped, f"data:image/png;base64,{escaped}", lines(PLAIN, 76, "%0D%0A")):
            with self.subTest(text[:30]):
                self.assertEqual(decode_base64(text), DATA)

    def test_one_that_is_not_base64_is_told_so(self) -> None:
        for text in ("data:image/svg+xml,%3Csvg/%3E", "data:image/jpeg;base64", " data:,", "DATA:image/jpeg;" + PLAIN):
            with self.subTest(text[:30]), self.assertRaisesRegex(errors.InvalidBase64, "no ';base64,'"):
                decode_base64(text)


class BlanksTest(unittest.TestCase):
    def test_blanks_in_place_of_plus_are_told_so(self) -> None:
        for length in range(300, 320):
            text = base64.b64encode(DATA[:length]).decode()
            blanks = text.replace("+", " ")
            for name, sent in (
                ("padded", blanks),
                ("data URL", f"data:image/jpeg;base64,{blanks}"),
                ("in lines", lines(blanks, 76, "\n")),
            ):
                with (
                    self.subTest(name, length=length, blanks=text.count("+")),
                    self.assertRaisesRegex(errors.InvalidBase64, "blanks where base64 has '\\+'"),
                ):
                    decode_base64(sent)

    def test_blanks_between_lines_or_around_are_taken(self) -> None:
        for name, text in (
            ("lines", lines(BARE, 76, " ")),
            ("indented lines", lines(BARE, 64, "\n    ")),
            ("short lines", lines(BARE, 4, " ")),
            ("no padding", lines(BARE.rstrip("="), 76, " ")),
            ("one", f"{BARE[:100]} {BARE[100:]}"),
            ("around", f"   {BARE}  "),
        ):
            with self.subTest(name):
                self.assertEqual(decode_base64(text), BARE_DATA)
        for name, text in (
            ("irregular, but with plus", f"{PLAIN[:90]} {PLAIN[90:101]}   {PLAIN[101:]}"),
            ("lines with plus", lines(PLAIN, 76, " ")),
            ("the URL-safe alphabet", lines(PLAIN.replace("+", "-").replace("/", "_"), 75, " ")),
        ):
            with self.subTest(name):
                self.assertEqual(decode_base64(text), DATA)


class QuotesTest(unittest.TestCase):
    def test_quotation_marks_are_told_so(self) -> None:
        for text in (f"b'{PLAIN}'", f'b"{PLAIN}"', f'"{PLAIN}"', f" '{PLAIN}'", f"data:image/jpeg;base64,b'{PLAIN}'"):
            with self.subTest(text[:30]), self.assertRaisesRegex(errors.InvalidBase64, "b'...'.*decode()"):
                decode_base64(text)


class CostTest(unittest.TestCase):
    def test_no_text_takes_long(self) -> None:
        size = 5_000_000
        begin = time.monotonic()
        for text in (" " * size, "data:" + ";" * size, "data:" + "; " * (size // 2), "%2B" * (size // 3), "A " * size):
            with self.subTest(text[:10]), self.assertRaises(errors.InvalidBase64):
                decode_base64(text + "!")
        self.assertLess(time.monotonic() - begin, 30)


if __name__ == "__main__":
    unittest.main()
