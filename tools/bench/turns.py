"""One turn of a contestant: start, check, all loads, stop; and the summary of several turns."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.bench.closed_loop import closed_loop
from tools.bench.contestants import Contestant
from tools.bench.open_loop import open_loop
from tools.bench.photos import Photo
from tools.bench.running import check, running
from tools.bench.samples import Sample

CLIENTS = (1, 8, 32, 128)
# CPU and memory are measured at this number of clients: all cores are busy, and no request is rejected.
BUSY_CLIENTS = 32
WARM_UP_CLIENTS = 8


@dataclass(frozen=True)
class Plan:
    """Seconds of each load, and the rate of the open loop in requests per second."""

    seconds: float
    rate: float


@dataclass(frozen=True)
class Turn:
    """The results of one turn. CPU in milliseconds per request and memory in megabytes by process, at BUSY_CLIENTS."""

    start_s: float
    closed: dict[int, Sample]
    open: Sample
    cpu_ms: dict[str, float]
    load_cpu_ms: float
    megabytes: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of several turns."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of at least one value."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


def take_turn(contestant: Contestant, photos: Sequence[Photo], plan: Plan, tell: Callable[[str], None]) -> Turn:
    """Measure a contestant once; `tell` is called with each step. Raises BenchError or LoadError."""
    tell("starting")
    with running(contestant, photos[0]) as service, tempfile.TemporaryDirectory() as folder:
        check(service, photos)
        bodies = write_bodies(photos, Path(folder))
        tell("warming up")
        closed_loop(service.url, bodies, WARM_UP_CLIENTS, plan.seconds / 2)
        # First, because requests that are left of the closed loops would add latency here.
        tell(f"{plan.rate:g} requests a second")
        opened = open_loop(service.url, [photo.body() for photo in photos], plan.rate, plan.seconds)
        closed: dict[int, Sample] = {}
        cpu_ms, load_cpu_ms, megabytes = {}, 0.0, {}
        for clients in CLIENTS:
            tell(f"{clients} clients")
            before, load_before = service.cpu_seconds(), _load_seconds()
            closed[clients] = closed_loop(service.url, bodies, clients, plan.seconds)
            if clients == BUSY_CLIENTS:
                cpu_ms = _each(before, service.cpu_seconds(), closed[clients].requests)
                load_cpu_ms = 1000 * (_load_seconds() - load_before) / closed[clients].requests
                megabytes = service.megabytes()
        check(service, photos)
    return Turn(service.start_s, closed, opened, cpu_ms, load_cpu_ms, megabytes)


def write_bodies(photos: Sequence[Photo], folder: Path) -> list[Path]:
    """Write the bodies to files, because wrk reads them from files."""
    paths = [folder / str(number) for number in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        path.write_bytes(photo.body())
    return paths


def rates(turns: Sequence[Turn]) -> dict[int, Spread]:
    """Return the answers per second by number of clients."""
    return {clients: spread(turn.closed[clients].requests_per_second for turn in turns) for clients in CLIENTS}


def latency(turns: Sequence[Turn], clients: int, percent: int) -> Spread:
    """Return a percentile of the latency in the closed loop, in milliseconds."""
    return spread(turn.closed[clients].percentile(percent) for turn in turns)


def distribution(turns: Sequence[Turn]) -> list[float]:
    """Return the percentiles 1 to 99 of the open loop's latency in milliseconds, each the median over the turns."""
    return [statistics.median(turn.open.percentiles[index] for turn in turns) for index in range(99)]


def errors(turns: Sequence[Turn]) -> int:
    """Return how many requests had no successful answer."""
    return sum(sample.errors for turn in turns for sample in (*turn.closed.values(), turn.open))


def _each(before: Mapping[str, float], after: Mapping[str, float], requests: int) -> dict[str, float]:
    return {name: 1000 * (seconds - before[name]) / requests for name, seconds in after.items()}


def _load_seconds() -> float:
    """CPU seconds of ended child processes: the runs of wrk."""
    used = psutil.Process().cpu_times()
    return float(used.children_user + used.children_system)
