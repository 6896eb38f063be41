"""What is installed is what the lock files name, file by file, and they name what the requirements files ask for."""

import functools
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock

ROOT = Path(__file__).parents[2]
REQUIREMENTS = [
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "app", ROOT / "tools", *(ROOT / "app").iterdir())
    for path in folder.glob("requirements*.txt")
]
DOCKERFILES = [*ROOT.glob("app/*/Dockerfile*")]
AGAIN = "run: python run.py lock"


@functools.cache
def locked(name: str) -> dict[str, tuple[Requirement, int]]:
    """Package -> what the lock says of it and how many hashes it has; one package may stand there for several Pythons.

    Raises ValueError for a line that is neither: an address, say, or an option for pip.
    """
    packages: dict[str, tuple[Requirement, int]] = {}
    entry = ""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([a-z0-9][^\\#]*==[^\\#]*?) \\", line):
            requirement = Requirement(match[1])
            entry = f"{canonicalize_name(requirement.name)} {requirement.marker or ''}"
            packages[entry] = (requirement, 0)
        elif re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line):
            packages[entry] = (packages[entry][0], packages[entry][1] + 1)
        elif not re.fullmatch(r" *#.*", line):
            raise ValueError(f"{name}: {line}")
    return packages


def names(lock_file: str) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement, _ in locked(lock_file).values()}


def pins(name: str) -> list[Requirement]:
    """What a requirements file asks for, and those that it includes."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        text = line.partition(" #")[0].strip()
        if text.startswith("-r "):
            found += pins((Path(name).parent / text.removeprefix("-r ")).as_posix())
        elif text and not text.startswith("#"):
            found.append(Requirement(text))
    return found


def plain(requirement: Requirement) -> str:
    """A requirement without the freedom that names have: PyYAML is pyyaml."""
    return f"{canonicalize_name(requirement.name)}{requirement.specifier} {requirement.marker or ''}"


class LockTest(unittest.TestCase):
    def test_every_requirements_file_is_in_the_lock_of_the_root(self) -> None:
        asked = {str(pin) for pin in pins("requirements.txt")}
        self.assertGreaterEqual(len(REQUIREMENTS), 5)
        for name in REQUIREMENTS:
            with self.subTest(name):
                self.assertLessEqual({str(pin) for pin in pins(name)}, asked)

    def test_every_pin_is_exact_and_stands_in_its_lock(self) -> None:
        for name in lock.LOCKED:
            found = {plain(requirement) for requirement, _ in locked(lock.lock_of(name)).values()}
            for pin in pins(name):
                with self.subTest(f"{name}: {pin}"):
                    self.assertRegex(str(pin.specifier), r"^==[\w.]+$")
                    self.assertIn(plain(pin), found, AGAIN)

    def test_every_package_of_a_lock_has_a_version_and_hashes_and_no_address(self) -> None:
        for name in lock.LOCKED:
            for entry, (requirement, hashes) in locked(lock.lock_of(name)).items():
                with self.subTest(f"{name}: {entry}"):
                    self.assertRegex(str(requirement.specifier), r"^==[\w.]+$")
                    self.assertGreater(hashes, 0)
                    self.assertIsNone(requirement.url)

    def test_the_containers_have_the_versions_that_the_tests_run_with(self) -> None:
        everything = {str(requirement) for requirement, _ in locked("requirements.lock").values()}
        for name in lock.LOCKED:
            with self.subTest(name):
                self.assertLessEqual({str(found) for found, _ in locked(lock.lock_of(name)).values()}, everything)

    def test_what_packages_ask_for_is_locked_too(self) -> None:
        for name, options in lock.LOCKED.items():
            if "--no-deps" in options:
                continue
            here = names(lock.lock_of(name))
            for package in here:
                for needed in needs(package):
                    with self.subTest(f"{name}: {package} needs {needed}"):
                        self.assertIn(needed, here, AGAIN)

    def test_containers_install_from_a_lock_with_hashes(self) -> None:
        locks = {lock.lock_of(name) for name in lock.LOCKED}
        self.assertEqual(len(DOCKERFILES), 3)
        for path in DOCKERFILES:
            lines = path.read_text(encoding="utf-8").splitlines()
            for line in lines:
                if re.search(r"\bpip (install|download)\b", line):
                    with self.subTest(f"{path.name}: {line}"):
                        self.assertIn("--require-hashes", line)
                        self.assertIn("--no-deps", line)
                        self.assertIn("--only-binary=:all:", line)
            copied = {file for line in lines for file in re.findall(r"^COPY (app/\S*requirements\S*)", line)}
            self.assertLessEqual(copied, locks)


def needs(package: str) -> list[str]:
    """The packages that an installed one asks for on this machine; none where it isn't installed: on Windows, say."""
    try:
        asked = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(text) for text in asked]
    return [canonicalize_name(one.name) for one in requirements if not one.marker or one.marker.evaluate({"extra": ""})]


class SetUpTest(unittest.TestCase):
    """`run.py` sets up an environment from a lock of one small package, without the internet."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        wheel = cls.folder / "tiny-1.0-py3-none-any.whl"
        information = {
            "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny.py", "SIZE = 1\n")
            for name, text in information.items():
                archive.writestr(f"tiny-1.0.dist-info/{name}", text)
        cls.digest = hashlib.sha256(wheel.read_bytes()).hexdigest()

    def set_up(self, lock_text: str, folder: str = "venv") -> subprocess.CompletedProcess[str]:
        (self.folder / "requirements.lock").write_text(lock_text)
        program = f"""
import os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
import run
run.VENV = pathlib.Path({folder!r}).resolve()
run.PYTHON = str(run.VENV / pathlib.Path(run.PYTHON).relative_to(run.ROOT / ".venv"))
run.LOCK = pathlib.Path("requirements.lock")
run.set_up()
"""
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder), "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=self.folder, env=os.environ | pip, capture_output=True, text=True)

    def test_it_installs_only_what_has_the_hash_of_the_lock_and_that_once(self) -> None:
        lock_text = f"tiny==1.0 \\\n    --hash=sha256:{self.digest}\n"
        other = self.set_up(lock_text.replace(self.digest, "0" * 64))
        self.assertIn("THESE PACKAGES DO NOT MATCH THE HASHES", other.stderr)
        self.assertIn("Problem: pip could not install requirements.lock", other.stderr)
        first = self.set_up(lock_text)
        self.assertIn("Successfully installed tiny-1.0", first.stdout, first.stderr)
        self.assertEqual(self.set_up(lock_text).stdout, "")

    def test_it_says_what_is_wrong_where_no_environment_can_be_made(self) -> None:
        done = self.set_up("", "requirements.lock/venv")
        self.assertIn("Problem: ", done.stderr)
        self.assertIn("can't be made", done.stderr)


if __name__ == "__main__":
    unittest.main()
