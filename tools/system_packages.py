"""Programs that some tests use and pip does not install: which, from which package of Debian, and what needs them.

    python3 -m tools.system_packages              list the missing programs and the tests that are skipped without them
    python3 -m tools.system_packages --missing    print their Debian packages, for apt-get install

The tests ask `find`. Needs nothing but Python: `.ci/run` and `run.py` read it before anything is installed.
"""

from __future__ import annotations  # for an old Python, which is told by run.py that it is one

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

# Debian has programs for administrators there, which is on root's path only.
FOLDERS = ("/usr/sbin", "/usr/local/sbin")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def find(program: str) -> str | None:
    """The path of a program; None where this machine has none."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *FOLDERS]))


def _has_browser() -> bool:
    # Elsewhere Playwright knows where Chrome and Edge are: not on the path.
    return sys.platform != "linux" or any(map(find, [*filter(None, [os.environ.get("CHROMIUM")]), *BROWSERS]))


def _makes_environments() -> bool:
    # Debian's Python comes without it.
    return importlib.util.find_spec("ensurepip") is not None


@dataclass(frozen=True)
class Program:
    """A program: its name, its Debian package, what is not tested without it, and whether it is here."""

    name: str
    package: str
    without: str
    is_here: Callable[[], object]


def _program(name: str, package: str, without: str) -> Program:
    return Program(name, package, without, lambda: find(name))


PROGRAMS = (
    Program("Python's ensurepip", "python3-venv", "no command of run.py works", _makes_environments),
    Program("Chromium", "chromium", "the page", _has_browser),
    _program("node", "nodejs", "the JavaScript that the page offers to paste"),
    _program("curl", "curl", "the curl commands that the page offers to paste"),
    _program("nginx", "nginx-light", "the proxy, and a restart behind it"),
    _program("haproxy", "haproxy", "the proxy for Kubernetes"),
    _program("promtool", "prometheus", "the alerts of Prometheus"),
    _program("docker-compose", "docker-compose", "the Compose files, merged as Compose does it"),
    _program("wrk", "wrk", "the measurements with wrk"),
)


def missing() -> list[Program]:
    """The programs that this machine has not."""
    return [program for program in PROGRAMS if not program.is_here()]


def why_skipped(name: str) -> str:
    """What a test says that is skipped without this program."""
    (package,) = {program.package for program in PROGRAMS if program.name == name}
    return f"{name} is not installed; on Debian: apt-get install {package}"


def report() -> str:
    """A line for each missing program, with what is not tested without it; empty if there is none."""
    return "".join(
        f"Not on this machine: {program.name}. Not tested: {program.without}. On Debian: apt-get install "
        f"{program.package}\n"
        for program in missing()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", action="store_true", help="print the Debian packages only")
    if parser.parse_args().missing:
        print(*(program.package for program in missing()))
    else:
        print(report() or "Nothing is missing.", end="\n" if not missing() else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
