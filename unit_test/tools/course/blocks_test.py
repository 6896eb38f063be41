"""Tests how the course's blocks are read, taken from files, and written into chapters, with made-up ones."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tools.course import blocks
from tools.course.blocks import Block, CourseError, names_in, read_blocks, with_blocks

SOURCE = """\
import math


class Runner:
    factor = 2

    @staticmethod
    def double(number):
        return 2 * number

    def area(self):
        return math.pi * self.factor


def last():
    return "last"
"""


class FolderCase(unittest.TestCase):
    """Has a folder with a course, and a folder with a project."""

    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self.course, self.project = folder / "course", folder / "project"
        for one in (self.course / "blocks", self.course / "pt", self.project):
            one.mkdir(parents=True)
        (self.project / "code.py").write_text(SOURCE, encoding="utf-8")
        self.enterContext(mock.patch.object(blocks, "PROJECT", self.project))

    def read(self, text: str) -> dict[str, Block]:
        """Return the blocks of chapter 3 if this is the text of their file."""
        (self.course / "blocks" / "03.yaml").write_text(text, encoding="utf-8")
        return read_blocks(3, self.course)


class ReadTest(FolderCase):
    def test_a_set_is_read(self) -> None:
        read = self.read(
            "go: {run: python go.py, terminal: other, fails: true}\n"
            "activate: {run: go, on: windows}\n"
            "change: {replace: code.py, symbol: last, with: 'def last(): pass'}\n"
            "closing: {stop: other}\n"
        )
        self.assertEqual([block.kind for block in read.values()], ["run", "run", "replace", "stop"])
        self.assertTrue(read["go"].fails)
        # YAML 1.1 takes a bare `on` for true.
        self.assertEqual(read["activate"].on, "windows")
        self.assertEqual(read_blocks(4, self.course), {})

    def test_an_error_names_file_block_and_key(self) -> None:
        for text, named in {
            "go: {run: x, colour: red}": "colour: Extra",
            "go: {run: x, fails: perhaps}": "fails: Input",
            "go: {run: x, on: amiga}": "on: Input",
            "go: {run: x, python: y}": "exactly one of run, python",
            "go: {terminal: main}": "exactly one of run, python",
            "go: {replace: code.py, with: x}": "needs symbol, or from and to",
            "go: {replace: code.py, from: x, with: y}": "belong together",
            "go: {replace: code.py, symbol: last}": "needs with",
            "go: {file: notes.txt}": "needs content",
            "go: {output: x, terminal: main}": "output has no terminal",
            "go: {stop: main, ready: 'http://localhost'}": "stop has no ready",
            "go: {excerpt: code.py, symbol: last, from: x}": "not both",
            "go: {run: \"one\\ntwo\", ready: 'http://localhost'}": "one command",
            "go: run": "valid dictionary",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(CourseError, rf"03\.yaml: go: .*{named}"):
                self.read(text)
        for text, named in {
            "go: {run: x}\ngo: {run: y}": "go",
            "go: {run: x, run: y}": "run",
            "- run": "mapping",
            "go: {": "",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(CourseError, rf"(?s)03\.yaml: .*{named}"):
                self.read(text)


class ExcerptTest(FolderCase):
    def test_a_part_of_a_file_is_taken_as_it_is(self) -> None:
        for keys, expected in {
            "": SOURCE.rstrip("\n"),
            ", symbol: last": 'def last():\n    return "last"',
            ", symbol: Runner.double": "    @staticmethod\n    def double(number):\n        return 2 * number",
            ", from: 'def area', to: return": "    def area(self):\n        return math.pi * self.factor",
            ", from: 'def last'": 'def last():\n    return "last"',
            ", to: import": "import math",
        }.items():
            with self.subTest(keys):
                self.assertEqual(self.read(f"part: {{excerpt: code.py{keys}}}")["part"].code(), expected)

    def test_what_is_not_in_the_file_is_named(self) -> None:
        for keys, named in {
            "excerpt: code.py, symbol: first": "code.py: 0 functions or classes are called first",
            "excerpt: code.py, symbol: Runner.last": "code.py: 0 functions or classes are called Runner.last",
            "excerpt: code.py, from: 'class Walker'": "code.py: no line contains 'class Walker'",
            # `to` counts from `from` on.
            "excerpt: code.py, from: 'def last', to: import": "code.py: no line contains 'import'",
            "excerpt: none.py": "none.py: there is no such file",
        }.items():
            block = self.read(f"part: {{{keys}}}")["part"]
            with self.subTest(keys), self.assertRaisesRegex(CourseError, named):
                block.code()


class WriteTest(FolderCase):
    def test_code_is_written_below_its_marker_in_place_of_the_old_one(self) -> None:
        read = self.read(
            "go: {run: python go.py}\nwindows: {run: go, on: windows}\nquiet: {run: x, hidden: true}\n"
            "end: {stop: main}\npart: {excerpt: code.py, symbol: last}\n"
            'notes: {file: a.md, content: "```\\nx\\n```\\n"}\n'
            "shown: {output: 'one'}\nown: {output: '{}', language: json}\n"
        )
        chapter = "\n".join(f"<!-- block: {name} -->\n" for name in read)
        written = (
            "<!-- block: go -->\n```sh\npython go.py\n```\n\n"
            "<!-- block: windows -->\n```powershell\ngo\n```\n\n"
            "<!-- block: quiet -->\n\n"
            "<!-- block: end -->\n\n"
            '<!-- block: part -->\n```python\ndef last():\n    return "last"\n```\n\n'
            "<!-- block: notes -->\n````text\n```\nx\n```\n````\n\n"
            "<!-- block: shown -->\n```text\none\n```\n\n"
            "<!-- block: own -->\n```json\n{}\n```\n"
        )
        self.assertEqual(with_blocks(chapter, read, "3"), written)
        self.assertEqual(with_blocks(written, read, "3"), written)
        self.assertEqual(names_in(written), list(read))
        old = written.replace("python go.py", "python old.py\n\nmore").replace(
            "quiet -->\n", "quiet -->\n```\nx\n```\n"
        )
        self.assertEqual(with_blocks(old, read, "3"), written)

    def test_what_cannot_be_written_is_named(self) -> None:
        read = self.read("go: {run: python go.py}\npart: {excerpt: none.py}\n")
        for chapter, named in {
            "<!-- block: gone -->": "pt/3: there is no block gone",
            "<!-- block: part -->": "pt/3: part: none.py: there is no such file",
            "\n<!-- block: go -->\n```sh\nx": "pt/3: the code in line 3 has no end",
        }.items():
            with self.subTest(chapter), self.assertRaisesRegex(CourseError, named):
                with_blocks(chapter, read, "pt/3")


class ReplaceTest(FolderCase):
    def test_a_function_or_a_method_is_replaced_with_its_decorators(self) -> None:
        read = self.read(
            "function:\n  replace: code.py\n  symbol: last\n  with: |\n    def last():\n        return 1\n"
            "method:\n  replace: code.py\n  symbol: Runner.double\n  with: |\n    def double(self):\n        return 4\n"
        )
        new = blocks.replaced(SOURCE, read["function"])
        self.assertEqual(new, SOURCE.replace('return "last"', "return 1"))
        # As the reader sees and pastes it.
        self.assertEqual(read["method"].fence()[1], "    def double(self):")
        new = blocks.replaced(SOURCE, read["method"])
        self.assertIn("factor = 2\n\n    def double(self):\n        return 4\n\n    def area", new)

    def test_the_lines_from_and_to_are_replaced(self) -> None:
        read = self.read(
            "lines: {replace: code.py, from: 'return math', to: 'return math', with: '        return self.factor'}\n"
            "more: {replace: code.py, from: import, to: class, with: 'class Walker:'}\n"
        )
        new = blocks.replaced(SOURCE, read["lines"])
        self.assertEqual(new, SOURCE.replace("math.pi * self.factor", "self.factor"))
        new = blocks.replaced(SOURCE, read["more"])
        self.assertEqual(new, SOURCE.replace("import math\n\n\nclass Runner:", "class Walker:"))

    def test_what_does_not_fit_is_named(self) -> None:
        for keys, named in {
            "symbol: last, with: 'def last(:'": "code.py: last does not fit in its place",
            "from: def area, to: def area, with: 'def area(:'": "code.py: def area does not fit in its place",
            "from: import, to: nowhere, with: x": "code.py: no line contains 'nowhere'",
            "symbol: none, with: x": "code.py: 0 functions or classes are called none",
        }.items():
            block = self.read(f"change: {{replace: code.py, {keys}}}")["change"]
            with self.subTest(keys), self.assertRaisesRegex(CourseError, named):
                blocks.replaced(SOURCE, block)


if __name__ == "__main__":
    unittest.main()
