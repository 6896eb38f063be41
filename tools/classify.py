"""Asks a running service what is in photos: files, folders with all that is in them, or patterns.

    python -m tools.classify images
    python -m tools.classify cat.jpg "holiday/**/*.heic" --json > answers.jsonl
    python -m tools.classify photos --url http://host:port --clients 8 --language pt

Prints a row for each photo, in the order of the arguments: the file, its label and confidence, or why there is none;
with --json an object a line, the service's own answer and the file. Of folders the files that are named like pictures
are taken, hidden ones left out; a file that is named itself is sent whatever its name.

A service that asks for a key gets the one in the environment variable CATDOG_API_KEY.

Exit status: 0 every photo was answered, 1 some were not, 2 there was nothing to do or no service to ask.
"""

import argparse
import glob
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from tools.sessions import Sessions

_NAMES = "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff avif heic heif hif"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
# The service's key, if it asks for one: no option, for the list of processes shows those to everybody.
KEY_VARIABLE = "CATDOG_API_KEY"
# How often a photo is sent while the service says that it is busy, or breaks the connection.
ATTEMPTS = 3
# Whatever a Retry-After says, nobody at a terminal waits longer for one photo.
LONGEST_WAIT_SECONDS = 10.0
# To connect, and then for each part of the answer: the service itself gives up after 10 s.
TIMEOUT_SECONDS = (5.0, 60.0)


class NothingToDo(Exception):
    """None of the arguments means a photo."""


class ServiceAway(Exception):
    """No photo can be answered: nothing listens there, it is another program, or it has no model."""


@dataclass(frozen=True)
class Answer:
    """What is said of one photo: the body of the service's answer, of the same form where the file is at fault."""

    file: str
    body: dict[str, Any]

    @property
    def good(self) -> bool:
        """Whether there is a label."""
        return bool(self.body["status"] == "Success")

    def row(self, width: int) -> str:
        """A line of the table, the file's name in `width` columns."""
        if not self.good:
            return f"{self.file:{width}}  {'-':5}  {'-':>8}  {self.body['msg']}"
        doubt = "  probably neither" if self.body.get("in_domain") is False else ""
        return f"{self.file:{width}}  {self.body['pet_type']:5}  {self.body['model_conf']:6.2f} %{doubt}"

    def line(self) -> str:
        """A line of JSON."""
        return json.dumps({"file": self.file} | self.body)


def failed(code: str, msg: str) -> dict[str, Any]:
    """A body as the service would answer it, for what never reached the service."""
    return {"status": "Failed", "msg": msg, "code": code}


def unreadable(path: Path, exc: OSError) -> str:
    """Why there is nothing to send, in the same words on every system."""
    if path.is_dir():
        return "There are no photos in this folder."
    return f"The file can't be read: {exc.strerror or exc}." if path.exists() else "There is no such file."


class Client:
    """Sends photos to `POST /predict` of the service at `url`; callable from several threads at once."""

    def __init__(self, url: str, language: str, key: str = "") -> None:
        self._url = url.rstrip("/")
        # Octet-stream: what a photo is its bytes tell, better than its name does.
        self._headers = {"Content-Type": "application/octet-stream", "Accept-Language": language}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._sessions = Sessions()

    def __call__(self, path: Path) -> Answer:
        """The answer to one photo; raises ServiceAway."""
        try:
            return Answer(str(path), self._ask(path))
        except OSError as exc:
            return Answer(str(path), failed("file_unreadable", unreadable(path, exc)))

    def _ask(self, path: Path) -> dict[str, Any]:
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                response = self._post(path)
            except requests.ConnectionError as exc:
                self.check_alive()
                if last:
                    # What a too large body meets where the refusal is overtaken by the end of the connection.
                    return failed("connection_lost", f"The service broke the connection: {exc}. Is the file too large?")
                continue
            except requests.RequestException as exc:
                # Its own kind of OSError, but it is not the file that is at fault.
                return failed("no_answer", f"There was no answer: {exc}.")
            if response.status_code != 503 or last:
                return self._body(response)
            time.sleep(wait_seconds(response))
        raise AssertionError("the last attempt returns")

    def _post(self, path: Path) -> requests.Response:
        # Opened anew for each attempt, and streamed: it may be a film of gigabytes, which is refused by its length.
        with path.open("rb") as photo:
            return self._sessions.mine().post(
                f"{self._url}/predict", data=photo, headers=self._headers, timeout=TIMEOUT_SECONDS
            )

    def _body(self, response: requests.Response) -> dict[str, Any]:
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        words = "pet_type" if response.status_code == 200 else "msg"
        if not isinstance(body, dict) or words not in body or response.status_code in (404, 405):
            raise ServiceAway(f"what answers at {self._url} is not this service (status {response.status_code})")
        if body.get("code") == "unauthorized":
            raise ServiceAway(f"{self._url} asks for a key, and {KEY_VARIABLE} holds none that it knows")
        if body.get("code") == "model_unavailable":
            raise ServiceAway(f"{self._url}: {body['msg']}")
        return body

    def check_alive(self) -> None:
        """Whether anything listens there at all; raises ServiceAway."""
        try:
            self._sessions.mine().get(f"{self._url}/livez", timeout=TIMEOUT_SECONDS)
        except ValueError as exc:
            raise ServiceAway(f"--url {self._url}: {exc}") from exc
        except requests.RequestException as exc:
            raise ServiceAway(f"no service at {self._url}: start it with `python run.py serve`, or give --url") from exc


