"""The code blocks of the course: one set per chapter, docs/course/blocks/NN.yaml, for both languages.

A chapter names a block in a comment, `<!-- block: NAME -->`. The fenced code below it is written by a program.
docs/development.md describes the kinds of blocks.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools.service import PROJECT

COURSE = PROJECT / "docs" / "course"
LANGUAGES = ("en", "pt")
KINDS = ("run", "python", "output", "excerpt", "replace", "file", "stop")
MARKER = re.compile(r"<!-- block: ([\w-]+) -->")
# The keys that belong to one kind, and those that a block of this kind needs.
_OWN_KEYS = {
    "run": {"terminal", "ready", "fails"},
    "python": {"terminal", "fails"},
    "output": {"exact"},
    "excerpt": {"symbol", "from", "to"},
    "replace": {"symbol", "from", "to", "with"},
    "file": {"content"},
}
_NEEDED_KEYS = {"replace": {"with"}, "file": {"content"}}
_SHARED_KEYS = {"on", "hidden", "untried", "language"}
_SUFFIXES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".js": "javascript", ".conf": "text"}


class CourseError(Exception):
    """Something in the course does not fit; the message says what and where."""


class _Loader(yaml.BaseLoader):
    """Reads every value as text (YAML takes the key `on` for a boolean), and refuses a key that occurs twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


class Block(BaseModel):
    """A block: one of the first seven keys says what kind it is; the others belong to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Commands for a terminal, one per line.
    run: str | None = None
    # Code for `python`, started in the project's folder.
    python: str | None = None
    # What the block before it prints.
    output: str | None = None
    # A part of this file.
    excerpt: str | None = None
    # The reader replaces a part of this file by `with`: a function, class or method, or the lines `from` to `to`.
    replace: str | None = None
    # The reader creates this file with `content`.
    file: str | None = None
    # The reader presses Ctrl-C in this terminal.
    stop: str | None = None

    symbol: str | None = None
    first: str | None = Field(None, alias="from")
    last: str | None = Field(None, alias="to")
    replacement: str | None = Field(None, alias="with")
    content: str | None = None
    terminal: str = "main"
    # The command goes on; the reader waits until this address answers.
    ready: str | None = None
    on: Literal["posix", "windows"] | None = None
    fails: bool = False
    # Numbers too must be equal.
    exact: bool = False
    # Done, but not written into the chapter.
    hidden: bool = False
    # Why it is written into the chapter, but not done by a test.
    untried: str | None = None
    language: str | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def code(self) -> str:
        """Return the block's text without a newline at its end; raises CourseError."""
        if self.kind == "excerpt":
            return self._excerpt().rstrip("\n")
        if self.kind == "replace" and self.symbol:
            # A method is indented as in its class, so that the reader can paste it. YAML takes this indentation away.
            indent = "    " * self.symbol.count(".")
            return textwrap.indent(textwrap.dedent(self.replacement or ""), indent).rstrip("\n")
        text = {"replace": self.replacement, "file": self.content, "stop": ""}.get(self.kind, getattr(self, self.kind))
        return (text or "").rstrip("\n")

    def fence(self) -> list[str]:
        """Return the lines of the fenced code; none for a block that is not written. Raises CourseError."""
        if self.hidden or self.kind == "stop":
            return []
        code = self.code()
        ticks = "````" if "```" in code else "```"
        return [ticks + (self.language or self._language()), *code.split("\n"), ticks]

    def _language(self) -> str:
        path = Path(self.excerpt or self.replace or self.file or "")
        if path.name.startswith("Dockerfile"):
            return "dockerfile"
        command = "powershell" if self.on == "windows" else "sh"
        return {"run": command, "python": "python", "output": "text"}.get(self.kind, _SUFFIXES.get(path.suffix, "text"))

    def _excerpt(self) -> str:
        path = PROJECT / (self.excerpt or "")
        if not path.is_file():
            raise CourseError(f"{self.excerpt}: there is no such file")
        source = path.read_text(encoding="utf-8")
        start, end = self.part(source)
        return "\n".join(source.split("\n")[start:end])

    def part(self, source: str) -> tuple[int, int]:
        """Return where the part of the file is, as indexes of its first line and of the line after it.

        Raises CourseError if it is not there.
        """
        place, lines = str(self.excerpt or self.replace), source.split("\n")
        if self.symbol:
            return span(source, self.symbol, place)
        start = _line_with(lines, self.first, 0, place) if self.first else 0
        return start, _line_with(lines, self.last, start, place) + 1 if self.last else len(lines)


