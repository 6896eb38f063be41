"""Classifies photos with a running service. The arguments are files, folders or patterns.

    python -m tools.classify images
    python -m tools.classify cat.jpg "holiday/**/*.heic" --json > answers.jsonl
    python -m tools.classify photos --url http://host:port --clients 8 --language pt

It prints one row per photo in the order of the arguments: the file, its label and confidence, or an error message. With
--json each line is an object with the service's answer and the file. In folders it takes the files with the suffix of a
picture, except hidden ones. A file that is named itself is sent whatever its suffix is.

If the service needs an API key, set the environment variable CATDOG_API_KEY.

Exit status: 0 every photo was classified, 1 some were not, 2 there was no photo or no service.
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
# The variable with the API key. It is not an option, because all users can see the options of a process.
KEY_VARIABLE = "CATDOG_API_KEY"
# How often a photo is sent if the service is busy or closes the connection.
ATTEMPTS = 3
# Limit for the Retry-After of an answer.
LONGEST_WAIT_SECONDS = 10.0
# Timeouts to connect, and to wait for the next part of the answer. The service's own limit is 10 s.
TIMEOUT_SECONDS = (5.0, 60.0)


class NothingToDo(Exception):
    """The arguments name no photo."""


class ServiceAway(Exception):
    """No photo can be classified: no service is reachable, another program answers, or the service has no model."""


@dataclass(frozen=True)
class Answer:
    """The answer for one photo: the service's JSON, or an object of the same form if the file can't be sent."""

    file: str
    body: dict[str, Any]

    @property
    def good(self) -> bool:
        """Whether there is a label."""
        return bool(self.body["status"] == "Success")

    def row(self, width: int) -> str:
        """Return a row of the table, with the file name in `width` columns."""
        if not self.good:
            return f"{self.file:{width}}  {'-':5}  {'-':>8}  {self.body['msg']}"
        doubt = "  probably neither" if self.body.get("in_domain") is False else ""
        return f"{self.file:{width}}  {self.body['pet_type']:5}  {self.body['model_conf']:6.2f} %{doubt}"

    def line(self) -> str:
        """Return a line of JSON."""
        return json.dumps({"file": self.file} | self.body)


def failed(code: str, msg: str) -> dict[str, Any]:
    """Return an answer in the service's form, for an error that happened before the service."""
    return {"status": "Failed", "msg": msg, "code": code}


def unreadable(path: Path, exc: OSError) -> str:
    """Return why the file can't be sent, in the same words on every system."""
    if path.is_dir():
        return "There are no photos in this folder."
    return f"The file can't be read: {exc.strerror or exc}." if path.exists() else "There is no such file."


