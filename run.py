#!/usr/bin/env python3
"""The one door to the project, for people and for CI. Needs nothing but Python.

    python run.py serve    start the model server and the preprocess service, and say where they are
    python run.py test     run every test
    python run.py bench    measure throughput, latency and cost beside what one would use instead (--help)
    python run.py chaos    break everything around the services while they work, or attack them, and count what came of
                           it (--help)
    python run.py check    lint and check types
    python run.py e2e      build the containers, try them, and whether they are closed and come back
    python run.py lock     write the lock files anew, after a pin in a requirements file has changed

The first command makes `.venv` and installs what requirements.lock holds; later ones start at once.
"""

from __future__ import annotations  # so that an old Python gets as far as being told that it is one

import argparse
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
PREPROCESS_SERVICE = ROOT / "app" / "preprocess_service" / "app"
MODEL_SERVICE = ROOT / "app" / "model_service"
# Every package with its version and hash, those that only packages ask for too.
LOCK = ROOT / "requirements.lock"
COMPOSE_FILE = ROOT / "app" / "docker-compose.embedded.yml"
# TensorFlow has wheels for these.
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
MODEL_NAME = "CAT-DOG"
START_SECONDS = 60
STOP_SECONDS = 10


class Problem(Exception):
    """Something the user can mend; the message says how."""


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] in (["chaos"], ["bench"]):
        # They have options of their own.
        arguments, passed_on = arguments[:1], arguments[1:]
    else:
        passed_on = []
    commands = {"serve": serve, "test": test, "check": check, "e2e": e2e, "lock": lock, "chaos": chaos, "bench": bench}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--port", type=int, default=7998, help="serve: where to listen for HTTP (default 7998)")
    options = parser.parse_args(arguments)
    options.passed_on = passed_on
    try:
        return commands[options.command](options)
    except Problem as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def serve(options: argparse.Namespace) -> int:
    """Start the pair, and stop both on Ctrl-C or when either ends."""
    set_up()
    with pair(http_port=options.port, grpc_port=8500, rest_port=8501) as processes:
        print(f"\n  Try it    http://localhost:{options.port}/")
        print(f"  Predict   POST http://localhost:{options.port}/predict")
        print("  Model     gRPC localhost:8500, REST http://localhost:8501/v1/models/" + MODEL_NAME)
        print("\n  Ctrl-C stops both.\n", flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    raise Problem("a service ended by itself; its last lines stand above")


def test(options: argparse.Namespace) -> int:
    """Run all of `unit_test`, the localhost suite against a pair on free ports included."""
    set_up()
    ports = free_ports(3)
    with pair(*ports):
        return run_tests("*test*.py", ports[0])


def chaos(options: argparse.Namespace) -> int:
    set_up()
    return subprocess.call([PYTHON, "-m", "tools.chaos", *options.passed_on], cwd=ROOT)


def bench(options: argparse.Namespace) -> int:
    set_up()
    return subprocess.call([PYTHON, "-m", "tools.bench", *options.passed_on], cwd=ROOT)


def check(options: argparse.Namespace) -> int:
    set_up()
    failed = 0
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        failed |= subprocess.call([PYTHON, "-m", *command], cwd=ROOT)
    # Which package may import which: pyproject.toml. The packages are found in app/.
    lint = [PYTHON, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    failed |= subprocess.call(lint, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "app")})
    return failed


def e2e(options: argparse.Namespace) -> int:
    """Build both images, start them as a pair, try it as its users and as an intruder would, take it down."""
    set_up()
    # A project of its own, so that a pair that somebody has running stays.
    compose = [*compose_command(), "--project-name=cat-dog-e2e", "-f", str(COMPOSE_FILE)]
    environment = os.environ | {"SERVICE_PORT": str(free_ports(1)[0])}
    try:
        if subprocess.call([*compose, "up", "--build", "--detach"], cwd=ROOT, env=environment):
            raise Problem("the containers could not be built or started; the reason stands above")
        wait_until_ready(f"http://localhost:{environment['SERVICE_PORT']}/readyz", [])
        port = int(environment["SERVICE_PORT"])
        # The last one lets the services crash.
        suites = ("localhost", "formats", "containers")
        return max(run_tests(f"{suite}_test.py", port, TEST_COMPOSE=shlex.join(compose)) for suite in suites)
    except Problem:
        subprocess.call([*compose, "logs", "--tail=50"], cwd=ROOT, env=environment)
        raise
    finally:
        subprocess.call([*compose, "down", "--volumes"], cwd=ROOT, env=environment)


