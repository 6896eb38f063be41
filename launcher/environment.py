"""Creates the environment `.venv` when a command first needs it, with the packages of that command."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from launcher import Problem

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Layer:
    """A group of packages that are installed together, and the newest Python for which all of them have wheels."""

    name: str
    newest_python: tuple[int, int]
    cost: str

    @property
    def lock(self) -> Path:
        """The lock file, with version and hash of every package, also of those that other packages need."""
        return ROOT / (f"requirements-{self.name}.lock" if self.name != "all" else "requirements.lock")


# A later layer contains the earlier ones, in the same versions.
SERVE = Layer("serve", (3, 14), "half a minute, 400 MB of disk")
CHECK = Layer("check", (3, 14), "a minute, 600 MB of disk")
ALL = Layer("all", (3, 13), "some minutes, 2.9 GB of disk, most of it TensorFlow")
LAYERS = (SERVE, CHECK, ALL)


def python() -> str:
    """Return the path of the environment's Python."""
    return str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def set_up(layer: Layer, command: str) -> None:
    """Install the packages of `layer`, once per version of its lock file. An environment with a later layer is kept.

    Raises Problem if this Python is too old or too new for `command`, or if the environment can't be created.
    """
    _refuse_python(layer, command)
    # The file holds Python version, layer and lock hash of the last complete installation.
    stamp = VENV / "installed.txt"
    installed = stamp.read_text(encoding="utf-8") if stamp.is_file() else ""
    if installed in [_stamp_of(enough) for enough in LAYERS[LAYERS.index(layer) :]]:
        return
    print(f"Setting up {VENV.name} for `{command}`: once, {layer.cost}.", flush=True)
    # Another Python or an incomplete installation means a new environment. After other changes pip updates this one.
    try:
        venv.create(VENV, with_pip=True, clear=not installed.startswith(f"{sys.version}\n"))
    except (OSError, ValueError, subprocess.CalledProcessError) as exc:
        raise Problem(
            f"{VENV} can't be created ({exc}); on Debian and Ubuntu this needs: apt install python3-venv"
        ) from exc
    # Only files that the lock file names, with the right hash. Wheels run no code when they are installed.
    install = [python(), "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
    if subprocess.call([*install, "--only-binary=:all:", "-r", str(layer.lock)]):
        raise Problem(f"pip could not install {layer.lock.name}; see its output above. Fix the cause and start again")
    stamp.write_text(_stamp_of(layer), encoding="utf-8")


def _refuse_python(layer: Layer, command: str) -> None:
    here, newest = sys.version_info[:2], layer.newest_python
    if OLDEST_PYTHON <= here <= newest:
        return
    reason = ", which has no build of TensorFlow" * (newest < here <= SERVE.newest_python)
    alternative = "; `serve` and `check` work with this one" * bool(reason)
    raise Problem(
        f"this is Python {_text(here)}{reason}; `{command}` needs Python {_text(OLDEST_PYTHON)} to {_text(newest)}"
        f"{alternative}. Install one and start this with it, for example: python3.12 run.py {command}"
    )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _stamp_of(layer: Layer) -> str:
    return f"{sys.version}\n{layer.name} {hashlib.sha256(layer.lock.read_bytes()).hexdigest()}"
