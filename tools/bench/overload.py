"""Measures the pair under ten times its maximum load: goodput, latency, rejections and liveness.

    python -m tools.bench.overload                  everything, about a minute; in the environment .venv

The peak is the throughput of 32 clients that send the next photo when the last is answered. In the second phase,
clients with a fixed rate send ten times as many requests. In the third phase, clients retry at once after every
rejection. Meanwhile /livez is requested 20 times a second. It needs hey, which shares the cores with the measured
services.
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
# Requests per second of each client in the second phase. hey keeps this rate on one connection, but not much more.
PACE_PER_SECOND = 10
GREEDY_CLIENTS = 320
PROBES_PER_SECOND = 20
PROBE_TIMEOUT_S = 10


@dataclass(frozen=True)
class Phase:
    """The results of one phase; rates per second, times in milliseconds."""

    goodput: float
    accepted_p99: float
    refused: float
    refused_median: float
    others: int
    worst_livez: float
    # How many cores hey used; the pair could not use these.
    hey_cores: float = 0.0


def main() -> int:
    """Measure and print; return 0, or 1 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="seconds of each phase (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the three phases (default 3)")
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
    """Run all phases on one pair; raises BenchError and LoadError."""
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


def loaded(service: Running, body: Path, seconds: int, clients: int, pace: int | None = None) -> Phase:
    """Run one phase: each of `clients` sends `pace` requests per second, or the next one when the last is answered."""
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
    return phase_of(done.stdout, 1000 * max(livez), (_children_seconds() - before) / seconds)


def probe(url: str, over: threading.Event, seconds: list[float]) -> None:
    """Request `url` again and again until `over` is set; append the time of each answer in seconds."""
    while not over.wait(1 / PROBES_PER_SECOND):
        begin = time.monotonic()
        # A request without an answer counts with the time until it failed.
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S).close()
        seconds.append(time.monotonic() - begin)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def phase_of(printed: str, worst_livez: float, hey_cores: float = 0.0) -> Phase:
    """Read hey's CSV, one line per request; raises LoadError if fewer than two requests succeeded."""
    rows = list(csv.DictReader(printed.splitlines()))
    times: dict[str, list[float]] = {"200": [], "503": []}
    for row in rows:
        times.setdefault(row["status-code"], []).append(1000 * float(row["response-time"]))
    accepted, refused = times["200"], times["503"]
    if len(accepted) < 2:
        raise LoadError(f"of {len(rows)} requests, {len(accepted)} were answered")
    took = max(float(row["offset"]) + float(row["response-time"]) for row in rows)
    return Phase(
        goodput=len(accepted) / took,
        accepted_p99=statistics.quantiles(accepted, n=100, method="inclusive")[98],
        refused=len(refused) / took,
        refused_median=statistics.median(refused or [0.0]),
        others=len(rows) - len(accepted) - len(refused),
        worst_livez=worst_livez,
        hey_cores=hey_cores,
    )


def show(name: str, found: Phase, peak: Phase) -> None:
    """Print one line of the table."""
    print(
        f"{name:22} {found.goodput:6.0f} {found.goodput / peak.goodput:8.2f} {found.accepted_p99:7.0f} "
        f"{found.accepted_p99 / peak.accepted_p99:8.2f} {found.refused:10.0f} {found.refused_median:10.1f} "
        f"{found.others:6} {found.worst_livez:15.0f} {found.hey_cores:11.2f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
