"""Watches a pair of services while it is attacked: its memory, what others are answered, whether it comes to rest.

A process of its own, so that whatever the attack costs its sender delays none of this. It also ends an attack that has
gone too far, by killing the services, before it harms the machine.
"""

import contextlib
import http.client
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

SAMPLE_S = 0.05
# How often new processes of a service are looked for: that reads what the system says of all processes.
LOOK_S = 0.2
PHOTO_EVERY_S = 0.15
LIVEZ_EVERY_S = 0.1
# More than anybody waits for an answer.
PATIENCE_S = 15.0


@dataclass(frozen=True)
class Target:
    """A service: its first process, the port that answers GET /livez, and at how many megabytes it is killed."""

    name: str
    pid: int
    http_port: int
    abort_megabytes: float


@dataclass(frozen=True)
class Photo:
    """A small photo as it is sent, and in a word which."""

    name: str
    body: bytes
    content_type: str


@dataclass
class Seen:
    """What was measured during an attack; megabytes and seconds by the name of a service, answers in seconds."""

    peaks: dict[str, float] = field(default_factory=dict)
    photos: list[float] = field(default_factory=list)
    livez: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    killed: str = ""

    @property
    def slowest_photo(self) -> float:
        return max(self.photos, default=0.0)

    @property
    def slowest_livez(self) -> float:
        return max(self.livez, default=0.0)


def resident(process: psutil.Process) -> tuple[int, int]:
    """Bytes of a process: its share of pages that belong to no file, and all those that do.

    The first are shared only with processes that it was forked from or has forked; the second, programs and libraries,
    with anybody, and those of one service have the same ones (proc(5), smaps_rollup). Elsewhere than on Linux: what
    only this process has, and nothing.
    """
    if not psutil.LINUX:
        return process.memory_full_info().uss, 0
    sizes = {}
    for file in ("smaps_rollup", "status"):
        for line in Path(f"/proc/{process.pid}/{file}").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            if name in ("Pss_Anon", "Pss_Shmem", "RssFile"):
                sizes[name] = int(rest.split()[0]) * 1024
    return sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0), sizes.get("RssFile", 0)


class Tree:
    """The processes of a service: the first, and all that it has started."""

    def __init__(self, pid: int) -> None:
        self._first = psutil.Process(pid)
        self._children: list[psutil.Process] = []
        self._looked = 0.0

    def megabytes(self) -> float:
        """What is resident, in 10^6 bytes; pages that the processes share count once, whoever else shares them."""
        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._looked = now
            with contextlib.suppress(psutil.NoSuchProcess):
                self._children = self._first.children(recursive=True)
        own, of_files = 0, 0
        for process in (self._first, *self._children):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                part = resident(process)
                own, of_files = own + part[0], max(of_files, part[1])
        return (own + of_files) / 1e6

    def cpu_seconds(self) -> float:
        """Used so far, by those that have ended meanwhile too."""
        total = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (self._first, *self._first.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += times.user + times.system + times.children_user + times.children_system
        return total

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (*self._first.children(recursive=True), self._first):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


class Watcher:
    """Starts and stops the watching; use as a context manager, whose end ends the process."""

    def __init__(self, targets: Sequence[Target], photo_port: int, photos: Sequence[Photo]) -> None:
        # Not forked: a program with threads may hold a lock of theirs.
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        arguments = (theirs, list(targets), photo_port, list(photos))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)

    def __enter__(self) -> "Watcher":
        self._process.start()
        self._ours.recv()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ours.close()
        self._process.join(PATIENCE_S)
        self._process.kill()

    def begin(self, limit_s: float) -> None:
        """Watch from now on; after ``limit_s`` seconds the services are killed, as a hang ends nobody's wait."""
        self._ours.send(limit_s)
        self._ours.recv()

    def end(self) -> Seen:
        """What was seen since ``begin``; waits for the last answers."""
        self._ours.send(None)
        seen: Seen = self._ours.recv()
        return seen


def _serve(pipe: Connection, targets: Sequence[Target], photo_port: int, photos: Sequence[Photo]) -> None:
    """The process's main function: watch between ``begin`` and ``end``, until the other side closes."""
    pipe.send(True)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            limit_s = pipe.recv()
            pipe.send(True)
            seen, is_over = Seen(), threading.Event()
            jobs: list[tuple[Callable[..., None], tuple[object, ...]]] = [
                (_ask_photos, (photo_port, photos)),
                *((_ask_livez, (target,)) for target in targets),
            ]
            threads = [threading.Thread(target=job, args=(seen, is_over, *rest)) for job, rest in jobs]
            for thread in threads:
                thread.start()
            _sample(seen, pipe, targets, limit_s)
            is_over.set()
            for thread in threads:
                thread.join()
            pipe.recv()
            pipe.send(seen)


def _sample(seen: Seen, pipe: Connection, targets: Sequence[Target], limit_s: float) -> None:
    """Read the memory until ``end`` comes, or until there is reason to kill the services."""
    trees = {target.name: (target, Tree(target.pid)) for target in targets}
    end = time.monotonic() + limit_s
    is_over = False
    while not is_over:
        # Once more after the end, however short it was.
        is_over = pipe.poll(SAMPLE_S)
        for name, (target, tree) in trees.items():
            megabytes = tree.megabytes()
            seen.peaks[name] = max(seen.peaks.get(name, 0.0), megabytes)
            if megabytes > target.abort_megabytes:
                seen.killed = f"{name} was killed at {megabytes:.0f} MB"
        if time.monotonic() > end:
            seen.killed = seen.killed or f"the services were killed, as the attack was not over after {limit_s:.0f} s"
        if seen.killed:
            for _, tree in trees.values():
                tree.kill()
            return


def _ask_photos(seen: Seen, is_over: threading.Event, port: int, photos: Sequence[Photo]) -> None:
    number = 0
    while not is_over.is_set():
        photo = photos[number % len(photos)]
        number += 1
        seconds, outcome = ask(port, "POST", "/predict", photo.body, photo.content_type)
        if not seen.killed:
            seen.photos.append(seconds)
            if outcome != "200":
                seen.failures.append(f"a small photo ({photo.name}): {outcome} after {seconds:.2f} s")
        is_over.wait(PHOTO_EVERY_S)


def _ask_livez(seen: Seen, is_over: threading.Event, target: Target) -> None:
    while not is_over.is_set():
        seconds, outcome = ask(target.http_port, "GET", "/livez")
        if not seen.killed:
            seen.livez.append(seconds)
            if outcome != "200":
                seen.failures.append(f"/livez of the {target.name}: {outcome} after {seconds:.2f} s")
        is_over.wait(LIVEZ_EVERY_S)


def ask(port: int, method: str, path: str, body: bytes = b"", content_type: str = "") -> tuple[float, str]:
    """One request on a connection of its own: the seconds until its answer is complete, and its status or the error."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body or None, {"Content-Type": content_type} if content_type else {})
        answer = connection.getresponse()
        answer.read()
        outcome = str(answer.status)
    except (OSError, http.client.HTTPException) as exc:
        outcome = type(exc).__name__
    finally:
        connection.close()
    return time.monotonic() - began, outcome
