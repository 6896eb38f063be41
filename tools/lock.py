"""Writes the lock files: every package that pip installs, the packages of packages too, with its version and sha256.

    python run.py lock                          after a pin has changed in a requirements file
    python -m tools.lock --upgrade              take the newest of what only other packages ask for
    python -m tools.lock --upgrade-package NAME

Beside each requirements file, which people write, lies its lock, which nobody does. A lock holds for Linux, macOS and
Windows and for every Python that run.py takes. What a container installs is what the tests ran with: its lock is
made within the versions of the root's.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The first holds everything. The message modules are taken out of their wheels, which are not installed: no_deps.
LOCKED = {
    "requirements.txt": [],
    "app/preprocess_service/requirements.txt": ["--constraint=requirements.lock"],
    "app/model_service/requirements.txt": ["--constraint=requirements.lock"],
    "app/requirements-messages.txt": ["--constraint=requirements.lock", "--no-deps"],
}
# The oldest Python that run.py takes; what newer ones need is in the lock too, behind a marker.
OLDEST_PYTHON = "3.11"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of all that has no pin")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME", help="of this one only")
    options = parser.parse_args()
    upgrades = ["--upgrade"] * options.upgrade + [f"--upgrade-package={name}" for name in options.upgrade_package]
    for requirements, own in LOCKED.items():
        # The containers' locks follow the root's, whatever stood in them.
        command = compile_command(requirements, [*own, *(upgrades if not own else ["--upgrade"])])
        if subprocess.call(command, cwd=ROOT):
            print(f"{requirements} can't be locked; the reason stands above", file=sys.stderr)
            return 1
        print(f"{lock_of(requirements)}: written from {requirements}", flush=True)
    return 0


def lock_of(requirements: str) -> str:
    """The name of the lock of a requirements file."""
    return Path(requirements).with_suffix(".lock").as_posix()


def compile_command(requirements: str, options: list[str]) -> list[str]:
    """uv's command line; relative names and no settings of this machine, so that the lock is the same everywhere."""
    universal = ["--universal", f"--python-version={OLDEST_PYTHON}", "--generate-hashes"]
    # Wheels only: a source archive runs its author's code, and fetches unpinned tools, while it is installed.
    wheels = ["--only-binary=:all:", "--no-emit-build-options"]
    written = ["--custom-compile-command=python run.py lock", f"--output-file={lock_of(requirements)}"]
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config"]
    return [*uv, *universal, *wheels, *options, *written, requirements]


if __name__ == "__main__":
    sys.exit(main())
