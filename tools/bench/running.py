"""Starts the processes of a contestant, waits for its first right answer, and measures CPU and memory."""

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
# How long a photo may be rejected after a load, until the requests of the load have ended.
SETTLE_S = 10
LOGS = ENVIRONMENTS / "logs"


@dataclass(frozen=True)
class Running:
    """A running contestant. `start_s` is the time from the start to the first right answer, in seconds."""

    url: str
    rest_url: str
    processes: Mapping[str, psutil.Popen]
    start_s: float

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far, with its children."""
        return {name: sum(map(_cpu, _family(process))) for name, process in self.processes.items()}

    def megabytes(self) -> dict[str, float]:
        """Return the memory of each process with its children; shared memory counts proportionally (PSS)."""
        return {name: sum(map(_bytes, _family(process))) / 1e6 for name, process in self.processes.items()}


@contextlib.contextmanager
def running(contestant: Contestant, photo: Photo) -> Iterator[Running]:
    """Start all processes on free ports; yield when `photo` is answered rightly; stop all processes after the block.

    Raises BenchError if a process ends or no right answer comes.
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
    """Raise BenchError unless every photo is answered with its class. A rejected photo is sent again for 10 s."""
    end = time.monotonic() + SETTLE_S
    for photo in photos:
        answer = ask(running.url, photo)
        while "error" in answer and time.monotonic() < end:
            time.sleep(POLL_S)
            answer = ask(running.url, photo)
        if answer.get("pet_type") != photo.label:
            raise BenchError(f"{running.url} says of {photo.name}, a {photo.label}: {answer}")


def ask(url: str, photo: Photo) -> dict[str, object]:
    """Return the answer as JSON, or an object with the reason in `error`."""
    request = urllib.request.Request(url, photo.body(), {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=START_S) as response:
            answer: dict[str, object] = json.load(response)
            return answer
    except (OSError, ValueError) as exc:
        return {"error": str(exc)}


def free_ports(count: int) -> list[int]:
    """Return different free ports."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _filled(value: str, ports: Mapping[str, str]) -> str:
    # Other values may contain braces, for example JSON.
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
        # Linux knows the proportional size. On other systems shared libraries count once per process.
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
