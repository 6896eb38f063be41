"""The environments of the rivals that need packages of their own: made once, and kept under .build/."""

import hashlib
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from tools.service import PROJECT

RIVALS = Path(__file__).with_name("rivals")
ENVIRONMENTS = PROJECT / ".build" / "bench"


class BenchError(Exception):
    """Something the user can mend; the message says how."""


def python_of(packages: str | None) -> str:
    """The interpreter to start with: of the project's own environment, or of the rival's."""
    if packages is None:
        return sys.executable
    return str(ENVIRONMENTS / packages / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def install_all(wanted: Iterable[str]) -> dict[str, str]:
    """Make each environment that is not there yet; why, by name, where one can't be made."""
    failures = {}
    for packages in wanted:
        try:
            install(packages)
        except BenchError as exc:
            failures[packages] = str(exc)
            print(f"Left out, {packages}: {exc}", file=sys.stderr, flush=True)
    return failures


def install(packages: str) -> None:
    """Make the environment of a rival, once for each state of its requirements; raises BenchError."""
    folder, requirements = ENVIRONMENTS / packages, RIVALS / f"{packages}.txt"
    stamp = folder / "installed.txt"
    wanted = f"{sys.version}\n{hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return
    print(f"Installing {packages} in {folder}: once, some minutes and 2 GB of disk.", flush=True)
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise BenchError(
            f"{folder} can't be made ({exc}); on Debian and Ubuntu this needs: apt install python3-venv"
        ) from exc
    # Not quiet, so that its bars show how far it is.
    pip = [python_of(packages), "-m", "pip", "install", "--disable-pip-version-check"]
    if subprocess.call([*pip, "-r", str(requirements)]):
        raise BenchError(f"pip could not install {requirements.name}; its last lines stand above. Start again to retry")
    stamp.write_text(wanted, "utf-8")
