"""The environments of the servers that need packages of their own. Each is created once under .build/."""

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
    """An error that the user can fix; the message says how."""


def python_of(packages: str | None) -> str:
    """Return the Python to use: this one, or that of the environment `packages`."""
    if packages is None:
        return sys.executable
    return str(ENVIRONMENTS / packages / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def install_all(wanted: Iterable[str]) -> dict[str, str]:
    """Create the missing environments; return the reasons for those that failed, by name."""
    failures = {}
    for packages in wanted:
        try:
            install(packages)
        except BenchError as exc:
            failures[packages] = str(exc)
            print(f"Left out: {packages}: {exc}", file=sys.stderr, flush=True)
    return failures


def install(packages: str) -> None:
    """Create the environment of a server, once per version of its requirements; raises BenchError."""
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
            f"{folder} can't be created ({exc}); on Debian and Ubuntu this needs: apt install python3-venv"
        ) from exc
    # Without --quiet, so that pip shows its progress.
    pip = [python_of(packages), "-m", "pip", "install", "--disable-pip-version-check"]
    if subprocess.call([*pip, "-r", str(requirements)]):
        raise BenchError(f"pip could not install {requirements.name}; see its output above. Start again to retry")
    stamp.write_text(wanted, "utf-8")
