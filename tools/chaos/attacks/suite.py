"""Runs the attacks and prints one line for each."""

import json
from collections.abc import Sequence

from tools.chaos.attacks import (
    http_floods,  # noqa: F401 - its cases register themselves
    model_grpc,  # noqa: F401
    model_rest,  # noqa: F401
    pictures,  # noqa: F401
    refused,
)
from tools.chaos.attacks.attack import CASES, Case, Pace, Report
from tools.chaos.attacks.pair import Pair

WIDTH = max(map(len, CASES))
HEADER = (
    f"{'':{WIDTH}} requests      bytes | preprocess: peak  back  CPU s | model: peak  back  CPU s | "
    "slowest photo  /livez | idle after"
)


def choose(words: Sequence[str], short: bool) -> list[Case]:
    """Return the attacks whose names contain one of these words, in the order of their definition."""
    cases = [case for case in CASES.values() if case.is_short or not short]
    return [case for case in cases if not words or any(word in case.name for word in words)]


def run(chosen: Sequence[Case], pace: Pace, is_json: bool) -> int:
    """Run attacks against a pair; return the exit status. After a broken promise the pair is restarted."""
    reports = []
    with Pair() as pair:
        if not is_json:
            quiet = pair.quiet()
            print(f"before: slowest photo {quiet.slowest_photo:.2f} s, /livez {quiet.slowest_livez:.2f} s\n{HEADER}")
        for case in chosen:
            reports.append(pair.run(case, pace))
            if not is_json:
                print(line(reports[-1]), flush=True)
            if reports[-1].broken and case is not chosen[-1]:
                pair.restart()
    if is_json:
        print(json.dumps([report.as_json() for report in reports], indent=2))
    broken = [report for report in reports if report.broken]
    if not is_json:
        print(f"{len(reports)} attacks, {len(broken)} of them broke a promise")
    return 1 if broken else 0


def line(report: Report) -> str:
    """Return the row of an attack in the table, and the broken promises below it."""
    services = []
    for name in ("preprocess service", "model server"):
        peak, back = report.peaks.get(name, 0.0), report.back.get(name, 0.0)
        services.append(f"{peak:5.0f} {back:5.0f} {report.cpu_s.get(name, 0.0):6.1f}")
    text = (
        f"{report.name:{WIDTH}} {report.requests:8} {report.sent:10} | {services[0]:>23} | {services[1]:>18} | "
        f"{report.slowest_photo:13.2f} {report.slowest_livez:7.2f} | {report.idle_after:10.1f}"
    )
    answers = ", ".join(f"{count} {text}" for text, count in sorted(report.answers.items()))
    text += f"  {'BROKEN' if report.broken else 'held'}  {answers}"
    return "\n".join([text, *(f"{'':{WIDTH}}   BROKEN: {broken}" for broken in report.broken)])


def tell_refused(told: refused.Refused) -> int:
    """Print the result of the rejected files; return the exit status."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(told.statuses.items()))
    first, rest = told.megabytes[0], told.megabytes[1:]
    print(f"{statuses}; {first:.1f} MB after the first {refused.FIRST}, then {', '.join(f'{one:.1f}' for one in rest)}")
    for text in told.broken:
        print(f"BROKEN: {text}")
    return 1 if told.broken else 0
