"""The services as processes that can be killed, stopped and started again; a host name with addresses of our own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tools.service import PROJECT
from tools.system_packages import find, why_skipped

APP_SERVER = PROJECT / "app" / "preprocess_service" / "app" / "app_server.py"
MODEL_SERVER = PROJECT / "app" / "model_service" / "model_server.py"
MODELS = PROJECT / "prev_trained_models" / "CAT-DOG"
NGINX_CONF = PROJECT / "app" / "proxy" / "nginx.conf"

# Even where the machine is busy with much else.
START_S = 300.0
# Longer than either service takes to finish what is in flight.
STOP_S = 20.0
LOG_CHARACTERS = 20_000


class Missing(Exception):
    """This machine lacks what a case needs; the message says what."""


class NotReady(Exception):
    """A process ended before it was ready, or did not become so; the message holds its last lines."""


class Process:
    """A program that can be started again and again with the same command; its output goes to ``log``."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path, is_ready: Callable[[], bool]
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._environment = os.environ | environment
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"{self.command} was not started")
        return self._process

    def start(self) -> None:
        """Start it and return when it is ready; raises NotReady."""
        self.launch()
        end = time.monotonic() + START_S
        while not self._is_ready():
            if self.has_ended() or time.monotonic() > end:
                raise NotReady("".join(self.output().splitlines(keepends=True)[-10:]))
            time.sleep(0.02)

    def launch(self) -> None:
        """Start it without waiting for anything."""
        with self.log.open("ab") as output:
            # The terminal sends Ctrl-C to its whole group; in a session of its own it is ended by us, in order.
            self._process = subprocess.Popen(
                self.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL: gone at once, its connections reset."""
        self._running().kill()
        self._running().wait()

    def terminate(self) -> int:
        """SIGTERM, as Docker and systemd end a service; its exit status. Raises TimeoutExpired if it never ends."""
        self.ask_to_end()
        return self.wait()

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        self._running().terminate()

    def wait(self) -> int:
        """Wait for its end; its exit status. Raises TimeoutExpired if it does not come."""
        return self._running().wait(STOP_S)

    def pause(self) -> None:
        """SIGSTOP: it answers nothing, while its connections stay open and new ones are taken."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if not self.has_ended():
            self.resume()
            self._running().terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running().wait(STOP_S)
            self.kill()

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Stage:
    """Starts the services for one case, on free ports of this machine, and ends all of them when the block ends."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Stage":
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos_")))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def logs(self) -> dict[str, str]:
        """What each process wrote, by its name: the end of it."""
        files = sorted(self.folder.glob("*.log"))
        return {file.stem: file.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:] for file in files}

    def process(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        is_ready: Callable[[], bool],
    ) -> Process:
        process = Process(command, environment, self.folder / f"{name}.log", is_ready)
        self._stack.callback(process.end)
        return process

    def model_server(
        self, port: int, *flags: str, host: str = "127.0.0.1", rest_port: int | None = None, models: Path = MODELS
    ) -> Process:
        """An embedded model server, not yet started."""
        rest_port = rest_port or free_port(host)
        command: list[str | Path] = [
            *(sys.executable, MODEL_SERVER, f"--bind_address={host}", f"--port={port}"),
            *(f"--rest_api_port={rest_port}", "--model_name=CAT-DOG", f"--model_base_path={models}", *flags),
        ]
        return self.process(f"model_{host}", command, {}, lambda: answers(f"http://{host}:{rest_port}/readyz"))

    def app_server(
        self, model_host: str, model_port: int, port: int, prefix: Sequence[str] = (), **environment: str
    ) -> Process:
        """A preprocess service, not yet started; ready when it lives, be there a model server or not."""
        place = {"SERVICE_MODEL_HOST": model_host, "SERVICE_MODEL_PORT": str(model_port)}
        place |= {"SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(port), **environment}
        command: list[str | Path] = [*prefix, sys.executable, APP_SERVER]
        return self.process(f"app_{port}", command, place, lambda: answers(f"http://127.0.0.1:{port}/livez"))

    def nginx(self, port: int, upstreams: Sequence[int], rate: str = "10000r/s") -> Process:
        """Nginx with the shipped settings, of which only the addresses are others, and the `rate` at which each client
        may ask, since all load comes from one; raises Missing."""
        program = find("nginx")
        if program is None:
            raise Missing(why_skipped("nginx"))
        text = NGINX_CONF.read_text(encoding="utf-8")
        for shipped, ours in zip(("listen 8080", "127.0.0.1:7998", "127.0.0.1:7999"), (port, *upstreams), strict=True):
            if shipped not in text:
                raise ValueError(f"{NGINX_CONF} has no {shipped!r}")
            text = text.replace(shipped, f"{shipped.rstrip('0123456789')}{ours}")
        text = text.replace("rate=10r/s", f"rate={rate}")
        (self.folder / "nginx.conf").write_text(text, encoding="utf-8")
        command: list[str | Path] = [program, "-p", self.folder, "-c", self.folder / "nginx.conf", "-g", "daemon off;"]
        return self.process("nginx", command, {}, lambda: answers(f"http://127.0.0.1:{port}/livez"))


class Name:
    """A host name of our own and the addresses behind it, which may change while a process uses it.

    That process runs in a mount namespace in which another file lies over /etc/hosts (unshare(1), mount(8)): gRPC
    asks for names by itself, and that file and the network are the only places where it looks.
    """

    HOST = "model-servers"

    def __init__(self, stage: Stage, *addresses: str) -> None:
        self._file = stage.folder / "hosts"
        self.set(*addresses)
        mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
        self.prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(self._file)]
        if sys.platform != "linux" or subprocess.run([*self.prefix, "true"], capture_output=True).returncode:
            raise Missing("needs Linux, and to be allowed a mount namespace of its own (unshare)")

    def set(self, *addresses: str) -> None:
        """Change what is behind the name. In place: it is this very file that is laid over the other."""
        lines = ["127.0.0.1 localhost\n", *(f"{address} {self.HOST}\n" for address in addresses)]
        self._file.write_text("".join(lines), encoding="ascii")


def free_port(*hosts: str) -> int:
    """A port that is free on all of these addresses of this machine."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server((hosts[0] if hosts else "127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError):
                for host in hosts[1:]:
                    stack.enter_context(socket.create_server((host, port)))
                return port
    raise Missing(f"no port is free on all of {', '.join(hosts)}")


def answers(url: str) -> bool:
    """Whether a GET is answered with a success."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), direct.open(url, timeout=5):
        return True
    return False


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Let SIGTERM end this program as Ctrl-C does: with everything that it started."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
