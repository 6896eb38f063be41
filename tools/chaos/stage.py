"""The services as processes that can be killed, paused and restarted, and a host name with changing addresses."""

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

# Long enough for a busy machine.
START_S = 300.0
# Longer than either service takes to finish its requests.
STOP_S = 20.0
LOG_CHARACTERS = 20_000


class Missing(Exception):
    """This machine lacks something that a case needs; the message says what."""


class NotReady(Exception):
    """A process ended, or did not become ready in time; the message has its last lines."""


class Process:
    """A program that can be started several times with the same command; its output is appended to ``log``."""

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
        """Start it and wait until it is ready; raises NotReady."""
        self.launch()
        end = time.monotonic() + START_S
        while not self._is_ready():
            if self.has_ended() or time.monotonic() > end:
                raise NotReady("".join(self.output().splitlines(keepends=True)[-10:]))
            time.sleep(0.02)

    def launch(self) -> None:
        """Start it without waiting."""
        with self.log.open("ab") as output:
            # The terminal sends Ctrl-C to its whole process group. In its own session the process is stopped only by
            # us.
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
        """Send SIGKILL: it ends at once and its connections are reset."""
        self._running().kill()
        self._running().wait()

    def terminate(self) -> int:
        """Send SIGTERM, as Docker and systemd do; return the exit status. Raises TimeoutExpired if it does not end."""
        self.ask_to_end()
        return self.wait()

    def ask_to_end(self) -> None:
        """Send SIGTERM without waiting."""
        self._running().terminate()

    def wait(self) -> int:
        """Wait for its end and return the exit status. Raises TimeoutExpired if it does not end."""
        return self._running().wait(STOP_S)

    def pause(self) -> None:
        """Send SIGSTOP: it does not answer, but connections stay open and new ones are accepted by the system."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the process in any state."""
        if not self.has_ended():
            self.resume()
            self._running().terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running().wait(STOP_S)
            self.kill()

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Stage:
    """Starts the services of a case on free ports, and ends all of them after the block."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Stage":
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos_")))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def logs(self) -> dict[str, str]:
        """Return the end of each process's output, by name."""
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
        """Return an embedded model server that is not started yet."""
        rest_port = rest_port or free_port(host)
        command: list[str | Path] = [
            *(sys.executable, MODEL_SERVER, f"--bind_address={host}", f"--port={port}"),
            *(f"--rest_api_port={rest_port}", "--model_name=CAT-DOG", f"--model_base_path={models}", *flags),
        ]
        return self.process(f"model_{host}", command, {}, lambda: answers(f"http://{host}:{rest_port}/readyz"))

    def app_server(
        self, model_host: str, model_port: int, port: int, prefix: Sequence[str] = (), **environment: str
    ) -> Process:
        """Return a preprocess service that is not started yet. It becomes ready with or without a model server."""
        place = {"SERVICE_MODEL_HOST": model_host, "SERVICE_MODEL_PORT": str(model_port)}
        place |= {"SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(port), **environment}
        command: list[str | Path] = [*prefix, sys.executable, APP_SERVER]
        return self.process(f"app_{port}", command, place, lambda: answers(f"http://127.0.0.1:{port}/livez"))

    def nginx(self, port: int, upstreams: Sequence[int], rate: str = "10000r/s") -> Process:
        """Return nginx with the shipped configuration and other addresses. ``rate`` is the limit per client, high
        here because all load comes from one client. Raises Missing."""
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
    """A host name and its addresses, which can change while a process uses the name.

    The process runs in a mount namespace with another file in place of /etc/hosts (unshare(1), mount(8)). gRPC resolves
    names itself, and reads only this file and the network.
    """

    HOST = "model-servers"

    def __init__(self, stage: Stage, *addresses: str) -> None:
        self._file = stage.folder / "hosts"
        self.set(*addresses)
        mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
        self.prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(self._file)]
        if sys.platform != "linux" or subprocess.run([*self.prefix, "true"], capture_output=True).returncode:
            raise Missing("needs Linux and the right to create a mount namespace (unshare)")

    def set(self, *addresses: str) -> None:
        """Change the addresses. The file is rewritten in place, because a new file would not be the mounted one."""
        lines = ["127.0.0.1 localhost\n", *(f"{address} {self.HOST}\n" for address in addresses)]
        self._file.write_text("".join(lines), encoding="ascii")


def free_port(*hosts: str) -> int:
    """Return a port that is free on all of these addresses of this machine."""
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
    """Return whether a GET succeeds."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), direct.open(url, timeout=5):
        return True
    return False


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C, so that all started processes are ended."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
