"""Sends predictions to the service continuously, and classifies every answer: right, rejected properly, or lost."""

import base64
import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from tools.service import PROJECT, ServiceError

# Photos with a known answer: the name cat_1.jpg means a cat.
PHOTOS = sorted((PROJECT / "images").glob("*_?.jpg"))
# The shipped model gives all of them the right label with at least 99.9 %.
SURE_PERCENT = 95.0
# Longer than any time limit of the service. A request that takes longer hangs.
PATIENCE_S = 20.0
STATUS_OF_CODE = {error.code: error.status for error in ServiceError.__subclasses__()}
# The proxy's code if a service ends during a request (app/proxy/nginx.conf).
STATUS_OF_CODE["service_lost"] = 502

RIGHT, REFUSED, LOST = "right", "refused", "lost"


@dataclass(frozen=True)
class Outcome:
    """The result of a request: verdict, detail (error code, or what went wrong), and times (monotonic, seconds)."""

    verdict: str
    detail: str
    sent: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.sent


@dataclass(frozen=True)
class Question:
    """A request with a known right answer."""

    path: str
    body: bytes
    content_type: str
    pet_type: str


def questions() -> list[Question]:
    """Return every photo in every form in which it can be sent."""
    found = []
    for photo in PHOTOS:
        data, pet_type = photo.read_bytes(), photo.stem.partition("_")[0].upper()
        found.append(Question("/predict", as_json(data), "application/json", pet_type))
        found.append(Question("/predict", data, "image/jpeg", pet_type))
        found.append(Question("/cat-dog_classification", as_form(data), FORM_TYPE, pet_type))
    return found


_BOUNDARY = "a-boundary-that-no-photo-holds"
FORM_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


def as_json(photo: bytes) -> bytes:
    return json.dumps({"image_b64": base64.b64encode(photo).decode("ascii")}).encode()


def as_form(photo: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo"\r\n\r\n'
    return head.encode() + photo + f"\r\n--{_BOUNDARY}--\r\n".encode()


class Client:
    """A connection that stays open, as that of a browser or a proxy."""

    def __init__(self, url: str, timeout: float = PATIENCE_S, timeout_ms: int | None = None) -> None:
        place = urlsplit(url)
        self._headers = {"X-Request-Timeout-Ms": str(timeout_ms)} if timeout_ms else {}
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout)

    def ask(self, question: Question) -> Outcome:
        sent = time.monotonic()
        try:
            status, headers, body = self.send("POST", question.path, question.body, question.content_type)
            verdict, detail = judge(status, headers, body, question.pet_type)
        except (OSError, http.client.HTTPException) as exc:
            verdict, detail = LOST, f"{type(exc).__name__}: {exc}"
        return Outcome(verdict, detail, sent, time.monotonic())

    def send(
        self, method: str, path: str, body: bytes = b"", content_type: str = ""
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send one request; return status, headers and body of the answer. Raises OSError or HTTPException."""
        try:
            headers = self._headers | ({"Content-Type": content_type} if content_type else {})
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


def judge(status: int, headers: http.client.HTTPMessage, body: bytes, pet_type: str) -> tuple[str, str]:
    """Return the verdict on an answer, and the reason in a few words."""
    try:
        answer = json.loads(body)
    except ValueError:
        return LOST, f"{status} without JSON"
    if status == 200:
        right = _is_right(answer, pet_type)
        return (RIGHT, "") if right else (LOST, f"wrong answer: {str(answer)[:200]}")
    reason = _why_improper(status, headers, answer)
    return (LOST, f"improper refusal, {reason}: {str(answer)[:200]}") if reason else (REFUSED, answer["code"])


def _is_right(answer: Any, pet_type: str) -> bool:
    return (
        isinstance(answer, dict)
        and (answer.get("status"), answer.get("pet_type")) == ("Success", pet_type)
        and isinstance(answer.get("model_conf"), float)
        and SURE_PERCENT < answer["model_conf"] <= 100
    )


def _why_improper(status: int, headers: http.client.HTTPMessage, answer: Any) -> str:
    if not isinstance(answer, dict) or answer.get("status") != "Failed":
        return "no failure of the service's form"
    if STATUS_OF_CODE.get(answer.get("code", "")) != status:
        return f"status {status} for this code"
    if not answer.get("msg"):
        return "no message"
    if answer.get("request_id") != headers["X-Request-ID"]:
        return "not its request's id"
    if status == 503 and not (headers["Retry-After"] or "").isdecimal():
        return "no Retry-After"
    return ""


class Load:
    """Clients that send requests at a constant rate together. If the service is slower, they wait for its answers.

    Args:
        url: of the service or of a proxy.
        rate: requests per second.
        clients: number of connections; each sends one request at a time.
        timeout_ms: time limit that each request asks for; None: the service's own.
        keeps_connections: whether a client sends all of its requests over one connection.
    """

    def __init__(
        self, url: str, rate: float, clients: int, timeout_ms: int | None = None, keeps_connections: bool = True
    ) -> None:
        self._url = url
        self._keeps_connections = keeps_connections
        self._timeout_ms = timeout_ms
        self._interval = clients / rate
        self._clients = clients
        self._questions = questions()
        self._number = count()
        self._over = threading.Event()
        self.outcomes: list[Outcome] = []

    @contextlib.contextmanager
    def going_on(self) -> Iterator["Load"]:
        """Send requests until the end of the block, then wait for the last answers."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        with contextlib.closing(Client(self._url, timeout_ms=self._timeout_ms)) as client:
            due = time.monotonic() + number * self._interval / self._clients
            while not self._over.wait(max(0.0, due - time.monotonic())):
                self.outcomes.append(client.ask(self._questions[next(self._number) % len(self._questions)]))
                if not self._keeps_connections:
                    client.close()
                due = max(due + self._interval, time.monotonic())

    def ask_at_once(self, count: int) -> list[threading.Thread]:
        """Send `count` requests at the same time; return the threads that wait for the answers."""

        def ask(question: Question) -> None:
            with contextlib.closing(Client(self._url, timeout_ms=self._timeout_ms)) as client:
                self.outcomes.append(client.ask(question))

        threads = [
            threading.Thread(target=ask, args=(self._questions[number % len(self._questions)],))
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads

    def since(self, moment: float) -> list[Outcome]:
        """Return the results of the requests sent after ``moment``."""
        return [outcome for outcome in self.outcomes if outcome.sent > moment]

    def counts(self) -> Counter[str]:
        return Counter(outcome.verdict for outcome in self.outcomes)