def lock(options: argparse.Namespace) -> int:
    """Lock what the requirements files say now; the next command installs it."""
    set_up()
    return subprocess.call([PYTHON, "-m", "tools.lock"], cwd=ROOT)


def set_up() -> None:
    """Make `.venv` and install the locked requirements, once for each state of the lock."""
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise Problem(
            f"this is Python {sys.version_info[0]}.{sys.version_info[1]}; TensorFlow needs "
            f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}. "
            "Install one and start this with it, for example: python3.12 run.py serve"
        )
    # The Python and the lock that the last complete installation was made with.
    stamp = VENV / "installed.txt"
    installed = stamp.read_text(encoding="utf-8") if stamp.is_file() else ""
    wanted = f"{sys.version}\n{hashlib.sha256(LOCK.read_bytes()).hexdigest()}"
    if installed == wanted:
        return
    print(f"Setting up {VENV.name}: once, some minutes and 2.5 GB of disk, most of it TensorFlow.", flush=True)
    # What another Python made, or what was broken off, is made anew; what only has other pins is brought up to them.
    try:
        venv.create(VENV, with_pip=True, clear=not installed.startswith(f"{sys.version}\n"))
    except (OSError, ValueError, subprocess.CalledProcessError) as exc:
        raise Problem(
            f"{VENV} can't be made ({exc}); on Debian and Ubuntu this needs: apt install python3-venv"
        ) from exc
    # Only what the lock names, and only files with the hash that it gives; wheels run no code while they are installed.
    install = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
    if subprocess.call([*install, "--only-binary=:all:", "-r", str(LOCK)]):
        raise Problem("pip could not install requirements.lock; its last lines stand above. Mend that and start again")
    stamp.write_text(wanted, encoding="utf-8")


@contextlib.contextmanager
def pair(http_port: int, grpc_port: int, rest_port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Both services on these ports of 127.0.0.1, from when a prediction works until the block ends."""
    for port in (http_port, grpc_port, rest_port):
        refuse_taken(port)
    model_server = [
        str(MODEL_SERVICE / "model_server.py"),
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--bind_address=127.0.0.1",
        f"--model_name={MODEL_NAME}",
        f"--model_base_path={ROOT / 'prev_trained_models' / MODEL_NAME}",
    ]
    place = {"SERVICE_MODEL_HOST": "127.0.0.1", "SERVICE_MODEL_PORT": str(grpc_port)}
    place |= {"SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(http_port)}
    processes: list[subprocess.Popen[bytes]] = []
    with stop_on_sigterm():
        try:
            processes.append(start(model_server, {}))
            # In this order, so that a first look at the log shows no warnings of a model server that is still loading.
            wait_until_ready(f"http://127.0.0.1:{rest_port}/readyz", processes)
            processes.append(start([str(PREPROCESS_SERVICE / "app_server.py")], place))
            wait_until_ready(f"http://127.0.0.1:{http_port}/readyz", processes)
            yield processes
        finally:
            # The front first: it lets go of the requests that it has, and those need the model.
            for process in reversed(processes):
                stop(process)


def start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # The terminal sends Ctrl-C to its whole group; the services are not in it, so that we stop them in order.
    windows_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(
        [PYTHON, *command],
        env=os.environ | environment,
        start_new_session=os.name != "nt",
        creationflags=windows_group,
    )


def wait_until_ready(address: str, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + START_SECONDS
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            raise Problem("a service could not start; its last lines stand above")
        with contextlib.suppress(OSError), direct.open(address, timeout=5):
            return
        time.sleep(0.1)
    raise Problem(f"the pair was not ready within {START_SECONDS} s; its last lines stand above")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process the way Ctrl-C does, so that it never leaves the services behind."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def run_tests(pattern: str, http_port: int, **variables: str) -> int:
    environment = os.environ | {"TEST_URL": f"http://localhost:{http_port}"} | variables
    command = [PYTHON, "-W", "error", "-m", "unittest", "discover", "-s", "unit_test", "-t", ".", "-p", pattern]
    return subprocess.call(command, cwd=ROOT, env=environment)


def refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Problem(f"port {port} is taken; stop what listens there" + " or use --port" * (port == 7998))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        # All held at once, so that they differ.
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def compose_command() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    raise Problem("e2e needs Docker with Compose: https://docs.docker.com/get-docker/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
