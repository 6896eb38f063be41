"""The fault suite: makes the services or their environment fail under load, and counts the results.

    python run.py chaos                      all cases
    python run.py chaos "model server"       the cases whose name contains these words
    python run.py chaos --list               print the names of all cases
    python run.py chaos --attacks            attacks: are other clients answered, and is memory released?
    python run.py chaos --attacks --refused 10000   that many rejected files: does memory grow?
    python run.py chaos --soak 50000         that many requests of all kinds: does memory grow, does anything leak?
    python run.py chaos --starts 500         start and stop the model server that often under load

Each case starts real processes, sends predictions continuously, and makes something fail. It prints one line with the
number of requests: sent, right (the right animal in each photo), refused properly (status and code as in docs/api.md,
while the fault lasted), and lost (anything else: broken connections, wrong answers, time-outs). The line also has in
seconds: the median time of a refusal, the slowest answer, and the time from the end of the fault to the next right
answer. The exit status is 1 if a promise was broken.

An attack runs on a new pair, or on that of the attack before if it kept all promises. It prints one line: the bytes
sent, the peak and the later memory of each service in MB, its CPU seconds, the slowest small photo and /livez of other
clients, the time until the pair was idle, and the answers to the attacker. The promises: memory as in the containers,
700 and 512 MB, and at most 20 % above the start after 30 s; a small photo within 1 s, or 2 s beside hundreds of
connections; /livez within 0.25 s; idle after 12 s; each answer with a reason, within 12 s. These times are for two
cores without other load; --slack 4 multiplies them. A service with more than 1.5 GB or an attack of more than 40 s is
killed. A few words of an attack's name are enough, for example TIFF: or grpc:. --list explains all attacks.
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
    parser.add_argument("cases", nargs="*", help="words of names; none: all cases")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--short", action="store_true", help="only the most important cases, at a low rate")
    parser.add_argument("--rate", type=float, default=Pace.rate, help="requests per second (default %(default)s)")
    parser.add_argument("--clients", type=int, default=Pace.clients, help="connections (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--attacks", action="store_true", help="run attacks in place of the cases")
    parser.add_argument("--slack", type=float, default=1.0, help="with --attacks: multiply the time limits by this")
    parser.add_argument("--refused", type=int, metavar="N", help="with --attacks: N rejected files; does memory grow?")
    parser.add_argument("--soak", type=int, metavar="N", help="N requests of all kinds; does memory grow?")
    parser.add_argument("--starts", type=int, metavar="N", help="start and stop the model server N times")
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
        parser.error(f"no case has this name; the cases are: {', '.join(CASES)}")
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
        parser.error("no attack has this name; --attacks --list names all")
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
        print(f"{count:7} {kind}: {status or 'disconnected'}")
    for name, samples in diary.samples.items():
        for text, one in (("after the first tenth", samples[0]), ("at the end", samples[-1])):
            print(f"{name}, {text}: {one.megabytes:.1f} MB, {one.files} open files, {one.threads} threads")
    for text in diary.broken():
        print(f"BROKEN: {text}")
    return 1 if diary.broken() else 0


def tell_starts(tally: starts.Tally) -> int:
    print(
        f"{tally.starts} starts and stops under load: {tally.answered} right predictions, {tally.cut_off} cut off by "
        f"the stop, {len(tally.failures)} stuck or failed; the slowest stop took {tally.longest_stop:.2f} s"
    )
    for failure in tally.failures:
        print(f"  BROKEN: {failure}")
    return 1 if tally.failures else 0


def choose(words: Sequence[str], short: bool) -> list[Case]:
    """Return the cases whose names contain one of these words, in the order of their definition."""
    cases = [case for case in CASES.values() if case.is_short or not short]
    return [case for case in cases if not words or any(word in case.name for word in words)]


def run(case: Case, pace: Pace) -> Report:
    """Run one case."""
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
    """Print the line of a case, and the broken promises below it."""
    progress("")
    if not is_json:
        print(line(report), flush=True)
        for text in report.broken:
            print(f"{'':{WIDTH}}   BROKEN: {text}", flush=True)
    return report


HEADER = f"{'':{WIDTH}} faults   sent  right refused  lost | seconds: refused after  slowest  back after"


def line(report: Report) -> str:
    """Return the row of a case in the table."""
    if report.skipped:
        return f"{report.name:{WIDTH}} skipped: {report.skipped}"
    refused = sum(report.refused.values())
    numbers = f"{len(report.faults):6} {report.sent:6} {report.right:6} {refused:7} {report.lost:5}"
    after = f"{report.refused_after:.2f}" if refused else ""
    back = f"{max(report.recovered):.2f}" if report.recovered else ""
    return f"{report.name:{WIDTH}} {numbers} | {after:>22} {report.slowest:8.2f} {back:>11}"


def progress(text: str) -> None:
    """Show a line on a terminal, in place of the one before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
