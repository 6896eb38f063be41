"""The programs that some tests use and pip does not install, with their Debian packages and what needs them.

    python3 -m tools.system_packages              list the missing programs and the tests that are skipped without them
    python3 -m tools.system_packages --missing    print their Debian packages, for apt-get install

The tests use `find`. Only Python is needed: `.ci/run` and `run.py` use this module before anything is installed.
"""

from __future__ import annotations  # for an old Python, so that run.py can reject it with a message

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

# Debian has programs for administrators in these folders. They are on the path of root only.
FOLDERS = ("/usr/sbin", "/usr/local/sbin")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def find(program: str) -> str | None:
    """Return the path of a program; None if it is not installed."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *FOLDERS]))


def _has_browser() -> bool:
    # On other systems Chrome and Edge are not on the path, and Playwright finds them itself.
    return sys.platform != "linux" or any(map(find, [*filter(None, [os.environ.get("CHROMIUM")]), *BROWSERS]))


def _makes_environments() -> bool:
    # Debian's Python does not include it.
    return importlib.util.find_spec("ensurepip") is not None


@dataclass(frozen=True)
class Program:
    """A program: its name, its Debian package, what is not tested without it, and whether it is installed."""

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
    _program("openssl", "openssl", "TLS of the model server"),
    _program("promtool", "prometheus", "the alerts of Prometheus"),
    _program("docker-compose", "docker-compose", "the Compose files, merged as Compose does it"),
    _program("wrk", "wrk", "the measurements with wrk"),
)


def missing() -> list[Program]:
    """Return the programs that are not installed."""
    return [program for program in PROGRAMS if not program.is_here()]


def why_skipped(name: str) -> str:
    """Return the reason for a test that is skipped without this program."""
    (package,) = {program.package for program in PROGRAMS if program.name == name}
    return f"{name} is not installed; on Debian: apt-get install {package}"


def report() -> str:
    """Return a line for each missing program, with what is not tested without it; empty if none is missing."""
    return "".join(
        f"Not installed: {program.name}. Not tested: {program.without}. On Debian: apt-get install {program.package}\n"
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
