"""A terminal with a shell in it, as a reader of the course uses it."""

import http.client
import io
import re
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

import pexpect

from tools.course.blocks import CourseError

COMMAND_SECONDS = 1200
READY_SECONDS = 300
STOP_SECONDS = 30
TAIL_LENGTH = 3000
# The exit status of the last command is part of the prompt.
_PROMPT = r"\[course (\d+)\] "
# Where Compose is installed as a program of its own only, `docker compose` means that.
_COMPOSE = (
    "docker compose version >/dev/null 2>&1 || ! command -v docker-compose >/dev/null || "
    'docker() { if [ "$1" = compose ]; then shift; command docker-compose "$@"; else command docker "$@"; fi; }'
)

# Runs code as Python's prompt does: it shows the value of an expression, and a traceback begins in the reader's code.
_PYTHON = """
import ast, sys, traceback
sys.excepthook = lambda kind, error, trace: traceback.print_exception(kind, error, trace.tb_next)
names = {{"__name__": "__main__"}}
for statement in ast.parse({code!r}).body:
    exec(compile(ast.Interactive([statement]), "<stdin>", "single"), names)
"""


class Terminal:
    """Runs commands in one bash, one after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        prompt = {"PS1": r"[course $?] ", "PS2": "", "VIRTUAL_ENV_DISABLE_PROMPT": "1", "TERM": "dumb", "NO_COLOR": "1"}
        # These commands do not belong into the history of whoever runs this.
        prompt["HISTFILE"] = ""
        self._shell = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "--noediting"],
            cwd=folder,
            env={**environment, **prompt},
            encoding="utf-8",
            codec_errors="replace",
            echo=False,
            dimensions=(50, 400),
            timeout=COMMAND_SECONDS,
        )
        self._shell.expect(_PROMPT)
        self._server: threading.Thread | None = None
        self._seen = io.StringIO()
        self._ended: tuple[int, str] = (0, "")
        self.type(_COMPOSE)

    def type(self, commands: str) -> tuple[int, str]:
        """Run each line; return the exit status of the first that fails, else 0, and all that they print."""
        self._refuse_if_busy()
        printed = ""
        for command in commands.rstrip("\n").split("\n"):
            self._shell.sendline(command)
            status, text = self._until_prompt()
            printed += text
            if status:
                return status, printed
        return 0, printed

    def python(self, code: str) -> tuple[int, str]:
        """Run code with the terminal's `python`; return its exit status and what it prints."""
        with NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as file:
            file.write(_PYTHON.format(code=code))
            file.flush()
            return self.type(f"python - < {file.name}")

    def start(self, command: str, ready: str) -> None:
        """Start a command that goes on, and wait until the address answers; raises CourseError."""
        self._refuse_if_busy()
        if _answers(ready):
            raise CourseError(f"{ready} is answered before the command has started")
        self._shell.logfile_read = self._seen = io.StringIO()
        self._shell.sendline(command)
        self._server = threading.Thread(target=self._watch, daemon=True)
        self._server.start()
        end = time.monotonic() + READY_SECONDS
        while not _answers(ready):
            if not self._server.is_alive():
                raise CourseError(f"it ended with status {self._ended[0]}:\n{self._ended[1]}")
            if time.monotonic() > end:
                raise CourseError(f"{ready} does not answer after {READY_SECONDS} s")
            time.sleep(0.2)

    def stop(self) -> str:
        """Press Ctrl-C and wait until the command has ended; return what it printed. Raises CourseError."""
        if self._server is None:
            raise CourseError("nothing runs in this terminal")
        if not self._server.is_alive():
            raise CourseError(f"it had ended already:\n{self._ended[1]}")
        self._shell.sendintr()
        self._server.join(STOP_SECONDS)
        if self._server.is_alive():
            raise CourseError(f"Ctrl-C did not end it within {STOP_SECONDS} s")
        self._server = None
        return self._ended[1]

    def close(self) -> None:
        """End the shell and what runs in it."""
        if self._server is not None and self._server.is_alive():
            self._shell.sendintr()
            self._server.join(STOP_SECONDS)
        self._shell.close(force=True)

    def tail(self) -> str:
        """Return the end of what the command that still runs here has printed; "" if none runs."""
        if self._server is None or not self._server.is_alive():
            return ""
        return _shown(self._seen.getvalue())[-TAIL_LENGTH:]

    def _refuse_if_busy(self) -> None:
        if self._server is not None:
            # It may have been ended from elsewhere a moment ago.
            self._server.join(STOP_SECONDS)
            if self._server.is_alive():
                raise CourseError("a command still runs in this terminal")
            self._server = None

    def _watch(self) -> None:
        # A program whose output nobody reads stops at some point.
        try:
            self._shell.expect(_PROMPT, timeout=None)
            self._ended = int(self._shell.match[1]), _shown(self._shell.before)
        except pexpect.EOF:
            self._ended = 1, _shown(self._shell.before)

    def _until_prompt(self) -> tuple[int, str]:
        try:
            self._shell.expect(_PROMPT)
        except pexpect.TIMEOUT as exc:
            raise CourseError(f"it did not end within {COMMAND_SECONDS} s:\n{_shown(self._shell.before)}") from exc
        except pexpect.EOF as exc:
            raise CourseError(f"it closed the terminal:\n{_shown(self._shell.before)}") from exc
        return int(self._shell.match[1]), _shown(self._shell.before)


def _shown(printed: str) -> str:
    """Return what is to be seen at the end, without what was overwritten, and without colours."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _answers(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False
