"""Writes the lock files: every package that pip installs, the packages of packages too, with its version and sha256.

    python run.py lock                          after a pin has changed in a requirements file
    python -m tools.lock --upgrade              take the newest of what only other packages ask for
    python -m tools.lock --upgrade-package NAME

Beside each requirements file, which people write, lies its lock, which nobody does. A lock holds for Linux, macOS and
Windows and for every Python that run.py takes. What a container installs is what the tests ran with: its lock is
made within the versions of the root's.

`python run.py serve` installs requirements-serve.lock. The names of its wheels stand in requirements-serve.wheels: so a
test sees, without the internet, that each package has a wheel for each Python and system in `TARGETS`.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging import tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
WITHIN_ROOT = "--constraint=requirements.lock"
WITHOUT_TENSORFLOW = "--excludes=tools/lock_without.txt"
# The first holds everything. The containers install the last without what it asks for: TensorFlow.
LOCKED = {
    "requirements.txt": [],
    "requirements-serve.txt": [WITHIN_ROOT, WITHOUT_TENSORFLOW],
    "requirements-check.txt": [WITHIN_ROOT, WITHOUT_TENSORFLOW],
    "app/preprocess_service/requirements.txt": [WITHIN_ROOT],
    "app/model_service/requirements.txt": [WITHIN_ROOT],
    "app/requirements-messages.txt": [WITHIN_ROOT, "--no-deps"],
}
# The oldest Python that run.py takes; what newer ones need is in the lock too, behind a marker.
OLDEST_PYTHON = "3.11"
# Where `run.py serve` works: system -> its values in markers, and the platforms of its wheels. OpenVINO sets the
# bounds: on x86-64 glibc 2.28 (Debian 10, Ubuntu 20.04, Red Hat 8), on arm64 glibc 2.35 (Debian 12, Ubuntu 22.04).
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
TARGETS = {
    "Linux x86-64": (
        {"sys_platform": "linux", "platform_machine": "x86_64"},
        [*(f"manylinux_2_{minor}_x86_64" for minor in range(5, 29)), "manylinux2014_x86_64", "manylinux2010_x86_64"],
    ),
    "Linux arm64": (
        {"sys_platform": "linux", "platform_machine": "aarch64"},
        [*(f"manylinux_2_{minor}_aarch64" for minor in range(17, 36)), "manylinux2014_aarch64"],
    ),
    "macOS arm64": ({"sys_platform": "darwin", "platform_machine": "arm64"}, [*tags.mac_platforms((14, 0), "arm64")]),
    "Windows x86-64": ({"sys_platform": "win32", "platform_machine": "AMD64"}, ["win_amd64"]),
}
SERVE_WHEELS = "requirements-serve.wheels"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of all that has no pin")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME", help="of this one only")
    options = parser.parse_args()
    upgrades = ["--upgrade"] * options.upgrade + [f"--upgrade-package={name}" for name in options.upgrade_package]
    for requirements, own in LOCKED.items():
        # The other locks follow the root's, whatever stood in them.
        command = compile_command(requirements, [*own, *(upgrades if not own else ["--upgrade"])])
        if subprocess.call(command, cwd=ROOT):
            print(f"{requirements} can't be locked; the reason stands above", file=sys.stderr)
            return 1
        print(f"{lock_of(requirements)}: written from {requirements}", flush=True)
    write_wheels()
    print(f"{SERVE_WHEELS}: written", flush=True)
    return 0


def lock_of(requirements: str) -> str:
    """The name of the lock of a requirements file."""
    return Path(requirements).with_suffix(".lock").as_posix()


def compile_command(requirements: str, options: list[str]) -> list[str]:
    """uv's command line; relative names and no settings of this machine, so that the lock is the same everywhere."""
    # Wheels only: a source archive runs its author's code, and fetches unpinned tools, while it is installed.
    wheels = ["--generate-hashes", "--only-binary=:all:", "--no-emit-build-options"]
    written = ["--custom-compile-command=python run.py lock", f"--output-file={lock_of(requirements)}"]
    return [*_uv_compile(), *wheels, *options, *written, requirements]


def wheel_tags(python: tuple[int, int], platforms: list[str]) -> frozenset[tags.Tag]:
    """The tags of the wheels that pip takes on one of these platforms."""
    own = tags.cpython_tags(python, platforms=platforms)
    anywhere = tags.compatible_tags(python, f"cp{python[0]}{python[1]}", platforms=platforms)
    return frozenset([*own, *anywhere])


def write_wheels() -> None:
    """Write the table: sha256 and file name of each wheel of the serving lock that one of `TARGETS` can use."""
    usable = {tag for python in PYTHONS for _, platforms in TARGETS.values() for tag in wheel_tags(python, platforms)}
    lines = sorted(
        (name, digest)
        for name, digest in _wheels(lock_of("requirements-serve.txt"))
        if parse_wheel_filename(name)[3] & usable
    )
    text = "".join(f"{digest}  {name}\n" for name, digest in lines)
    (ROOT / SERVE_WHEELS).write_text(text, encoding="utf-8", newline="\n")


def _wheels(lock: str) -> Iterator[tuple[str, str]]:
    """File name and sha256 of each wheel that the index has of a lock's packages."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "pylock.toml")
        subprocess.run(
            [*_uv_compile(), "--no-deps", "--format=pylock.toml", f"--output-file={found}", lock], cwd=ROOT, check=True
        )
        packages = tomllib.loads(found.read_text(encoding="utf-8"))["packages"]
    for package in packages:
        for wheel in package.get("wheels", []):
            yield wheel.get("name") or wheel["url"].rpartition("/")[2], wheel["hashes"]["sha256"]


def _uv_compile() -> list[str]:
    universal = ["--universal", f"--python-version={OLDEST_PYTHON}"]
    return [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", *universal]


if __name__ == "__main__":
    sys.exit(main())