def span(source: str, symbol: str, place: str) -> tuple[int, int]:
    """Return where a function, class or method is, as indexes of its first line and of the line after it.

    Raises CourseError if there is not exactly one of that name.
    """
    body: list[ast.stmt] = ast.parse(source).body
    found: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None = None
    for name in symbol.split("."):
        matches = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
        ]
        if len(matches) != 1:
            raise CourseError(f"{place}: {len(matches)} functions or classes are called {symbol}")
        (found,) = matches
        body = found.body
    assert found is not None and found.end_lineno is not None
    return min([found.lineno, *(one.lineno for one in found.decorator_list)]) - 1, found.end_lineno


def _line_with(lines: list[str], text: str, start: int, place: str) -> int:
    found = [number for number in range(start, len(lines)) if text in lines[number]]
    if not found:
        raise CourseError(f"{place}: no line contains {text!r}")
    return found[0]


def replaced(source: str, block: Block) -> str:
    """Return the source with the block's part replaced; raises CourseError."""
    start, end = block.part(source)
    lines = source.split("\n")
    lines[start:end] = block.code().split("\n")
    try:
        ast.parse("\n".join(lines))
    except SyntaxError as exc:
        raise CourseError(f"{block.replace}: {block.symbol or block.first} does not fit in its place: {exc}") from exc
    return "\n".join(lines)


def read_blocks(number: int, folder: Path = COURSE) -> dict[str, Block]:
    """Return the blocks of a chapter by name; raises CourseError that names file, block and key."""
    path = folder / "blocks" / f"{number:02}.yaml"
    if not path.is_file():
        return {}
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except yaml.YAMLError as exc:
        raise CourseError(f"{path.name}: {exc}") from exc
    if not isinstance(document, dict):
        raise CourseError(f"{path.name}: it must be a mapping from names to blocks")
    return {name: _block(keys, f"{path.name}: {name}") for name, keys in document.items()}


def _block(keys: object, place: str) -> Block:
    try:
        block = Block.model_validate(keys)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise CourseError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
    assert isinstance(keys, dict)
    if len(keys.keys() & set(KINDS)) != 1:
        raise CourseError(f"{place}: it needs exactly one of {', '.join(KINDS)}")
    if foreign := keys.keys() - _OWN_KEYS.get(block.kind, set()) - _SHARED_KEYS - {block.kind}:
        raise CourseError(f"{place}: {block.kind} has no {', '.join(sorted(foreign))}")
    if missing := _NEEDED_KEYS.get(block.kind, set()) - keys.keys():
        raise CourseError(f"{place}: {block.kind} needs {', '.join(sorted(missing))}")
    if block.kind == "replace" and not keys.keys() & {"symbol", "from"}:
        raise CourseError(f"{place}: replace needs symbol, or from and to")
    if block.kind == "replace" and ("from" in keys) != ("to" in keys):
        raise CourseError(f"{place}: from and to belong together")
    if "symbol" in keys and keys.keys() & {"from", "to"}:
        raise CourseError(f"{place}: symbol, or from and to, but not both")
    if block.ready and "\n" in block.code():
        raise CourseError(f"{place}: ready needs one command")
    return block


def chapters(language: str, folder: Path = COURSE) -> dict[int, Path]:
    """Return the files of the chapters of a language by number."""
    return {int(path.name[:2]): path for path in sorted((folder / language).glob("[0-9][0-9]_*.md"))}


def names_in(text: str) -> list[str]:
    """Return the names of the blocks that a chapter contains, in order."""
    return [match[1] for line in text.split("\n") if (match := MARKER.fullmatch(line))]


def with_blocks(text: str, blocks: dict[str, Block], place: str) -> str:
    """Return the text of a chapter with the present code below each marker; raises CourseError."""
    return "\n".join(_written(text.split("\n"), blocks, place))


def _written(lines: list[str], blocks: dict[str, Block], place: str) -> Iterator[str]:
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        yield line
        match = MARKER.fullmatch(line)
        if match is None:
            continue
        if match[1] not in blocks:
            raise CourseError(f"{place}: there is no block {match[1]}")
        try:
            yield from blocks[match[1]].fence()
        except CourseError as exc:
            raise CourseError(f"{place}: {match[1]}: {exc}") from exc
        number = _after_fence(lines, number, place)


def _after_fence(lines: list[str], number: int, place: str) -> int:
    """Return the index after the fenced code that begins at `number`; `number` if none begins there."""
    opening = re.match("`{3,}", lines[number]) if number < len(lines) else None
    if opening is None:
        return number
    for end in range(number + 1, len(lines)):
        if lines[end] == opening[0]:
            return end + 1
    raise CourseError(f"{place}: the code in line {number + 1} has no end")
