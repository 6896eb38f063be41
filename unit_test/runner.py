"""Runs the tests for run.py: `python -m unit_test.runner PATTERN ...`. Each PATTERN selects files by name.

At the end it checks the tests that SECURITY.md names and that are in these files. Each must have run and asserted
something. If it was skipped because a program is missing (tools/system_packages.py), it is listed but is no failure.
`python -m unittest` runs the same tests without this check.
"""

import functools
import re
import sys
import unittest
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.system_packages import missing

# unittest omits the frames of modules that set this name from its tracebacks.
__unittest = True

PROJECT = Path(__file__).parents[1]
# Part of the skip reason of a test that another command runs.
ELSEWHERE = "python run.py e2e"


class Record(unittest.TextTestResult):
    """A result that counts the assertions of each test by its id, and keeps the reasons for skipped tests."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.assertions: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self._before = 0

    def startTest(self, test: unittest.TestCase) -> None:
        self._before = Assertions.count
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self.assertions[test.id()] = Assertions.count - self._before

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        # Without the parameters of a subtest.
        self.reasons[test.id().partition(" ")[0]] = reason


class Assertions:
    """Counts assertions since `watch`."""

    count = 0

    @classmethod
    def watch(cls) -> None:
        """Count the calls of all assert methods from now on."""
        for name in dir(unittest.TestCase):
            if re.match("assert[A-Z]", name):
                setattr(unittest.TestCase, name, cls._counted(getattr(unittest.TestCase, name)))

    @classmethod
    def _counted(cls, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def counted(*arguments: Any, **named: Any) -> Any:
            cls.count += 1
            return method(*arguments, **named)

        return counted


def ids(suite: Iterable[Any]) -> Iterator[str]:
    """Yield the ids of all tests in a suite."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from ids(one)
        else:
            yield one.id()


def written(patterns: Iterable[str]) -> set[str]:
    """Return the names of the test methods in the files that match these patterns."""
    files = [path for pattern in patterns for path in (PROJECT / "unit_test").rglob(pattern) if path.suffix == ".py"]
    return {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))}


def promised() -> set[str]:
    """Return the tests that SECURITY.md's table of promises names."""
    table = (PROJECT / "SECURITY.md").read_text(encoding="utf-8").partition("| --- |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(test_\w+)`", table))


def broken_promises(found: Iterable[str], record: Record) -> Iterator[str]:
    """Yield a line for each test that SECURITY.md names, is in `found`, and did not run or did not assert anything."""
    names = promised()
    is_complete = sys.platform == "linux" and not missing()
    for test in found:
        reason = record.reasons.get(test, "")
        if test.rpartition(".")[2] not in names or record.assertions.get(test) or ELSEWHERE in reason:
            continue
        if test in record.assertions and test not in record.reasons:
            yield f"{test} asserts nothing"
        elif is_complete:
            yield f"{test} did not run. {reason}"
        else:
            print(f"SECURITY.md names a test that did not run: {test}. {reason}")


def main(patterns: Sequence[str]) -> int:
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(
        loader.discover(str(PROJECT / "unit_test"), pattern, str(PROJECT)) for pattern in patterns
    )
    # Before the run: a suite drops each test after it has run.
    found = list(ids(suite))
    # A test that is in a file but is not found by unittest counts as one that did not run.
    found += sorted(written(patterns) - {test.rpartition(".")[2] for test in found})
    Assertions.watch()
    result = unittest.TextTestRunner(resultclass=Record).run(suite)
    assert isinstance(result, Record)
    broken = list(broken_promises(found, result))
    for text in broken:
        print(f"SECURITY.md names a test that proves nothing: {text}", file=sys.stderr)
    return 0 if result.wasSuccessful() and not broken else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
