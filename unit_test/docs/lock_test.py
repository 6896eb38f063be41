"""Tests that the lock files match the requirements files, and that the installed packages match the lock files."""

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


def container_locks() -> set[str]:
    """Return the lock files that the Dockerfiles copy, for each value of their build argument REQUIREMENTS."""
    found = set()
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        choices = re.findall(r"REQUIREMENTS=(\S+)", text) or [""]
        for file in re.findall(r"^COPY (app/\S+\.lock) ", text, re.MULTILINE):
            found.update(file.replace("${REQUIREMENTS}", choice) for choice in choices)
    return found


@functools.cache
def locked(name: str) -> dict[str, tuple[Requirement, int]]:
    """Return package -> its requirement and its number of hashes. A package may be listed once per Python version.

    Raises ValueError for any other line, for example a URL or an option of pip.
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
    """Return the requirements of a file and of the files that it includes."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        text = line.partition(" #")[0].strip()
        if text.startswith("-r "):
            found += pins((Path(name).parent / text.removeprefix("-r ")).as_posix())
        elif text and not text.startswith("#"):
            found.append(Requirement(text))
    return found


def plain(requirement: Requirement) -> str:
    """Return a requirement in normal form: PyYAML becomes pyyaml."""
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
            left_out = {
                name
                for option in options
                if option.startswith("--excludes=")
                for name in (ROOT / option.removeprefix("--excludes=")).read_text(encoding="utf-8").splitlines()
            }
            for package in here:
                for needed in needs(package):
                    with self.subTest(f"{name}: {package} needs {needed}"):
                        self.assertIn(needed, here | left_out, AGAIN)

    def test_serving_needs_little_and_each_layer_holds_the_one_before(self) -> None:
        served, checked = (names(f"requirements-{layer}.lock") for layer in ("serve", "check"))
        self.assertLessEqual(served, checked)
        self.assertFalse(served & {"tensorflow", "keras", "playwright", "ruff", "mypy", "matplotlib", "requests", "uv"})
        self.assertFalse(checked & {"tensorflow", "keras", "playwright"})
        services = names("app/preprocess_service/requirements.lock") | names("app/model_service/requirements.lock")
        self.assertEqual(served - services, {"tensorflow-serving-api", "psutil"})

    def test_the_image_with_tensorflow_has_no_tools_that_build_or_install(self) -> None:
        found = names("app/model_service/requirements-tensorflow.lock")
        self.assertLess(names("app/model_service/requirements.lock") | {"tensorflow"}, found)
        self.assertFalse(found & {"pip", "setuptools", "wheel"})

    def test_containers_install_from_a_lock_with_hashes(self) -> None:
        self.assertEqual(len(DOCKERFILES), 4)
        self.assertEqual(
            container_locks(),
            {lock.lock_of(name) for name in lock.LOCKED if name.startswith("app/")},
        )
        for path in DOCKERFILES:
            lines = path.read_text(encoding="utf-8").splitlines()
            for line in lines:
                if re.search(r"\bpip (install|download)\b", line):
                    with self.subTest(f"{path.name}: {line}"):
                        self.assertIn("--require-hashes", line)
                        self.assertIn("--no-deps", line)
                        self.assertIn("--only-binary=:all:", line)


def needs(package: str) -> list[str]:
    """Return the packages that a package needs on this machine, or none if it isn't installed (as on Windows)."""
    try:
        asked = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(text) for text in asked]
    return [canonicalize_name(one.name) for one in requirements if not one.marker or one.marker.evaluate({"extra": ""})]


