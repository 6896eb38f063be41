"""Sends all kinds of requests for a long time, and checks that neither service leaks memory, files or threads.

    python run.py chaos --soak 50000

After each tenth of the requests all connections are closed, and resident memory, open files and threads of both
services are measured. The first tenth is a warm-up. Promises: after it, memory grows by at most 5 %, no file or thread
more is open at the end, and every answer has the right status.
"""

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import BytesIO

import psutil
from PIL import Image
from tqdm import tqdm

from tools.chaos.stage import Process, Stage, free_port
from tools.load import FORM_TYPE, PHOTOS, as_form, as_json

CLIENTS = 4
PARTS = 10
MAY_GROW = 1.05
# Time for the services to release what a closed connection used.
SETTLE_S = 3.0
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Kind:
    """A kind of request: its weight in the mixture, its content, and the allowed statuses."""

    name: str
    weight: float
    statuses: tuple[int, ...]
    body: bytes = b""
    content_type: str = "application/json"
    path: str = "/predict"
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    # For a client that sends less than it announces, or does not wait for the answer.
    leaves: Callable[[socket.socket, bytes], None] | None = None


def kinds() -> list[Kind]:
    """Return the mixture. 503 is not allowed: so few clients must never be rejected."""
    photo = PHOTOS[0].read_bytes()
    batch = json.dumps({"images_b64": [json.loads(as_json(one.read_bytes()))["image_b64"] for one in PHOTOS]}).encode()
    bomb = BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    answered = [
        kind
        for one in PHOTOS
        for kind in (
            Kind("JSON", 6, (200,), as_json(one.read_bytes())),
            Kind("raw", 6, (200,), one.read_bytes(), "image/jpeg"),
            Kind("form", 3, (200,), as_form(one.read_bytes()), FORM_TYPE),
        )
    ]
    return [
        *answered,
        Kind("batch", 2, (200,), batch, path="/predict/batch"),
        Kind("broken picture", 8, (400,), photo[: len(photo) // 2] + bytes(999), "image/jpeg"),
        Kind("no picture", 4, (400, 415), b"%PDF-1.7 " + bytes(5000), "application/octet-stream"),
        Kind("broken base64", 4, (400,), b'{"image_b64": "\\u00e4!!"}'),
        Kind("no JSON", 4, (422,), b'{"image_b64": '),
        Kind("too many pixels", 4, (413,), bomb.getvalue(), "image/png"),
        Kind("body too large", 4, (413,), headers=(("Content-Length", "30000000"),)),
        Kind("no such type", 2, (415,), photo, "text/plain"),
        Kind("not found", 4, (404,), path="/nothing/here", method="GET"),
        Kind("wrong method", 1, (405,), path="/predict", method="DELETE"),
        Kind("page", 1, (200,), path="/", method="GET"),
        Kind("ready", 1, (200,), path="/readyz", method="GET"),
        Kind("impatient", 2, (200, 504), photo, "image/jpeg", headers=(("X-Request-Timeout-Ms", "5"),)),
        Kind("gone before the answer", 4, (), photo, "image/jpeg", leaves=_leave_before_the_answer),
        Kind("gone amid the body", 4, (), photo, "image/jpeg", leaves=_leave_amid_the_body),
    ]


def _leave_before_the_answer(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    # Close with a reset, as when a process is killed (socket(7), SO_LINGER).
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _leave_amid_the_body(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request[: len(request) // 2])


@dataclass
class Sample:
    """What a process uses: resident megabytes, open files with sockets, threads."""

    megabytes: float
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Sample":
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())


@dataclass
class Diary:
    """The samples of each service after each part, and the number of answers by kind and status."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    undeserved: Counter[str] = field(default_factory=Counter)
    is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, kind: Kind, status: int | str) -> None:
        with self._lock:
            if isinstance(status, int):
                self.answers[kind.name, status] += 1
            if kind.statuses and status not in kind.statuses:
                self.undeserved[f"{kind.name}: {status}"] += 1

    def broken(self) -> list[str]:
        """Return the broken promises."""
        found = [f"{count} wrong answers: {text}" for text, count in self.undeserved.items()]
        for name, samples in self.samples.items():
            first, last = samples[0], samples[-1]
            if last.megabytes > MAY_GROW * first.megabytes:
                found.append(f"{name}: memory grew from {first.megabytes:.0f} to {last.megabytes:.0f} MB")
            if last.files > first.files or last.threads > first.threads:
                found.append(f"{name}: more files or threads than before, {last} after {first}")
        return found


def run(count: int, seed: int = 1) -> Diary:
    """Send ``count`` requests to a new pair, or until Ctrl-C."""
    diary, chance, mixture = Diary(), random.Random(seed), kinds()
    with Stage() as stage, tqdm(total=count, unit="request", desc="soak", mininterval=1) as progress:
        port, grpc_port = free_port(), free_port()
        services = {
            "preprocess service": stage.app_server("127.0.0.1", grpc_port, port),
            "embedded model server": stage.model_server(grpc_port),
        }
        for process in services.values():
            process.start()
        for _ in range(PARTS):
            chosen = chance.choices(mixture, [kind.weight for kind in mixture], k=count // PARTS)
            with ThreadPoolExecutor(CLIENTS) as clients:
                parts = [chosen[number::CLIENTS] for number in range(CLIENTS)]
                sending = [clients.submit(send_all, port, part, diary, progress) for part in parts]
                try:
                    wait(sending)
                except KeyboardInterrupt:
                    diary.is_over.set()
            sample(services, diary, progress)
            if diary.is_over.is_set():
                break
    return diary


def sample(services: dict[str, Process], diary: Diary, progress: "tqdm[None]") -> None:
    time.sleep(SETTLE_S)
    for name, process in services.items():
        samples = diary.samples.setdefault(name, [])
        samples.append(Sample.of(process.pid))
        progress.write(f"after {progress.n} requests, {name}: {samples[-1]}")


def send_all(port: int, chosen: list[Kind], diary: Diary, progress: "tqdm[None]") -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        for kind in chosen:
            if diary.is_over.is_set():
                break
            try:
                diary.note(kind, leave(port, kind) if kind.leaves else send(connection, kind))
            except (OSError, http.client.HTTPException) as exc:
                connection.close()
                diary.note(kind, f"{type(exc).__name__}: {exc}")
            progress.update()


def send(connection: http.client.HTTPConnection, kind: Kind) -> int:
    """Send one request, read the answer, and return its status."""
    headers = dict(kind.headers)
    if kind.method == "POST":
        headers["Content-Type"] = kind.content_type
    connection.request(kind.method, kind.path, kind.body or None, headers)
    answer = connection.getresponse()
    answer.read()
    if "Content-Length" in headers:
        # The announced body is never sent.
        connection.close()
    return answer.status


def leave(port: int, kind: Kind) -> int:
    """Send the beginning of a request and disconnect. Return 0, because there is no answer."""
    head = f"POST {kind.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind.content_type}\r\n"
    request = f"{head}Content-Length: {len(kind.body)}\r\n\r\n".encode() + kind.body
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        if kind.leaves:
            kind.leaves(connection, request)
    return 0