def wait_seconds(response: requests.Response) -> float:
    """What Retry-After asks for; a second where it is missing, or a date."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT_SECONDS) if asked.isdecimal() else 1.0


def find(arguments: Iterable[str]) -> list[Path]:
    """The files that the arguments mean, in their order, each once; what means none stays, to be reported."""
    return list(dict.fromkeys(path for argument in arguments for path in expand(argument)))


def expand(argument: str) -> list[Path]:
    """The photos of one argument; patterns come as such from Windows' shells, which leave them to the program."""
    path = Path(argument)
    matches = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
    return [photo for match in matches for photo in inside(match)] or [path]


def inside(path: Path) -> list[Path]:
    """All photos of a folder, sorted; a file itself."""
    return [photo for photo in sorted(path.rglob("*")) if is_photo(photo)] if path.is_dir() else [path]


def is_photo(path: Path) -> bool:
    """Whether a file in a folder is meant: named like a picture, and not hidden as `._cat.jpg` is, a Mac's notes."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def answers(paths: Sequence[Path], client: Client, clients: int) -> Iterator[Answer]:
    """The answers in the order of `paths`, `clients` photos in flight; with a progress bar, on a terminal only."""
    with ThreadPoolExecutor(clients) as pool, tqdm(total=len(paths), unit="photo", disable=None) as bar:
        for answer in pool.map(client, paths):
            bar.update()
            yield answer


def classify(options: argparse.Namespace) -> int:
    """Asks for every photo and prints the answers; how many photos got none. Raises NothingToDo and ServiceAway."""
    paths = find(options.photos)
    if not any(path.is_file() for path in paths):
        raise NothingToDo(f"nothing to do: no photos at {', '.join(options.photos)}")
    client = Client(options.url, options.language, os.environ.get(KEY_VARIABLE, ""))
    client.check_alive()
    width = max(len(str(path)) for path in paths)
    failures = 0
    for answer in answers(paths, client, options.clients):
        # Where both go to one terminal, the row must not land inside the bar.
        tqdm.write(answer.line() if options.json else answer.row(width))
        failures += not answer.good
    return failures


def positive(text: str) -> int:
    """A number from 1, for argparse, which turns ValueError into its own message."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="files, folders or patterns; ** means any folders in between")
    parser.add_argument("--url", default="http://localhost:7998", help="the running service (default: %(default)s)")
    parser.add_argument("--clients", type=positive, default=4, help="photos in flight (default: %(default)s)")
    parser.add_argument("--language", choices=("en", "pt"), default="en", help="of the service's messages")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line, for programs")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The exit status; where it is 2, one line says why."""
    options = parse_arguments(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names hold what this terminal or pipe may have no letters for; Windows' code pages hold few.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return 1 if classify(options) else 0
    except (NothingToDo, ServiceAway) as exc:
        print(f"classify: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
