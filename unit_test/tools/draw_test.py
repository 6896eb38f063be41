"""Tests the pictures of the course's diagrams, and that an old picture is found. Drawing is tested in draw_slow.py."""

import re
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from tools.course import draw

SVG = "{http://www.w3.org/2000/svg}"
# Nothing else is in a picture: no HTML, no scripts, no style sheets, no links.
ELEMENTS = {"svg", "title", "desc", "marker", "g", "path", "rect", "line", "circle", "polygon", "text", "tspan"}
MOST_BYTES = 30_000


class PicturesTest(unittest.TestCase):
    def test_each_is_small_and_plain_and_says_what_it_shows(self) -> None:
        pictures = sorted(draw.PICTURES.glob("*.svg"))
        self.assertTrue(pictures)
        for path in pictures:
            with self.subTest(path.name):
                content = path.read_text(encoding="utf-8")
                self.assertLess(len(content.encode()), MOST_BYTES)
                root = ElementTree.fromstring(content)
                self.assertLessEqual({element.tag.removeprefix(SVG) for element in root.iter()}, ELEMENTS)
                attributes = {name for element in root.iter() for name in element.attrib}
                self.assertFalse([name for name in attributes if name in ("style", "class") or name.startswith("on")])
                self.assertEqual(set(re.findall(r"url\(#(\w+)\)", content)), set(re.findall(r'\bid="(\w+)"', content)))
                self.assertNotRegex(content.replace('xmlns="http://www.w3.org/2000/svg"', ""), "https?:|url\\([^#]")
                self.assertTrue(root.findtext(f"{SVG}title") and root.findtext(f"{SVG}desc"))

    def test_each_has_both_languages_with_the_same_boxes_and_lines(self) -> None:
        texts = {path.stem: path.read_text(encoding="utf-8") for path in draw.texts(draw.PICTURES)}
        names = {stem.rpartition(".")[0] for stem in texts}
        self.assertEqual(set(texts), {f"{name}.{language}" for name in names for language in ("pt", "en")})
        for name in names:
            with self.subTest(name):
                pt, en = (self.structure(texts[f"{name}.{language}"]) for language in ("pt", "en"))
                self.assertEqual(pt, en)

    def structure(self, text: str) -> list[str]:
        """Return the lines of a diagram without its labels, which depend on the language."""
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("acc")]
        return [re.sub(r'"[^"]*"|(?<=\w): .*|(?<= as ).*', "", line) for line in lines]


class OutdatedTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.pictures = Path(folder.name)
        for suffix in ("mmd", "svg"):
            content = (draw.PICTURES / f"request.pt.{suffix}").read_bytes()
            (self.pictures / f"request.pt.{suffix}").write_bytes(content)

    def test_a_picture_of_the_present_text_is_not(self) -> None:
        self.assertEqual(draw.outdated(self.pictures), [])

    def test_a_picture_of_another_text_is(self) -> None:
        text = self.pictures / "request.pt.mmd"
        text.write_text(text.read_text(encoding="utf-8").replace("cliente", "celular"), encoding="utf-8")
        self.assertEqual(draw.outdated(self.pictures), ["request.pt: python -m tools.course.draw request.pt"])

    def test_line_ends_of_windows_are_no_other_text(self) -> None:
        text = self.pictures / "request.pt.mmd"
        text.write_bytes(text.read_bytes().replace(b"\n", b"\r\n"))
        self.assertEqual(draw.outdated(self.pictures), [])

    def test_a_missing_picture_is(self) -> None:
        (self.pictures / "request.pt.svg").unlink()
        self.assertEqual(draw.outdated(self.pictures), ["request.pt: python -m tools.course.draw request.pt"])

    def test_a_picture_without_a_text_is(self) -> None:
        (self.pictures / "request.pt.mmd").unlink()
        self.assertEqual(draw.outdated(self.pictures), ["request.pt.svg: there is no request.pt.mmd"])


if __name__ == "__main__":
    unittest.main()
