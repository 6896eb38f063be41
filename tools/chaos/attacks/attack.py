"""One attack while it runs: what it sends, the answers, and the promises of the pair."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.chaos.attacks.wire import Answer, Cut, Wire

# The memory limits of the containers (app/docker-compose.embedded.yml), in MB.
MEMORY = {"preprocess service": 700.0, "model server": 512.0}
PHOTO_S = 1.0
LIVEZ_S = 0.25
ANSWER_S = 12.0
IDLE_S = 12.0
# CPU use of an idle pair, as a share of one core.
IDLE_SHARE = 0.05
BACK_S = 30.0
MAY_KEEP = 1.2
# Log lines are written up to 0.1 s late, and rejections are summed up once a second.
LOG_DELAY_S = 1.5
# A service must never answer with this status.
DEFECT = 500


@dataclass(frozen=True)
class Pace:
    """The duration of each attack, the factor for its time limits on a busy machine, and the time limit that each
    picture's request asks for (None: the service's own)."""

    seconds: float = 3.0
    slack: float = 1.0
    timeout_ms: int | None = None


# The tests run beside other tests on any machine. Even with this factor, a hang of ten seconds is found.
SHORT = Pace(seconds=1.0, slack=4.0, timeout_ms=3000)


@dataclass(frozen=True)
class Case:
    """An attack. ``photo_s`` is the time limit for small photos of other clients, in seconds; None if the attack has
    too many connections for a promise. ``prepare`` creates slow test data before the attack."""

    name: str
    run: Callable[["Attack"], None]
    is_short: bool
    photo_s: float | None
    prepare: Callable[[], object] = lambda: None

    @property
    def why(self) -> str:
        return " ".join((self.run.__doc__ or "").split())


@dataclass
class Report:
    """The result of an attack; megabytes and seconds by the name of a service."""

    name: str
    requests: int = 0
    sent: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    back: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    photos: int = 0
    slowest_photo: float = 0.0
    slowest_livez: float = 0.0
    idle_after: float = 0.0
    broken: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


CASES: dict[str, Case] = {}


def attack(
    name: str,
    short: bool = False,
    photo_s: float | None = PHOTO_S,
    prepare: Callable[[], object] = lambda: None,
) -> Callable[[Any], Any]:
    """Register an attack; with ``short`` the tests run it too."""

    def register(run: Callable[["Attack"], None]) -> Callable[["Attack"], None]:
        CASES[name] = Case(name, run, short, photo_s, prepare)
        return run

    return register


class Attack:
    """The tools of an attack: ports, ways to send, and the report."""

    def __init__(self, case: Case, ports: dict[str, int], pace: Pace, log: Path) -> None:
        self.report = Report(case.name)
        self.pace = pace
        self.http_port, self.grpc_port, self.rest_port = ports["http"], ports["grpc"], ports["rest"]
        self.last_byte = time.monotonic()
        self._log = log
        self._answers: Counter[str] = Counter()
        self._lock = threading.Lock()

    def for_a_while(self, send: Callable[[], object]) -> None:
        """Call ``send`` again and again for the duration of an attack, at least once."""
        end = time.monotonic() + self.pace.seconds
        send()
        while time.monotonic() < end:
            send()

    def post(self, body: bytes, media_type: str, path: str = "/predict", wire: Wire | None = None) -> None:
        """Send a complete request to the preprocess service, and record its answer."""
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        if self.pace.timeout_ms:
            head += f"X-Request-Timeout-Ms: {self.pace.timeout_ms}\r\n"
        self.exchange(head.encode() + b"\r\n" + body, self.http_port, wire)

    def exchange(self, request: bytes, port: int, wire: Wire | None = None, may_cut: bool = False) -> None:
        """Send bytes and record the answer. Without ``wire`` a new connection is used.

        With ``may_cut`` the service may also close the connection without an answer.
        """
        began = time.monotonic()
        own = wire or Wire(port, ANSWER_S * max(1.0, self.pace.slack) + 1)
        try:
            # If the service rejects it early, sending fails, but there is still an answer.
            with contextlib.suppress(OSError):
                own.send(request)
            self.note_sent(len(request))
            self.note(own.answer(), time.monotonic() - began)
        except Cut as exc:
            self.note_cut(str(exc), may_cut)
            if wire:
                wire.reconnect()
        finally:
            if wire is None:
                own.close()

    def json_logging(self) -> int:
        """Return the number of lines in the preprocess service's log."""
        time.sleep(LOG_DELAY_S)
        return self._log.read_bytes().count(b"\n")

    def at_once(self, count: int, send: Callable[[int], object]) -> None:
        """Call ``send`` in ``count`` threads at the same time."""

        def run(number: int) -> None:
            # If no service listens any more, the watcher reports the reason.
            with contextlib.suppress(OSError):
                send(number)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def note_sent(self, count: int, requests: int = 1) -> None:
        with self._lock:
            self.report.sent += count
            self.report.requests += requests
            self.last_byte = time.monotonic()

    def note(self, answer: Answer, seconds: float) -> None:
        """Record an answer. An internal error, a missing reason or a late answer is a broken promise."""
        self.count(str(answer.status))
        if answer.status == DEFECT or answer.status < 200:
            self.promise(False, f"answered with {answer.status}: {answer.body[:200]!r}")
        if answer.status >= 400 and not _tells_why(answer.body):
            self.promise(False, f"{answer.status} without a reason: {answer.body[:100]!r}")
        if seconds > ANSWER_S * self.pace.slack:
            self.promise(False, f"answered only after {seconds:.1f} s")

    def note_cut(self, text: str, is_fine: bool) -> None:
        """Record a connection that ended without an answer."""
        self.count(text)
        self.promise(is_fine, f"no answer: {text}")

    def count(self, text: str) -> None:
        with self._lock:
            self._answers[text] += 1
            self.report.answers = dict(self._answers)

    def promise(self, is_kept: bool, text: str) -> None:
        """Record a broken promise, unless ``is_kept``; each text only once."""
        with self._lock:
            if not is_kept and text not in self.report.broken:
                self.report.broken.append(text)


def _tells_why(body: bytes) -> bool:
    """Return whether the body is an error message of one of the services."""
    with contextlib.suppress(ValueError):
        answer = json.loads(body)
        return isinstance(answer, dict) and bool(answer.get("msg") or answer.get("error"))
    return False
