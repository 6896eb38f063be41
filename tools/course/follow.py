"""Does what the chapters of the course say, by copy and paste, in real terminals.

    python -m tools.course.follow pt                     all but chapter 9, from an empty folder
    python -m tools.course.follow pt --chapters 5 --here a part of it, in this folder and its .venv

Chapter 9 deploys to the cluster that kubectl reaches. Ask for it: --chapters 9 --here.

From an empty folder it clones the present state of this folder and installs all packages. It needs the ports 7998,
7999, 8500 and 8501. With --here it changes files, as the chapters say. It stops at the first block that does not do
what the course says. Linux and macOS only.
"""

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from run import compose_command
from tools.course.blocks import COURSE, LANGUAGES, Block, CourseError, chapters, names_in, read_blocks, replaced
from tools.course.terminal import Terminal
from tools.service import PROJECT

FOLDER = "cat-dog"
PORTS = (7998, 7999, 8500, 8501)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("--chapters", type=_numbers, default="1-8,10", help="e.g. 5, or 3-6,8; default: 1-8,10")
    parser.add_argument("--here", action="store_true", help="in this folder, without chapter 1; changes files")
    options = parser.parse_args()
    if not options.here and options.chapters[0] != 1:
        parser.error("chapter 1 comes first, in an empty folder; --here does others alone")
    try:
        refuse_taken_ports()
        with contextlib.ExitStack() as stack:
            follower = Follower(options.language)
            if options.here:
                follower.folder = PROJECT
            else:
                follower.begin_in(Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))))
            for number in options.chapters:
                if options.here and number == 1:
                    print("##  SKIPPED: chapter 1 makes the environment that --here has already  ##")
                elif reason := missing_for(number):
                    print(f"##  SKIPPED: chapter {number} needs {reason}  ##", flush=True)
                else:
                    follower.do(number)
    except CourseError as exc:
        print(f"follow: {exc}", file=sys.stderr)
        return 1
    return 0


def _numbers(text: str) -> list[int]:
    ends = [part.partition("-") for part in text.split(",")]
    numbers = [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]
    if numbers != sorted(set(numbers)) or not numbers:
        raise argparse.ArgumentTypeError("not in order")
    return numbers


def refuse_taken_ports() -> None:
    """Raise CourseError if one of the course's ports is used."""
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise CourseError(f"port {port} is used by another program; stop it first: the course needs {PORTS}")


def missing_for(number: int) -> str | None:
    """Return what a chapter needs and this machine lacks; None if it has all."""
    if number == 2 and compose_command() is None:
        return "a Docker engine with Compose"
    if number == 9:
        kubectl = shutil.which("kubectl")
        nodes = [kubectl or "", "get", "nodes", "--request-timeout=10s"]
        if kubectl is None or subprocess.run(nodes, capture_output=True, check=False).returncode:
            return "a cluster that kubectl reaches"
    return None


