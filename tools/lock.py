"""Writes the lock files: version and SHA-256 of every package that pip installs, also those that packages need.

    python run.py lock                          after a change of a pin in a requirements file
    python -m tools.lock --upgrade              use the newest versions of packages without a pin
    python -m tools.lock --upgrade-package NAME

Each requirements file is written by hand and has a generated lock file beside it. A lock file is valid for Linux, macOS
and Windows and for every Python that run.py accepts. The lock files of the containers use the versions of the root's
lock file, so containers install what the tests ran with.

`python run.py serve` installs requirements-serve.lock. requirements-serve.wheels has the names of its wheels. With them
a test checks without the internet that each package has a wheel for each Python and system in `TARGETS`. They contain
the wheels of the containers. Those of the image with TensorFlow have a file of their own.
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
WITHOUT_BUILDERS = "--excludes=tools/lock_without_builders.txt"
# The first one contains everything. The containers install the last one without its dependency, TensorFlow.
LOCKED = {
    "requirements.txt": [],
    "requirements-serve.txt": [WITHIN_ROOT, WITHOUT_TENSORFLOW],
    "requirements-check.txt": [WITHIN_ROOT, WITHOUT_TENSORFLOW],
    "app/preprocess_service/requirements.txt": [WITHIN_ROOT],
    "app/model_service/requirements.txt": [WITHIN_ROOT],
    "app/model_service/requirements-tensorflow.txt": [WITHIN_ROOT, WITHOUT_BUILDERS],
    "app/requirements-messages.txt": [WITHIN_ROOT, "--no-deps"],
}
# The oldest Python that run.py accepts. Packages that only newer Pythons need are in the lock file with a marker.
OLDEST_PYTHON = "3.11"
# Systems for `run.py serve`: the values of environment markers, and the platform tags of wheels. OpenVINO sets the
# minimum: glibc 2.28 on x86-64 (Debian 10, Ubuntu 20.04, Red Hat 8), glibc 2.35 on arm64 (Debian 12, Ubuntu 22.04).
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
# Lock file -> the Pythons and systems that its file of wheels is for. Containers have Python 3.11.
WHEELS = {
    "requirements-serve.lock": (PYTHONS, tuple(TARGETS)),
    "app/model_service/requirements-tensorflow.lock": (PYTHONS[:1], ("Linux x86-64", "Linux arm64")),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="use the newest version of all packages without a pin")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME", help="only of this package")
    options = parser.parse_args()
    upgrades = ["--upgrade"] * options.upgrade + [f"--upgrade-package={name}" for name in options.upgrade_package]
    for requirements, own in LOCKED.items():
        # The other lock files follow the root's, so their former versions do not matter.
        command = compile_command(requirements, [*own, *(upgrades if not own else ["--upgrade"])])
        if subprocess.call(command, cwd=ROOT):
            print(f"{requirements} can't be locked; see the output above", file=sys.stderr)
            return 1
        print(f"{lock_of(requirements)}: written from {requirements}", flush=True)
    for name in WHEELS:
        write_wheels(name)
        print(f"{wheels_of(name)}: written", flush=True)
    return 0


def lock_of(requirements: str) -> str:
    """Return the name of a requirements file's lock file."""
    return Path(requirements).with_suffix(".lock").as_posix()


def wheels_of(name: str) -> str:
    """Return the name of the file with the wheels of a lock file."""
    return Path(name).with_suffix(".wheels").as_posix()


def compile_command(requirements: str, options: list[str]) -> list[str]:
    """Return uv's command line, with relative names and no local settings: the lock file is the same everywhere."""
    # Wheels only: installing a source archive runs its code, and downloads build tools without pins.
    wheels = ["--generate-hashes", "--only-binary=:all:", "--no-emit-build-options"]
    written = ["--custom-compile-command=python run.py lock", f"--output-file={lock_of(requirements)}"]
    return [*_uv_compile(), *wheels, *options, *written, requirements]


def wheel_tags(python: tuple[int, int], platforms: list[str]) -> frozenset[tags.Tag]:
    """Return the tags of the wheels that pip accepts on one of these platforms."""
    own = tags.cpython_tags(python, platforms=platforms)
    anywhere = tags.compatible_tags(python, f"cp{python[0]}{python[1]}", platforms=platforms)
    return frozenset([*own, *anywhere])


def write_wheels(name: str) -> None:
    """Write SHA-256 and file name of each wheel of a lock file that fits one of its Pythons and systems."""
    pythons, systems = WHEELS[name]
    usable = {tag for python in pythons for system in systems for tag in wheel_tags(python, TARGETS[system][1])}
    lines = sorted((file, digest) for file, digest in _wheels(name) if parse_wheel_filename(file)[3] & usable)
    text = "".join(f"{digest}  {file}\n" for file, digest in lines)
    (ROOT / wheels_of(name)).write_text(text, encoding="utf-8", newline="\n")


def _wheels(lock: str) -> Iterator[tuple[str, str]]:
    """Yield file name and SHA-256 of each wheel of the locked packages in the package index."""
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
