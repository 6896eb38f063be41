"""Starts a contestant's processes, says when it answers rightly, and what it costs while it runs."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.bench.contestants import Contestant
from tools.bench.environments import ENVIRONMENTS, BenchError
from tools.bench.photos import Photo

START_S = 90
STOP_S = 15
POLL_S = 0.02
# After a stretch of load, until what its clients left behind is cleared away.
SETTLE_S = 10
LOGS = ENVIRONMENTS / "logs"


@dataclass(frozen=True)
class Running:
    """A contestant that answers; `start_s` is the time from its start to its first right answer."""

    url: str
    rest_url: str
    processes: Mapping[str, psutil.Popen]
    start_s: float

    def cpu_seconds(self) -> dict[str, float]:
        """What each process has used so far, its children included."""
        return {name: sum(map(_cpu, _family(process))) for name, process in self.processes.items()}

    def megabytes(self) -> dict[str, float]:
        """Memory of each process, its children's added: what is shared counts for each as its share of it."""
        return {name: sum(map(_bytes, _family(process))) / 1e6 for name, process in self.processes.items()}


@contextlib.contextmanager
def running(contestant: Contestant, photo: Photo) -> Iterator[Running]:
    """Start every process at once on free ports; yield when `photo` is answered rightly, stop all at the end.

    Raises BenchError where a process ends or no right answer comes.
    """
    ports = dict(zip(("http", "grpc", "rest"), map(str, free_ports(3)), strict=True))
    url = f"http://127.0.0.1:{ports['http']}{contestant.route}"
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{contestant.name.replace(' ', '-')}.txt"
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        processes: dict[str, psutil.Popen] = {}
        stack.callback(_stop, processes)
        begin = time.monotonic()
        for name, part in contestant.parts.items():
            processes[name] = psutil.Popen(
                [word.format(**ports) for word in part.command],
                env={**os.environ, **{key: _filled(value, ports) for key, value in part.environment.items()}},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        _wait_until_right(url, photo, processes, log)
        yield Running(url, f"http://127.0.0.1:{ports['rest']}", processes, time.monotonic() - begin)


def check(running: Running, photos: Sequence[Photo]) -> None:
    """Raise BenchError unless every photo is answered with its class; one that is refused is asked for again."""
    end = time.monotonic() + SETTLE_S
    for photo in photos:
        answer = ask(running.url, photo)
        while "error" in answer and time.monotonic() < end:
            time.sleep(POLL_S)
            answer = ask(running.url, photo)
        if answer.get("pet_type") != photo.label:
            raise BenchError(f"{running.url} says of {photo.name}, a {photo.label}: {answer}")


def ask(url: str, photo: Photo) -> dict[str, object]:
    """The answer as JSON; where there is none, `error` says why."""
    request = urllib.request.Request(url, photo.body(), {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=START_S) as response:
            answer: dict[str, object] = json.load(response)
            return answer
    except (OSError, ValueError) as exc:
        return {"error": str(exc)}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _filled(value: str, ports: Mapping[str, str]) -> str:
    # Not every value is a template: JSON has braces of its own.
    return value.format(**ports) if value in {f"{{{name}}}" for name in ports} else value


def _wait_until_right(url: str, photo: Photo, processes: Mapping[str, psutil.Popen], log: Path) -> None:
    end = time.monotonic() + START_S
    while ask(url, photo).get("pet_type") != photo.label:
        ended = [name for name, process in processes.items() if process.poll() is not None]
        if ended or time.monotonic() > end:
            reason = f"its {ended[0]} ended" if ended else f"no right answer within {START_S} s"
            raise BenchError(f"{url} did not come up, {reason}; its output is in {log}")
        time.sleep(POLL_S)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def _cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        # Proportional where the system knows it (Linux), else resident: libraries then count once for each process.
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    return 0


def _stop(processes: Mapping[str, psutil.Popen]) -> None:
    members = [member for process in processes.values() for member in _family(process)]
    for process in processes.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(members, timeout=STOP_S)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=STOP_S)
