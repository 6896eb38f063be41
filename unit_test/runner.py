"""Runs the tests for run.py: `python -m unit_test.runner [--processes N] PATTERN ...`. PATTERNs select files by name.

Each process takes the next file when it has finished one. With one process the files run in the order of the patterns.
A line is printed for each file, and all of its output if a test fails. A file that fails beside others is run again
alone, and that counts: a browser or a server may starve while other tests use all cores.

At the end it checks the tests that SECURITY.md names and that are in these files. Each must have run and asserted
something. If it was skipped because a program is missing (tools/system_packages.py), it is listed but is no failure.
`python -m unittest` runs the same tests without this check.
"""

import argparse
import functools
import io
import multiprocessing
import re
import sys
import time
import unittest
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
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


def written(files: Iterable[Path]) -> set[str]:
    """Return the names of the test methods in these files."""
    return {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))}


def promised() -> set[str]:
    """Return the tests that SECURITY.md's table of promises names."""
    table = (PROJECT / "SECURITY.md").read_text(encoding="utf-8").partition("| --- |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(test_\w+)`", table))


def broken_promises(found: Iterable[str], record: "Record | Outcome") -> Iterator[str]:
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


@dataclass
class Outcome:
    """What the tests of one file did, or of several. It can be sent to another process."""

    found: list[str] = field(default_factory=list)
    assertions: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    text: str = ""

    def add(self, other: "Outcome") -> None:
        """Add the tests of another file."""
        self.found += other.found
        self.failed += other.failed
        self.assertions |= other.assertions
        self.reasons |= other.reasons

    def __str__(self) -> str:
        skipped = f", {len(self.reasons)} skipped" if self.reasons else ""
        return f"{len(self.assertions)} tests{skipped} in {self.seconds:.1f} s"


def run_file(path: Path) -> Outcome:
    """Run the tests of one file."""
    begin = time.monotonic()
    suite = unittest.defaultTestLoader.loadTestsFromName(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    # Before the run: a suite drops each test after it has run.
    found = list(ids(suite))
    text = io.StringIO()
    result = unittest.TextTestRunner(text, resultclass=Record).run(suite)
    assert isinstance(result, Record)
    failed = [test.id() for test, _ in (*result.failures, *result.errors)]
    failed += [f"{test.id()} passes, but is expected to fail" for test in result.unexpectedSuccesses]
    seconds = time.monotonic() - begin
    return Outcome(found, result.assertions, result.reasons, failed, seconds, text.getvalue())


def run_files(files: Sequence[Path], processes: int) -> dict[Path, Outcome]:
    """Run the tests of these files in so many processes, and print what happens."""
    # Started anew, not forked: the processes share nothing.
    context = multiprocessing.get_context("spawn")
    outcomes = {}
    with ProcessPoolExecutor(processes, context, Assertions.watch) as pool:
        runs = {pool.submit(run_file, path): path for path in files}
        for number, run in enumerate(as_completed(runs), 1):
            try:
                outcome = run.result()
            except BrokenProcessPool:
                outcome = Outcome(failed=[f"{runs[run].name}: a test ended the process, here or in another file"])
            outcomes[runs[run]] = outcome
            state = "FAILED" if outcome.failed else "ok"
            print(f"[{number}/{len(files)}] {state:6} {runs[run].relative_to(PROJECT)}: {outcome}", flush=True)
            if outcome.failed:
                print(outcome.text, flush=True)
    return outcomes


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="+")
    parser.add_argument("--processes", type=int, default=1, help="how many files run at the same time")
    options = parser.parse_args(arguments)
    files = [path for pattern in options.patterns for path in sorted((PROJECT / "unit_test").rglob(pattern))]
    files = [path for path in dict.fromkeys(files) if path.suffix == ".py"]
    begin, everything = time.monotonic(), Outcome()
    outcomes = run_files(files, options.processes)
    again = [path for path, outcome in outcomes.items() if outcome.failed and options.processes > 1]
    for path in again:
        print(f"Again, alone: {path.name} failed beside others", flush=True)
        outcomes |= run_files([path], 1)
    for outcome in outcomes.values():
        everything.add(outcome)
    everything.seconds = time.monotonic() - begin
    # A test that is in a file but is not found by unittest counts as one that did not run.
    found = everything.found
    found += sorted(written(files) - {test.rpartition(".")[2] for test in found})
    broken = list(broken_promises(found, everything))
    for text in broken:
        print(f"SECURITY.md names a test that proves nothing: {text}", file=sys.stderr)
    for test in everything.failed:
        print(f"FAILED {test}", file=sys.stderr)
    print(f"{everything}, {len(everything.failed)} failed")
    return 1 if everything.failed or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