class Client:
    """Sends photos to `POST /predict` of the service at `url`. Several threads may call it.

    `top_k` is how many labels an answer has; None: the service's default.
    """

    top_k: int | None = None

    def __init__(self, url: str, language: str, key: str = "") -> None:
        self._url = url.rstrip("/")
        # Octet-stream: the service detects the format from the bytes, which is safer than the file's suffix.
        self._headers = {"Content-Type": "application/octet-stream", "Accept-Language": language}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._sessions = Sessions()

    def __call__(self, path: Path) -> Answer:
        """Return the answer for one photo; raises ServiceAway."""
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
                    # If a body is too large, the connection may be closed before the error can be read.
                    return failed("connection_lost", f"The service broke the connection: {exc}. Is the file too large?")
                continue
            except requests.RequestException as exc:
                # requests' errors are OSErrors too, but the file is fine.
                return failed("no_answer", f"There was no answer: {exc}.")
            if response.status_code != 503 or last:
                return self._body(response)
            time.sleep(wait_seconds(response))
        raise AssertionError("the last attempt returns")

    def _post(self, path: Path) -> requests.Response:
        # Opened for each attempt and streamed: a file of gigabytes is rejected by its Content-Length.
        with path.open("rb") as photo:
            return self._sessions.mine().post(
                f"{self._url}/predict",
                params={"top_k": self.top_k} if self.top_k else None,
                data=photo,
                headers=self._headers,
                timeout=TIMEOUT_SECONDS,
            )

    def model(self) -> dict[str, Any]:
        """Return the answer of `GET /model`; raises ServiceAway."""
        self.check_alive()
        try:
            response = self._sessions.mine().get(f"{self._url}/model", headers=self._headers, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as exc:
            raise ServiceAway(f"no answer of {self._url}: {exc}") from exc
        body = self._body(response, "labels")
        if response.status_code != 200:
            raise ServiceAway(f"{self._url}: {body['msg']}")
        return body

    def _body(self, response: requests.Response, field: str = "pet_type") -> dict[str, Any]:
        """Return the answer, which has `field` if it is good; raises ServiceAway."""
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        words = field if response.status_code == 200 else "msg"
        if not isinstance(body, dict) or words not in body or response.status_code in (404, 405):
            raise ServiceAway(f"the program at {self._url} is not this service (status {response.status_code})")
        if body.get("code") == "unauthorized":
            raise ServiceAway(f"{self._url} needs an API key: set {KEY_VARIABLE} to a valid one")
        if body.get("code") == "model_unavailable":
            raise ServiceAway(f"{self._url}: {body['msg']}")
        return body

    def check_alive(self) -> None:
        """Return if a service listens at the address; raises ServiceAway otherwise."""
        try:
            self._sessions.mine().get(f"{self._url}/livez", timeout=TIMEOUT_SECONDS)
        except ValueError as exc:
            if not self._url.lower().startswith(("http://", "https://")):
                raise ServiceAway(f"--url {self._url}: begin with http:// or https://") from exc
            raise ServiceAway(f"--url {self._url}: {exc}") from exc
        except requests.RequestException as exc:
            raise ServiceAway(f"no service at {self._url}: start it with `python run.py serve`, or give --url") from exc


def wait_seconds(response: requests.Response) -> float:
    """Return the seconds of Retry-After, at most 10; 1 if the header is missing or a date."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT_SECONDS) if asked.isdecimal() else 1.0


def find(arguments: Iterable[str]) -> list[Path]:
    """Return the files of all arguments, in order and without duplicates. A name without a file stays in the list."""
    return list(dict.fromkeys(path for argument in arguments for path in expand(argument)))


def expand(argument: str) -> list[Path]:
    """Return the photos of one argument. Shells on Windows do not expand patterns, so it is done here."""
    path = Path(argument)
    matches = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
    return [photo for match in matches for photo in inside(match)] or [path]


def inside(path: Path) -> list[Path]:
    """Return the sorted photos in a folder, or the file itself."""
    return [photo for photo in sorted(path.rglob("*")) if is_photo(photo)] if path.is_dir() else [path]


def is_photo(path: Path) -> bool:
    """Return whether a file in a folder is a photo by its suffix, and not hidden, as `._cat.jpg` of macOS is."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def answers(paths: Sequence[Path], client: Client, clients: int) -> Iterator[Answer]:
    """Yield the answers in the order of `paths`, with `clients` requests at a time and a progress bar on a terminal."""
    with ThreadPoolExecutor(clients) as pool, tqdm(total=len(paths), unit="photo", disable=None) as bar:
        for answer in pool.map(client, paths):
            bar.update()
            yield answer


def classify(options: argparse.Namespace) -> int:
    """Classify all photos, print the answers, return how many failed. Raises NothingToDo and ServiceAway."""
    paths = find(options.photos)
    if not any(path.is_file() for path in paths):
        raise NothingToDo(f"nothing to do: no photos at {', '.join(options.photos)}")
    client = Client(options.url, options.language, os.environ.get(KEY_VARIABLE, ""))
    client.check_alive()
    width = max(len(str(path)) for path in paths)
    failures = 0
    for answer in answers(paths, client, options.clients):
        # tqdm.write keeps rows and progress bar apart on a terminal.
        tqdm.write(answer.line() if options.json else answer.row(width))
        failures += not answer.good
    return failures


def positive(text: str) -> int:
    """Return a number of 1 or more. argparse replaces ValueError by its own message."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="files, folders or patterns; ** means any folders in between")
    parser.add_argument("--url", default="http://localhost:7998", help="the running service (default: %(default)s)")
    parser.add_argument("--clients", type=positive, default=4, help="photos in flight (default: %(default)s)")
    parser.add_argument("--language", choices=("en", "pt"), default="en", help="language of the messages")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line, for programs")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status; before 2 it prints the reason in one line."""
    options = parse_arguments(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The terminal's encoding may lack characters of a file name, mainly on Windows.
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
