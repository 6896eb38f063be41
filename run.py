#!/usr/bin/env python3
"""The project's commands, for people and for CI. This program needs nothing but Python.

    python run.py serve    start the model server and the preprocess service
    python run.py test     run all tests but the slow ones
    python run.py import   bring a model of your own into prev_trained_models (--help)
    python run.py train    train a model with your own photos (--help)
    python run.py evaluate measure a model, or the running service, on labelled photos (--help)
    python run.py bench    measure throughput, latency and cost beside other servers (--help)
    python run.py chaos    break or attack the running services, and report the results (--help)
    python run.py check    check style, types and layers
    python run.py e2e      run the slow tests; with Docker, build the containers and test them;
                           --kubernetes: instead, test what is lost on a cluster when pods and nodes come and go,
                           and follow chapter 9 of the course
    python run.py lock     write the lock files after a change in a requirements file
    python run.py install  install all packages into .venv, for an editor and for the programs in tools/

The first command creates `.venv`. Each command installs the packages that it needs when it is first used.
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
from launcher.services import canary_versions, model_names, pair, wait_until_ready
from tools import system_packages

COMPOSE_FILE = ROOT / "app" / "docker-compose.embedded.yml"
# An option of unit_test.runner: how many files run at the same time.
SEVERAL = f"--processes={min(4, os.cpu_count() or 1)}"
# Commands with options of their own, and the modules that read these options.
PROGRAMS = {
    "import": "tools.importing",
    "train": "tools.training.train",
    "evaluate": "tools.evaluation.evaluate",
    "bench": "tools.bench",
    "chaos": "tools.chaos",
}
# These run in the caller's own folder, which their paths are relative to.
WITH_OWN_FILES = ("import", "train", "evaluate")


def main(arguments: Sequence[str]) -> int:
    command = next(iter(arguments), "")
    # The module of the command parses the rest of the line.
    passed_on = list(arguments[1:]) if command in PROGRAMS else []
    commands = {"serve": serve, "test": test, "check": check, "e2e": e2e, "lock": lock, "install": install}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*commands, *PROGRAMS])
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        default=[],
        help="serve: a folder in prev_trained_models (default: MODEL_NAME, or CAT-DOG); may be given several times",
    )
    parser.add_argument(
        "--canary",
        metavar="MODEL/VERSION=SHARE",
        action="append",
        default=[],
        help="serve: a version that answers a share of the photos, e.g. CAT-DOG/8=10%%; at most one of each model",
    )
    parser.add_argument("--port", type=_port, default=7998, help="serve: HTTP port (default 7998)")
    parser.add_argument("--grpc-port", type=_port, default=8500, help="serve: model server's gRPC port (default 8500)")
    parser.add_argument("--rest-port", type=_port, default=8501, help="serve: model server's REST port (default 8501)")
    parser.add_argument("--kubernetes", action="store_true", help="e2e: on the cluster that kubectl reaches")
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
    """Start both services. Stop both on Ctrl-C, or when one of them ends."""
    # Before packages are installed, so that a wrong name is reported at once.
    models = model_names(options.model)
    sent = os.environ.get("SERVICE_CANARY", "").split(",")
    canaries = options.canary or [canary.strip() for canary in sent if canary.strip()]
    canary_versions(models, canaries)
    set_up(SERVE, "serve")
    http_port, grpc_port, rest_port = options.port, options.grpc_port, options.rest_port
    with pair(http_port, grpc_port, rest_port, models, canaries) as processes:
        print(f"\n  Try it    http://localhost:{http_port}/")
        print(f"  Predict   POST http://localhost:{http_port}/predict")
        for model in models:
            if len(models) > 1:
                print(f"  Predict   POST http://localhost:{http_port}/models/{model}/predict")
            print(f"  Model     gRPC localhost:{grpc_port}, REST http://localhost:{rest_port}/v1/models/{model}")
        print("\n  Ctrl-C stops both services.\n", flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    raise Problem("a service has ended; see its output above")


def test(options: argparse.Namespace) -> int:
    """Run the tests of `unit_test`. A pair on free ports is started for those that need running services."""
    set_up(ALL, "test")
    print(system_packages.report(), end="", flush=True)
    http_port, grpc_port, rest_port = free_ports(3)
    with pair(http_port, grpc_port, rest_port, ["CAT-DOG"]):
        return run_tests(["*test*.py", SEVERAL], http_port)


def install(options: argparse.Namespace) -> int:
    """Install all packages."""
    set_up(ALL, "install")
    print(f"All packages are installed. Their Python is {python()}")
    return 0


def run_program(command: str, arguments: Sequence[str]) -> int:
    """Run one of `PROGRAMS` after all packages are installed."""
    set_up(ALL, command)
    if command in WITH_OWN_FILES:
        # Modules are found in the project's folder alone.
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.call([python(), "-P", "-m", PROGRAMS[command], *arguments], env=environment)
    return subprocess.call([python(), "-m", PROGRAMS[command], *arguments], cwd=ROOT)


def check(options: argparse.Namespace) -> int:
    """Check style, types and layers."""
    set_up(CHECK, "check")
    failed = 0
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        failed |= subprocess.call([python(), "-m", *command], cwd=ROOT)
    # The layers are in pyproject.toml. PYTHONPATH is needed to find the packages.
    lint = [python(), "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    failed |= subprocess.call(lint, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "app")})
    return failed


def e2e(options: argparse.Namespace) -> int:
    """Run the slow tests, and those of the containers; or, with --kubernetes, what needs a cluster."""
    set_up(ALL, "e2e")
    if options.kubernetes:
        failed = subprocess.call([python(), "-m", "tools.kubernetes_events"], cwd=ROOT)
        chapter = ["-m", "tools.course.follow", "pt", "--chapters", "9", "--here"]
        return failed | subprocess.call([python(), *chapter], cwd=ROOT)
    print(system_packages.report(), end="", flush=True)
    failed = run_tests(["*_slow.py", SEVERAL])
    compose = compose_command()
    if compose is None:
        print("\n##  SKIPPED: the containers need Docker with Compose: https://docs.docker.com/get-docker/  ##\n")
        return failed
    return failed | containers(compose)


def containers(compose: Sequence[str]) -> int:
    """Build both images, start them, run the tests for containers, and stop them."""
    # With a project name of its own, so that it does not replace running containers of this project.
    compose = [*compose, "--project-name=cat-dog-e2e", "-f", str(COMPOSE_FILE)]
    environment = os.environ | {"SERVICE_PORT": str(free_ports(1)[0])}
    try:
        if subprocess.call([*compose, "up", "--build", "--detach"], cwd=ROOT, env=environment):
            raise Problem("the containers could not be built or started; see the output above")
        wait_until_ready(f"http://localhost:{environment['SERVICE_PORT']}/readyz", [])
        port = int(environment["SERVICE_PORT"])
        # The last suite lets the services crash.
        suites = [f"{suite}_test.py" for suite in ("localhost", "formats", "containers")]
        return run_tests(suites, port, TEST_COMPOSE=shlex.join(compose))
    except Problem:
        subprocess.call([*compose, "logs", "--tail=50"], cwd=ROOT, env=environment)
        raise
    finally:
        subprocess.call([*compose, "down", "--volumes"], cwd=ROOT, env=environment)


def lock(options: argparse.Namespace) -> int:
    """Write the lock files from the requirements files, and install what they lock."""
    set_up(ALL, "lock")
    if failed := subprocess.call([python(), "-m", "tools.lock"], cwd=ROOT):
        return failed
    # The message modules come from the TensorFlow version that is locked now.
    set_up(ALL, "lock")
    return subprocess.call([python(), str(ROOT / "tools" / "message_descriptors.py")])


def run_tests(patterns: Sequence[str], http_port: int | None = None, **variables: str) -> int:
    """Run the tests in files of these patterns, in this order, with the service on this port if they need one."""
    environment = os.environ | ({"TEST_URL": f"http://localhost:{http_port}"} if http_port else {}) | variables
    command = [python(), "-W", "error", "-m", "unit_test.runner", *patterns]
    return subprocess.call(command, cwd=ROOT, env=environment)


def compose_command() -> list[str] | None:
    """How Compose is called here; None if there is none, or no Docker engine answers."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        return None
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