class SetUpTest(unittest.TestCase):
    """`run.py` installs an environment from locks of tiny packages, without the internet."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self.pins = {name: self.make_wheel(name) for name in ("tiny", "larger_one")}

    def make_wheel(self, name: str) -> str:
        """Make a wheel with one module, and return its line for a lock."""
        wheel = self.folder / f"{name}-1.0-py3-none-any.whl"
        information = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}.py", "SIZE = 1\n")
            for file, text in information.items():
                archive.writestr(f"{name}-1.0.dist-info/{file}", text)
        return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"

    def write_locks(self, serve: str, everything: str) -> None:
        (self.folder / "requirements-serve.lock").write_text(serve)
        (self.folder / "requirements-check.lock").write_text(serve)
        (self.folder / "requirements.lock").write_text(everything)

    def set_up(
        self, layer: str, venv: str = "venv", python: tuple[int, ...] = sys.version_info[:3]
    ) -> subprocess.CompletedProcess[str]:
        program = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from launcher import environment
environment.ROOT = pathlib.Path().resolve()
environment.VENV = environment.ROOT / {venv!r}
sys.version_info = {python!r}
environment.set_up(environment.{layer}, "a-command")
"""
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder), "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=self.folder, env=os.environ | pip, capture_output=True, text=True)

    def installed(self) -> set[str]:
        return {path.stem for path in (self.folder / "venv").rglob("*.py") if path.stem in self.pins}

    def test_it_installs_only_what_has_the_hash_of_the_lock_and_that_once(self) -> None:
        tiny = self.pins["tiny"]
        wrong = re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", tiny)
        self.write_locks(wrong, wrong)
        other = self.set_up("SERVE")
        self.assertIn("THESE PACKAGES DO NOT MATCH THE HASHES", other.stderr)
        self.assertIn("Problem: pip could not install requirements-serve.lock", other.stderr)
        self.write_locks(tiny, tiny)
        first = self.set_up("SERVE")
        self.assertIn("Successfully installed tiny-1.0", first.stdout, first.stderr)
        self.assertEqual(self.set_up("SERVE").stdout, "")

    def test_a_command_adds_what_it_needs_and_a_later_one_takes_nothing_away(self) -> None:
        tiny, both = self.pins["tiny"], self.pins["tiny"] + self.pins["larger_one"]
        self.write_locks(tiny, both)
        self.set_up("SERVE")
        self.assertEqual(self.installed(), {"tiny"})
        more = self.set_up("ALL")
        self.assertIn("for `a-command`", more.stdout, more.stderr)
        self.assertEqual(self.installed(), {"tiny", "larger_one"})
        for layer in ("SERVE", "CHECK", "ALL"):
            with self.subTest(layer):
                self.assertEqual(self.set_up(layer).stdout, "")
        # If a lock changes, its packages are installed into the existing environment.
        self.write_locks(tiny + "# changed\n", both + "# changed\n")
        self.assertIn("Setting up", self.set_up("SERVE").stdout)
        self.assertEqual(self.installed(), {"tiny", "larger_one"})
        self.assertIn("Setting up", self.set_up("ALL").stdout)

    def test_it_says_what_is_wrong_where_no_environment_can_be_made(self) -> None:
        self.write_locks("", "")
        done = self.set_up("SERVE", "requirements.lock/venv")
        self.assertIn("Problem: ", done.stderr)
        self.assertIn("can't be created", done.stderr)

    def test_a_python_without_a_build_of_tensorflow_serves_and_is_told_what_the_rest_needs(self) -> None:
        self.write_locks("", "")
        for layer in ("SERVE", "CHECK"):
            with self.subTest(layer):
                self.assertIn("Setting up", self.set_up(layer, python=(3, 14, 0)).stdout)
        refused = self.set_up("ALL", python=(3, 14, 0)).stderr
        self.assertIn(
            "this is Python 3.14, which has no build of TensorFlow; `a-command` needs Python 3.11 to 3.13", refused
        )
        self.assertIn("`serve` and `check` work with this one", refused)
        for python in ((3, 10, 9), (3, 15, 0)):
            with self.subTest(python):
                self.assertIn("`a-command` needs Python 3.11 to 3.14", self.set_up("SERVE", python=python).stderr)


if __name__ == "__main__":
    unittest.main()
