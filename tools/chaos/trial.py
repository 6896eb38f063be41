"""One case of the fault suite while it runs: its faults, its load and its broken promises."""

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tools.chaos.stage import Process, Stage
from tools.load import LOST, REFUSED, RIGHT, Load, Outcome

# How long a case waits for an event, also on a slow machine.
WAIT_S = 60.0


@dataclass(frozen=True)
class Pace:
    """The load of a case: requests per second, connections, right answers between two faults, number of repetitions
    (for a case that has some)."""

    rate: float = 30.0
    clients: int = 6
    answers: int = 60
    rounds: int = 2


SHORT = Pace(rate=20.0, clients=4, answers=10, rounds=1)


@dataclass(frozen=True)
class Case:
    """A case: its name, its function, and the error codes that are allowed during the fault."""

    name: str
    run: Callable[["Trial"], None]
    refusals: frozenset[str]
    is_short: bool


@dataclass
class Report:
    """The result of a case. In seconds: ``recovered``, the time from each repair to the next right answer;
    ``refused_after``, the median time of a refusal; ``slowest``, the slowest answer."""

    name: str
    faults: list[str] = field(default_factory=list)
    sent: int = 0
    right: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    recovered: list[float] = field(default_factory=list)
    refused_after: float = 0.0
    slowest: float = 0.0
    broken: list[str] = field(default_factory=list)
    skipped: str = ""
    logs: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


CASES: dict[str, Case] = {}


def case(name: str, refusals: tuple[str, ...] = (), short: bool = False) -> Callable[[Any], Any]:
    """Register a case; with ``short`` the tests run it too, at a lower rate."""

    def register(run: Callable[["Trial"], None]) -> Callable[["Trial"], None]:
        CASES[name] = Case(name, run, frozenset(refusals), short)
        return run

    return register


class Trial:
    """The tools of a case: a stage for the services, the load, and the report."""

    def __init__(self, case: Case, stage: Stage, pace: Pace) -> None:
        self.stage = stage
        self.pace = pace
        self.report = Report(case.name)
        self.timeout_ms: int | None = None
        self._may_refuse = case.refusals
        self._load: Load | None = None
        self._faulty_since: float | None = None
        # Times from the first fault to the recovery. Requests may be refused only in these.
        self._faulty: list[tuple[float, float]] = []

    @property
    def load(self) -> Load:
        if self._load is None:
            raise RuntimeError("no load yet")
        return self._load

    @contextlib.contextmanager
    def under_load(self, port: int) -> Iterator[None]:
        """Send load to the service on ``port`` until the block ends, then judge all answers."""
        self.aim(port)
        with self.load.going_on():
            yield
        self.judge()

    def aim(self, port: int) -> None:
        """Prepare the load for the service on ``port``, for a case that sends its requests itself."""
        self._load = Load(f"http://127.0.0.1:{port}", self.pace.rate, self.pace.clients, self.timeout_ms)

    def fault(self, text: str) -> None:
        """Record a fault. From now on requests may be refused with the codes that the case allows."""
        self.report.faults.append(text)
        self._faulty_since = self._faulty_since or time.monotonic()

    def restart(self, server: Process) -> None:
        """End a model server in order, and start it again."""
        self.fault("SIGTERM, started again")
        status = server.terminate()
        self.promise(status == 0, f"the model server ended with {status}")
        server.start()
        self.recovered()

    def recovered(self) -> None:
        """Record that the fault is over, and measure the time to the next right answer."""
        well = time.monotonic()
        self._wait(lambda: any(outcome.verdict == RIGHT for outcome in self.load.since(well)))
        first = min((one.ended for one in self.load.since(well) if one.verdict == RIGHT), default=time.monotonic())
        self.report.recovered.append(first - well)
        if self._faulty_since is not None:
            self._faulty.append((self._faulty_since, first))
            self._faulty_since = None

    def go_on(self, answers: int | None = None) -> None:
        """Wait for this number of right answers."""
        goal = self.load.counts()[RIGHT] + (self.pace.answers if answers is None else answers)
        self._wait(lambda: self.load.counts()[RIGHT] >= goal)

    def suffer(self, refusals: int | None = None) -> None:
        """Wait for this number of refusals."""
        goal = self.load.counts()[REFUSED] + (self.pace.answers if refusals is None else refusals)
        self._wait(lambda: self.load.counts()[REFUSED] >= goal)

    def promise(self, is_kept: bool, text: str) -> None:
        """Record a broken promise, unless ``is_kept``."""
        if not is_kept:
            self.report.broken.append(text)

    def median_refusal(self, since: float = 0.0) -> float:
        """Return the median seconds of a refusal, for requests sent after ``since``."""
        seconds = [one.seconds for one in self.load.since(since) if one.verdict == REFUSED]
        return statistics.median(seconds) if seconds else 0.0

    def wait_until(self, is_true: Callable[[], bool], text: str) -> None:
        """Wait until ``is_true``; record a broken promise if that takes longer than ``WAIT_S``."""
        self.promise(self._wait(is_true), text)

    def _wait(self, is_true: Callable[[], bool]) -> bool:
        end = time.monotonic() + WAIT_S
        while not is_true():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def judge(self) -> None:
        """Count the results of all requests, and record wrong ones as broken promises."""
        outcomes, report = self.load.outcomes, self.report
        counts = self.load.counts()
        report.sent, report.right, report.lost = len(outcomes), counts[RIGHT], counts[LOST]
        report.refused = dict(Counter(outcome.detail for outcome in outcomes if outcome.verdict == REFUSED))
        report.refused_after = self.median_refusal()
        report.slowest = max((outcome.seconds for outcome in outcomes), default=0.0)
        self.promise(bool(report.right), "no request was answered right")
        for text, number in Counter(one.detail for one in outcomes if one.verdict == LOST).most_common(3):
            self.promise(False, f"{number} lost: {text}")
        unexcused = [one for one in outcomes if one.verdict == REFUSED and not self._is_excused(one)]
        for code, number in Counter(one.detail for one in unexcused).items():
            self.promise(False, f"{number} refused with {code}, but they should have been answered")

    def _is_excused(self, one: Outcome) -> bool:
        during = any(since <= one.ended and one.sent <= until for since, until in self._faulty)
        return one.detail in self._may_refuse and (during or self._faulty_since is not None)
