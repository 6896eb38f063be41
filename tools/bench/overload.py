"""What is left of the pair at ten times the load that it can carry: goodput, latency, refusals, and is it alive?

    python -m tools.bench.overload                  all of it, about a minute; in the environment .venv

Peak is what 32 clients get that each send the next photo when the last is answered. Then so many send at a fixed pace
that ten times as many requests come; a third stretch is of clients that ask again without a pause, however often they
are refused. Meanwhile /livez is asked 20 times a second. Needs hey, which shares the cores with what it measures.
"""

import argparse
import contextlib
import csv
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from tools.bench.contestants import OURS, contestants
from tools.bench.environments import BenchError
from tools.bench.limit import MODEL, newest_version, usable_cores
from tools.bench.photos import shipped_photos
from tools.bench.running import Running, check, running
from tools.bench.samples import LoadError
from tools.service import read_config

MISSING = "hey is not installed. On Debian and Ubuntu: apt install hey; on macOS: brew install hey."
PEAK_CLIENTS = 32
TIMES = 10
# Of each client that sends at a fixed pace; hey sends at most this often from one connection without falling behind.
PACE_PER_SECOND = 10
GREEDY_CLIENTS = 320
PROBES_PER_SECOND = 20
PROBE_TIMEOUT_S = 10


@dataclass(frozen=True)
class Stretch:
    """What came of one stretch of load; rates a second, times in milliseconds."""

    goodput: float
    accepted_p99: float
    refused: float
    refused_median: float
    others: int
    worst_livez: float
    # How many cores hey had meanwhile, which the pair had not.
    hey_cores: float = 0.0


def main() -> int:
    """Measure and print; 1, and one line that says why, where that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each stretch of load (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="of the three stretches in turn (default 3)")
    options = parser.parse_args()
    try:
        run(options.seconds, options.rounds)
    except (BenchError, LoadError) as exc:
        print(f"overload: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(seconds: int, rounds: int) -> None:
    """All stretches, on one pair; raises BenchError and LoadError."""
    if shutil.which("hey") is None:
        raise LoadError(MISSING)
    ours, *_ = (
        one for one in contestants(read_config(None), newest_version(MODEL), usable_cores()) if one.name == OURS
    )
    photos = shipped_photos()
    with running(ours, photos[0]) as service, tempfile.TemporaryDirectory() as folder:
        check(service, photos)
        body = Path(folder, "body.json")
        body.write_bytes(photos[0].body())
        loaded(service, body, 4, PEAK_CLIENTS)
        print(f"{'':22} good/s  of peak  p99 ms  of peak  refused/s  median ms  other  livez worst ms  hey, cores")
        for _ in range(rounds):
            peak = loaded(service, body, seconds, PEAK_CLIENTS)
            show("peak, 32 clients", peak, peak)
            pacing = math.ceil(TIMES * peak.goodput / PACE_PER_SECOND)
            show(f"{TIMES} times as many", loaded(service, body, seconds, pacing, PACE_PER_SECOND), peak)
            show(f"{GREEDY_CLIENTS} without a pause", loaded(service, body, seconds, GREEDY_CLIENTS), peak)
        check(service, photos)


def loaded(service: Running, body: Path, seconds: int, clients: int, pace: int | None = None) -> Stretch:
    """One stretch of load: `clients` that each send `pace` requests a second, or as fast as they are answered."""
    command = ["hey", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-T", "application/json"]
    command += ["-D", str(body), "-o", "csv", *(["-q", str(pace)] if pace else []), service.url]
    over, livez = threading.Event(), [0.0]
    prober = threading.Thread(target=probe, args=(urljoin(service.url, "/livez"), over, livez))
    before = _children_seconds()
    prober.start()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        over.set()
        prober.join()
    if done.returncode:
        raise LoadError(f"hey failed: {done.stderr.strip()}")
    return stretch_of(done.stdout, 1000 * max(livez), (_children_seconds() - before) / seconds)


def probe(url: str, over: threading.Event, seconds: list[float]) -> None:
    """Ask `url` in turn until `over`; adds how long each answer took."""
    while not over.wait(1 / PROBES_PER_SECOND):
        begin = time.monotonic()
        # One that is not answered counts for as long as it was waited for.
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S).close()
        seconds.append(time.monotonic() - begin)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def stretch_of(printed: str, worst_livez: float, hey_cores: float = 0.0) -> Stretch:
    """hey's CSV, a line for each request; raises LoadError where fewer than two were answered with a success."""
    rows = list(csv.DictReader(printed.splitlines()))
    times: dict[str, list[float]] = {"200": [], "503": []}
    for row in rows:
        times.setdefault(row["status-code"], []).append(1000 * float(row["response-time"]))
    accepted, refused = times["200"], times["503"]
    if len(accepted) < 2:
        raise LoadError(f"of {len(rows)} requests, {len(accepted)} were answered")
    took = max(float(row["offset"]) + float(row["response-time"]) for row in rows)
    return Stretch(
        goodput=len(accepted) / took,
        accepted_p99=statistics.quantiles(accepted, n=100, method="inclusive")[98],
        refused=len(refused) / took,
        refused_median=statistics.median(refused or [0.0]),
        others=len(rows) - len(accepted) - len(refused),
        worst_livez=worst_livez,
        hey_cores=hey_cores,
    )


def show(name: str, found: Stretch, peak: Stretch) -> None:
    """One line of the table."""
    print(
        f"{name:22} {found.goodput:6.0f} {found.goodput / peak.goodput:8.2f} {found.accepted_p99:7.0f} "
        f"{found.accepted_p99 / peak.accepted_p99:8.2f} {found.refused:10.0f} {found.refused_median:10.1f} "
        f"{found.others:6} {found.worst_livez:15.0f} {found.hey_cores:11.2f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
