#!/usr/bin/env python3
"""The project's commands, for people and for CI. Needs nothing but Python.

    python run.py serve    start the model server and the preprocess service, and say where they are
    python run.py test     run every test
    python run.py import   bring a model of your own into prev_trained_models (--help)
    python run.py train    train a model (--help)
    python run.py bench    measure throughput, latency and cost beside what one would use instead (--help)
    python run.py chaos    break everything around the services while they work, or attack them, and count what came of
                           it (--help)
    python run.py check    lint and check types
    python run.py e2e      build the containers, try them, and whether they are closed and come back
    python run.py lock     write the lock files anew, after a pin in a requirements file has changed
    python run.py install  install everything into .venv: for an editor, and for the programs in tools/

The first command makes `.venv` and installs what it needs; another command adds what it needs when it is first used.
`serve` and `check` work with Python 3.11 to 3.14, the others with 3.11 to 3.13: TensorFlow has no build for 3.14.
"""

from __future__ import annotations  # so that an old Python gets as far as being told that it is one

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from launcher import Problem
from launcher.environment import ALL, CHECK, ROOT, SERVE, python, set_up
from launcher.ports import free_ports
from launcher.services import model_name, pair, wait_until_ready

COMPOSE_FILE = ROOT / "app" / "docker-compose.embedded.yml"
# Commands that have options of their own, and the programs that take them.
PROGRAMS = {
    "import": "tools.importing",
    "train": "tools.training.train",
    "bench": "tools.bench",
    "chaos": "tools.chaos",
}


def main(arguments: Sequence[str]) -> int:
    command = next(iter(arguments), "")
    # The rest of the line is the program's own.
    passed_on = list(arguments[1:]) if command in PROGRAMS else []
    commands = {"serve": serve, "test": test, "check": check, "e2e": e2e, "lock": lock, "install": install}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*commands, *PROGRAMS])
    parser.add_argument(
        "--model", metavar="NAME", help="serve: a folder in prev_trained_models (default: MODEL_NAME, or CAT-DOG)"
    )
    parser.add_argument("--port", type=_port, default=7998, help="serve: where to listen for HTTP (default 7998)")
    parser.add_argument("--grpc-port", type=_port, default=8500, help="serve: the model server's gRPC (default 8500)")
    parser.add_argument("--rest-port", type=_port, default=8501, help="serve: the model server's REST (default 8501)")
    options = parser.parse_args(arguments[: len(arguments) - len(passed_on)])
    try:
        if command in PROGRAMS:
            return run_program(command, passed_on)
        return commands[options.command](options)
    except Problem as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return port


def serve(options: argparse.Namespace) -> int:
    """Start the pair, and stop both on Ctrl-C or when either ends."""
    # What can't be served is said at once, not after packages were installed.
    model = model_name(options.model)
    set_up(SERVE, "serve")
    http_port, grpc_port, rest_port = options.port, options.grpc_port, options.rest_port
    with pair(http_port, grpc_port, rest_port, model) as processes:
        print(f"\n  Try it    http://localhost:{http_port}/")
        print(f"  Predict   POST http://localhost:{http_port}/predict")
        print(f"  Model     gRPC localhost:{grpc_port}, REST http://localhost:{rest_port}/v1/models/{model}")
        print("\n  Ctrl-C stops both.\n", flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    raise Problem("a service ended by itself; its last lines stand above")


def test(options: argparse.Namespace) -> int:
    """Run all of `unit_test`, the localhost suite against a pair on free ports included."""
    set_up(ALL, "test")
    http_port, grpc_port, rest_port = free_ports(3)
    with pair(http_port, grpc_port, rest_port, "CAT-DOG"):
        return run_tests("*test*.py", http_port)


def install(options: argparse.Namespace) -> int:
    """Install everything."""
    set_up(ALL, "install")
    print(f"Everything is installed. Its Python is {python()}")
    return 0


def run_program(command: str, arguments: Sequence[str]) -> int:
    """Run one of `PROGRAMS` with everything installed."""
    set_up(ALL, command)
    if command == "import":
        # In the caller's own folder, which its paths are relative to; modules are found in the project's alone.
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.call([python(), "-P", "-m", PROGRAMS[command], *arguments], env=environment)
    return subprocess.call([python(), "-m", PROGRAMS[command], *arguments], cwd=ROOT)


def check(options: argparse.Namespace) -> int:
    """Lint and check types."""
    set_up(CHECK, "check")
    failed = 0
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        failed |= subprocess.call([python(), "-m", *command], cwd=ROOT)
    # Which package may import which: pyproject.toml. The packages are found in app/.
    lint = [python(), "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    failed |= subprocess.call(lint, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "app")})
    return failed


def e2e(options: argparse.Namespace) -> int:
    """Build both images, start them as a pair, try it as its users and as an intruder would, take it down."""
    set_up(ALL, "e2e")
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
    """Lock what the requirements files say now, and install it."""
    set_up(ALL, "lock")
    if failed := subprocess.call([python(), "-m", "tools.lock"], cwd=ROOT):
        return failed
    # From the TensorFlow that is locked now.
    set_up(ALL, "lock")
    return subprocess.call([python(), str(ROOT / "tools" / "message_modules.py"), "extract"])


def run_tests(pattern: str, http_port: int, **variables: str) -> int:
    environment = os.environ | {"TEST_URL": f"http://localhost:{http_port}"} | variables
    command = [python(), "-W", "error", "-m", "unittest", "discover", "-s", "unit_test", "-t", ".", "-p", pattern]
    return subprocess.call(command, cwd=ROOT, env=environment)


def compose_command() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    raise Problem("e2e needs Docker with Compose: https://docs.docker.com/get-docker/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
