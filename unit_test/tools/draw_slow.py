"""Tests the drawing of the course's diagrams. It needs npm, the network for the first time, and a browser."""

import re
import tempfile
import unittest
from pathlib import Path

from tools.course import draw


class DrawTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        drawing = draw.drawing_page()
        try:
            cls.page = cls.enterClassContext(drawing)
        except draw.DrawError as exc:
            raise unittest.SkipTest(f"the diagrams of the course are not drawn: {exc}") from exc

    def draw(self, text: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "name.mmd"
            path.write_text(text, encoding="utf-8")
            return draw.drawn(self.page, path)

    def test_two_drawings_of_a_text_are_the_same_and_have_its_words(self) -> None:
        for path in draw.texts(draw.PICTURES):
            with self.subTest(path.stem):
                drawn = draw.drawn(self.page, path)
                self.assertEqual(drawn, draw.drawn(self.page, path))
                # Widths depend on the fonts of a machine, words do not.
                picture = path.with_suffix(".svg").read_text(encoding="utf-8")
                self.assertEqual(self.words(drawn), self.words(picture))

    def words(self, picture: str) -> list[str]:
        return re.findall(r">([^<>\n]+)<", picture)

    def test_a_text_with_an_error_is_named(self) -> None:
        with self.assertRaisesRegex(draw.DrawError, "name.mmd"):
            self.draw("flowchart LR\n    a --> [")

    def test_a_picture_that_does_not_say_what_it_shows_is_refused(self) -> None:
        with self.assertRaisesRegex(draw.DrawError, "accTitle"):
            self.draw("flowchart LR\n    a --> b")

    def test_a_picture_that_is_too_wide_to_be_read_is_refused(self) -> None:
        chain = " --> ".join(f"n{number}" for number in range(12))
        with self.assertRaisesRegex(draw.DrawError, "wide"):
            self.draw(f"flowchart LR\n    accTitle: A\n    accDescr: B\n    {chain}")


if __name__ == "__main__":
    unittest.main()
