"""Watches a pair during an attack: its memory, and the answers to other clients.

It is a process of its own, so that the attack's own CPU use does not delay it. It also kills the services if an attack
exceeds the limits for this machine.
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
# How often new child processes are looked for. This is slow, because it reads the list of all processes.
CHECK_S = 0.2
PHOTO_EVERY_S = 0.15
LIVEZ_EVERY_S = 0.1
# Longer than the time limit of any answer.
PATIENCE_S = 15.0


@dataclass(frozen=True)
class Target:
    """A service: its first process, its HTTP port, and the memory above which it is killed."""

    name: str
    pid: int
    http_port: int
    abort_megabytes: float


@dataclass(frozen=True)
class Photo:
    """A small photo with a name, as it is sent."""

    name: str
    body: bytes
    content_type: str


@dataclass
class Seen:
    """The measurements during an attack: megabytes by service, seconds of each answer, failures."""

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
    """Return two sizes in bytes: the proportional share of anonymous pages, and the resident pages of files.

    Anonymous pages are shared only within a process tree. The pages of files are programs and libraries, which all
    processes share; those of one service use the same ones (proc(5), smaps_rollup). On systems other than Linux: the
    memory of this process alone, and 0.
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
    """The processes of a service: the first, and all its descendants."""

    def __init__(self, pid: int) -> None:
        self._first = psutil.Process(pid)
        self._children: list[psutil.Process] = []
        self._looked = 0.0

    def megabytes(self) -> float:
        """Return the resident memory in 10^6 bytes. Pages that the processes share count once."""
        now = time.monotonic()
        if now - self._looked > CHECK_S:
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
        """Return the CPU seconds so far, with processes that have ended."""
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
    """Controls the watching process. It is a context manager and ends the process after the block."""

    def __init__(self, targets: Sequence[Target], photo_port: int, photos: Sequence[Photo]) -> None:
        # Not forked: another thread of this program could hold a lock at that time.
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
        """Start to watch. After ``limit_s`` seconds the services are killed, so that no hang blocks the suite."""
        self._ours.send(limit_s)
        self._ours.recv()

    def end(self) -> Seen:
        """Return the measurements since ``begin``, after the last answers."""
        self._ours.send(None)
        seen: Seen = self._ours.recv()
        return seen


def _serve(pipe: Connection, targets: Sequence[Target], photo_port: int, photos: Sequence[Photo]) -> None:
    """The main function of the process: watch between ``begin`` and ``end``, until the pipe is closed."""
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
    """Measure memory until ``end`` is called, or until a limit is exceeded and the services are killed."""
    trees = {target.name: (target, Tree(target.pid)) for target in targets}
    end = time.monotonic() + limit_s
    is_over = False
    while not is_over:
        # Once more after the end, also if the attack was very short.
        is_over = pipe.poll(SAMPLE_S)
        for name, (target, tree) in trees.items():
            megabytes = tree.megabytes()
            seen.peaks[name] = max(seen.peaks.get(name, 0.0), megabytes)
            if megabytes > target.abort_megabytes:
                seen.killed = f"{name} was killed at {megabytes:.0f} MB"
        if time.monotonic() > end:
            seen.killed = seen.killed or f"the services were killed: the attack took more than {limit_s:.0f} s"
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
    """Send one request on a new connection; return the seconds to the complete answer, and the status or error."""
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