class Follower:
    """A reader of the course who copies each block and checks each output."""

    def __init__(self, language: str, course: Path = COURSE) -> None:
        self._language, self._course = language, course
        self._address = ""
        # Where a terminal begins: the project's folder, or in chapter 1 the folder that it is cloned into.
        self.folder = PROJECT

    def begin_in(self, folder: Path) -> None:
        """Begin in an empty folder, with a repository of the present state of this project to clone."""
        repository, self.folder = folder / "repository", folder / "work"
        self.folder.mkdir()
        listed = _git(PROJECT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            if (PROJECT / name).is_file():
                (repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, repository / name)
        _git(repository, "init", "--quiet")
        _git(repository, "add", "--all", "--force")
        _git(
            repository, "-c", "user.name=course", "-c", "user.email=course@localhost", "commit", "--quiet", "-m", "All"
        )
        self._address = str(repository)

    def do(self, number: int) -> None:
        """Do all that one chapter says; raises CourseError at the first block that fails."""
        path, blocks = chapters(self._language, self._course).get(number), read_blocks(number, self._course)
        if path is None:
            raise CourseError(f"there is no chapter {number}")
        print(path.name, flush=True)
        begin = time.monotonic()
        with _terminals(self) as terminals:
            # None: nobody knows, since the block is not tried.
            printed: str | None = ""
            for name in names_in(path.read_text(encoding="utf-8")):
                start, block = time.monotonic(), blocks.get(name)
                if block is None:
                    raise CourseError(f"{path.name}: there is no block {name}")
                if (block.on or "posix") != "posix":
                    continue
                if block.untried or (block.kind == "output" and printed is None):
                    print(f"##  SKIPPED: {name}: {block.untried or 'the output of a skipped block'}  ##", flush=True)
                    printed = None if block.kind in ("run", "python") else printed
                    continue
                try:
                    printed = self._do(block, terminals, printed or "")
                except CourseError as exc:
                    tails = {key: terminal.tail() for key, terminal in terminals.items()}
                    logs = "".join(f"\nThe terminal {key} shows:\n{tail}" for key, tail in tails.items() if tail)
                    raise CourseError(f"{path.name}: block {name}:\n{block.code()}\n{exc}{logs}") from exc
                print(f"    {name} ({block.kind}): {time.monotonic() - start:.1f} s", flush=True)
        if number == 1 and self._address:
            self.folder /= FOLDER
        print(f"  {time.monotonic() - begin:.0f} s", flush=True)

    def open_terminal(self) -> Terminal:
        """Return a new terminal, with the environment that a user has who has just logged in."""
        # In chapter 1 the editor's terminals begin in the folder that was cloned.
        cloned = self.folder / FOLDER
        return Terminal(cloned if cloned.is_dir() else self.folder, clean_environment(os.environ))

    def _do(self, block: Block, terminals: "_Terminals", printed: str) -> str:
        """Do what a block says; return what it prints, or `printed` if it prints nothing itself."""
        code = block.code()
        if block.kind == "run" and block.ready:
            terminals[block.terminal].start(code, block.ready)
            printed = ""
        elif block.kind in ("run", "python"):
            terminal = terminals[block.terminal]
            if block.kind == "run":
                status, printed = terminal.type(code.replace("ADDRESS", self._address))
            else:
                status, printed = terminal.python(code)
            if bool(status) != block.fails:
                raise CourseError(f"it ended with status {status} and printed:\n{printed}")
        elif block.kind == "output":
            compare(code, printed, block.exact)
        elif block.kind == "stop":
            printed = terminals[block.stop or ""].stop()
        elif block.kind == "replace":
            path = self.folder / (block.replace or "")
            path.write_text(replaced(path.read_text(encoding="utf-8"), block), encoding="utf-8")
        elif block.kind == "file":
            path = self.folder / (block.file or "")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code + "\n", encoding="utf-8")
        return printed


class _Terminals(dict[str, Terminal]):
    """The open terminals by name; a new name opens one."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __missing__(self, name: str) -> Terminal:
        self[name] = self._follower.open_terminal()
        return self[name]


@contextlib.contextmanager
def _terminals(follower: Follower) -> Iterator[_Terminals]:
    terminals = _Terminals(follower)
    try:
        yield terminals
    finally:
        for terminal in reversed(terminals.values()):
            terminal.close()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what an active virtual environment or a test run adds to it."""
    # Outside a virtual environment, sys.prefix is the folder of the system's programs.
    active = [Path(sys.prefix)] if sys.prefix != sys.base_prefix else []
    active += [Path(environment["VIRTUAL_ENV"])] if environment.get("VIRTUAL_ENV") else []
    folders = environment.get("PATH", "").split(os.pathsep)
    path = [folder for folder in folders if Path(folder).parent not in active]
    left_out = ("VIRTUAL_ENV", "PYTHON", "SERVICE_", "MODEL_NAME", "TEST_")
    kept = {key: value for key, value in environment.items() if not key.startswith(left_out)}
    return kept | {"PATH": os.pathsep.join(path)}


def compare(expected: str, printed: str, exact: bool) -> None:
    """Raise CourseError if a block's output is not what the course says.

    A line `...` stands for any lines. Unless `exact`, any number may differ from another one, and so may the blanks.
    """
    parts = []
    for line in expected.strip("\n").split("\n"):
        text = _simple(line, exact)
        parts.append(r"(?:.*\n)*?" if text == "..." else re.escape(text) + r"\n")
    got = "\n".join(_simple(line, exact) for line in printed.strip("\n").split("\n")) + "\n"
    if not re.fullmatch("".join(parts), got):
        raise CourseError(f"it printed:\n{printed}")


def _simple(line: str, exact: bool) -> str:
    if exact:
        return line.rstrip()
    return re.sub(r"\s+", " ", re.sub(r"\d+([.,]\d+)*(e[+-]?\d+)?", "#", line)).strip()


def _git(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise CourseError(f"git {arguments[0]}: {ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
