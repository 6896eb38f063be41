"""The fault suite: breaks everything around the services while they are under load, and counts what came of it.

    python run.py chaos                      every case
    python run.py chaos "model server"       those whose name holds these words
    python run.py chaos --list               what there is
    python run.py chaos --attacks            instead: attacks; are others answered, does memory stay, is it idle after?
    python run.py chaos --attacks --refused 10000   instead: so many files that are refused; does memory grow?
    python run.py chaos --soak 50000         instead: requests of all kinds; does memory grow, does anything leak?
    python run.py chaos --starts 500         instead: the model server, started and ended under load so often

Each case starts real processes, asks them for predictions without a pause, does them harm, and prints one line: the
requests sent, those answered right (the right animal in each photo), those refused properly (the status and code that
docs/api.md promises, while the fault lasted), those lost (anything else: connections broken, answers wrong, time-outs),
and in seconds: the median refusal, the slowest answer, and how long it took to the first right one once all was well.
The exit status is 1 if any promise was broken.

Each attack is on a pair of its own or of the attack before it, if that has left no trace, and prints one line: what was
sent, the most memory of each service in MB and what it had afterwards, its CPU seconds, the slowest of the small photos
and of the /livez that others asked for meanwhile, when it was idle after the last byte, and the attacker's answers.
Its promises: memory as in the containers, 700 and 512 MB, and within 20 % of the start after 30 s; a small photo in
1 s, or 2 s beside hundreds of connections; /livez in 0.25 s; idle after 12 s; every answer one with a reason, in 12 s.
Bounds in seconds hold on two cores that nobody else uses; --slack 4 multiplies them on others. What takes 1.5 GB or
40 s is killed. An attack's name may be given by some of its words, as TIFF: or grpc:; --list says what each does.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from tools.chaos import (
    model_faults,  # noqa: F401 - its cases register themselves
    service_faults,  # noqa: F401
    soak,
    starts,
    twin_faults,  # noqa: F401
)
from tools.chaos.attacks import refused
from tools.chaos.attacks import suite as attacks
from tools.chaos.attacks.attack import SHORT as SHORT_ATTACK
from tools.chaos.attacks.attack import Pace as AttackPace
from tools.chaos.stage import Missing, NotReady, Stage, quietly
from tools.chaos.trial import CASES, SHORT, Case, Pace, Report, Trial

WIDTH = max(map(len, CASES))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="words of a case's name; without any: every case")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--short", action="store_true", help="only the most important cases, at a gentle pace")
    parser.add_argument("--rate", type=float, default=Pace.rate, help="requests a second (default %(default)s)")
    parser.add_argument("--clients", type=int, default=Pace.clients, help="connections (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--attacks", action="store_true", help="instead: the attacks, all or those named")
    parser.add_argument("--slack", type=float, default=1.0, help="with --attacks: its bounds in seconds times this")
    parser.add_argument("--refused", type=int, metavar="N", help="with --attacks: N refused files; does memory grow?")
    parser.add_argument("--soak", type=int, metavar="N", help="instead: N requests of all kinds; does memory grow?")
    parser.add_argument("--starts", type=int, metavar="N", help="instead: start and end the model server N times")
    options = parser.parse_args()
    if os.name == "nt":
        parser.error("needs a system with SIGSTOP and SIGKILL: Linux, macOS or WSL")
    if options.attacks:
        return run_attacks(parser, options)
    if options.soak:
        with quietly():
            return tell_soak(soak.run(options.soak))
    if options.starts:
        with quietly():
            return tell_starts(starts.run(options.starts))
    chosen = choose(options.cases, options.short)
    if not chosen:
        parser.error(f"no case is called so; there are: {', '.join(CASES)}")
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    pace = SHORT if options.short else Pace(options.rate, options.clients)
    if not options.json:
        print(HEADER, flush=True)
    with quietly():
        reports = [tell(run(case, pace), options.json) for case in chosen]
    if options.json:
        print(json.dumps([report.as_json() for report in reports], indent=2))
    return 1 if any(report.broken for report in reports) else 0


def run_attacks(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    chosen = attacks.choose(options.cases, options.short)
    if not chosen:
        parser.error("no attack is called so; --attacks --list names all")
    if options.list:
        width = max(len(case.name) for case in chosen)
        print("\n".join(f"{case.name:{width}}  {case.why}" for case in chosen))
        return 0
    with quietly():
        if options.refused:
            return attacks.tell_refused(refused.run(options.refused))
        pace = SHORT_ATTACK if options.short else AttackPace(slack=options.slack)
        return attacks.run(chosen, pace, options.json)


def tell_soak(diary: soak.Diary) -> int:
    for (kind, status), count in sorted(diary.answers.items()):
        print(f"{count:7} {kind}: {status or 'went away'}")
    for name, samples in diary.samples.items():
        for text, one in (("after the first tenth", samples[0]), ("at the end", samples[-1])):
            print(f"{name}, {text}: {one.megabytes:.1f} MB, {one.files} open files, {one.threads} threads")
    for text in diary.broken():
        print(f"BROKEN: {text}")
    return 1 if diary.broken() else 0


def tell_starts(tally: starts.Tally) -> int:
    print(
        f"{tally.starts} starts and ends under load: {tally.answered} predictions right, {tally.cut_off} cut off by "
        f"the end, {len(tally.failures)} stuck or failed; the slowest end took {tally.longest_stop:.2f} s"
    )
    for failure in tally.failures:
        print(f"  BROKEN: {failure}")
    return 1 if tally.failures else 0


def choose(words: Sequence[str], short: bool) -> list[Case]:
    """The cases whose names hold any of these words, in the order in which they stand in the files."""
    cases = [case for case in CASES.values() if case.is_short or not short]
    return [case for case in cases if not words or any(word in case.name for word in words)]


def run(case: Case, pace: Pace) -> Report:
    """Run one case on a stage of its own."""
    with Stage() as stage:
        trial = Trial(case, stage, pace)
        progress(f"{case.name} ...")
        try:
            case.run(trial)
        except Missing as exc:
            trial.report.skipped = str(exc)
        except NotReady as exc:
            trial.report.broken.append(f"a service did not start: {exc}")
        if trial.report.broken:
            trial.report.logs = stage.logs()
    return trial.report


def tell(report: Report, is_json: bool) -> Report:
    """Print the line of a case, with what was broken below it."""
    progress("")
    if not is_json:
        print(line(report), flush=True)
        for text in report.broken:
            print(f"{'':{WIDTH}}   BROKEN: {text}", flush=True)
    return report


HEADER = f"{'':{WIDTH}} faults   sent  right refused  lost | seconds: refused after  slowest  back after"


def line(report: Report) -> str:
    """The row of a case in the table."""
    if report.skipped:
        return f"{report.name:{WIDTH}} skipped: {report.skipped}"
    refused = sum(report.refused.values())
    numbers = f"{len(report.faults):6} {report.sent:6} {report.right:6} {refused:7} {report.lost:5}"
    after = f"{report.refused_after:.2f}" if refused else ""
    back = f"{max(report.recovered):.2f}" if report.recovered else ""
    return f"{report.name:{WIDTH}} {numbers} | {after:>22} {report.slowest:8.2f} {back:>11}"


def progress(text: str) -> None:
    """One line that the next one overwrites, for a person at a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
