"""Open-loop load: photos arrive at random times with a given mean rate, as from independent users.

A late answer does not delay later requests. Latency is measured from the time at which a request was due, so it is the
real waiting time of a user (no coordinated omission).
"""

import contextlib
import http.client
import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tools.bench.samples import Sample, sample_of
from tools.load import Client

# More than the number of concurrent requests at any rate that the service can keep up with.
CONNECTIONS = 64
TIMEOUT_S = 30


@dataclass
class Timings:
    """Latencies in milliseconds, and the stages from `Server-Timing`, of all threads."""

    latencies: list[float] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)
    errors: int = 0


def open_loop(url: str, bodies: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> Sample:
    """Send `rate` photos per second on average for `seconds`; raises LoadError if fewer than two are answered."""
    moments, due = random.Random(seed), 0.0
    arrivals: list[float] = []
    while due < seconds:
        arrivals.append(due)
        due += moments.expovariate(rate)
    timings = _send(url, bodies, arrivals, CONNECTIONS)
    return sample_of(timings.latencies, timings.errors, seconds)


def one_by_one(url: str, bodies: Sequence[bytes], count: int, clients: int = 1) -> Timings:
    """Send `count` photos from `clients` connections; each sends the next photo when the last is answered."""
    return _send(url, bodies, [0.0] * count, clients)


def parse_server_timing(header: str) -> dict[str, float]:
    """Return `decode;dur=1.5, total;dur=9.0` as {"decode": 1.5, "total": 9.0}, without entries of no duration."""
    steps = {}
    for entry in header.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur":
                steps[name] = float(value)
    return steps


def _send(url: str, bodies: Sequence[bytes], arrivals: Sequence[float], clients: int) -> Timings:
    timings, turns = Timings(), queue.SimpleQueue[tuple[int, float]]()
    for turn in enumerate(arrivals):
        turns.put(turn)
    begin = time.monotonic()

    def work() -> None:
        with contextlib.closing(Client(url, TIMEOUT_S)) as client:
            while True:
                try:
                    number, arrival = turns.get_nowait()
                except queue.Empty:
                    return
                # Without an arrival time, a request is due when its client is free.
                due = begin + arrival if arrival else time.monotonic()
                time.sleep(max(0.0, due - time.monotonic()))
                _ask(client, urlsplit(url).path, bodies[number % len(bodies)], due, timings)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return timings


def _ask(client: Client, path: str, body: bytes, due: float, timings: Timings) -> None:
    try:
        status, headers, _ = client.send("POST", path, body, "application/json")
    except (OSError, http.client.HTTPException):
        timings.errors += 1
        return
    if status != 200:
        timings.errors += 1
        return
    timings.latencies.append(1000 * (time.monotonic() - due))
    timings.steps.append(parse_server_timing(headers.get("Server-Timing", "")))
