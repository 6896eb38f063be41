"""Compares this project with other servers: throughput, latency, CPU, memory and start time, in one table.

    python run.py bench                             everything, about 20 minutes
    python run.py bench --rounds 1 --seconds 3      a short run
    python run.py bench --only "this project" LitServe

All contestants get the same photos and the same SavedModel. Each is started in turn, checked for right answers, and
loaded. There are several rounds, each in another order. LitServe and BentoML are installed into environments of their
own under .build/. It needs wrk. It writes bench.md, bench.json and charts. Do not use the computer meanwhile.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tools.bench import charts, report, scaling
from tools.bench.closed_loop import require_wrk
from tools.bench.contestants import OURS, TUTORIAL, Contestant, contestants, install_packages_of, named
from tools.bench.environments import ENVIRONMENTS, BenchError
from tools.bench.limit import MODEL, newest_version, usable_cores
from tools.bench.photos import shipped_photos
from tools.bench.report import Results
from tools.bench.samples import LoadError
from tools.bench.turns import Plan, Turn, take_turn
from tools.service import PROJECT, read_config

LIMIT_PROGRAM = "tools.bench.limit"


def main() -> int:
    """Run the bench; return 0, or 1 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--seconds", type=int, default=4, help="seconds of each load (default 4)")
    parser.add_argument("--rate", type=float, default=30, help="photos per second in the open loop (default 30)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants whose name contains one of these words")
    parser.add_argument("--no-scaling", action="store_true", help="leave out clients, photo sizes and batches")
    parser.add_argument("--out", type=Path, default=ENVIRONMENTS / "results", help="the folder for the results")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, options.rate) <= 0:
        parser.error("--rounds, --seconds and --rate must be more than 0")
    try:
        publish(run(options), options.out)
    except (BenchError, LoadError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(options: argparse.Namespace) -> Results:
    """Run all rounds; raises BenchError and LoadError."""
    require_wrk()
    model, cores = newest_version(MODEL), usable_cores()
    everybody = contestants(read_config(None), model, cores)
    chosen = named(everybody, options.only) if options.only else everybody
    if OURS not in [one.name for one in chosen]:
        raise BenchError(f"--only must include {OURS!r}: all ratios are relative to it")
    left_out = install_packages_of(chosen)
    chosen = [one for one in chosen if one.name not in left_out]
    plan = Plan(options.seconds, options.rate)
    taken: dict[str, list[Turn]] = {one.name: [] for one in chosen}
    limits: list[Mapping[str, Any]] = []
    with tqdm(total=options.rounds * (len(chosen) + 1), unit="turn") as progress:
        for number in range(options.rounds):
            progress.set_description("the limit")
            limits.append(measure_limit(options.seconds))
            progress.update()
            for name, turn in take_round(rotated(chosen, number), plan, left_out, progress).items():
                taken[name].append(turn)
        grown = None if options.no_scaling else _grow(everybody, options.seconds, progress)
    measured = [one for one in chosen if one.name not in left_out]
    name = f"{MODEL.name} version {model.name}"
    return Results(measured, taken, limits, grown, plan, name, cores, left_out)


def take_round(
    contestants: Sequence[Contestant], plan: Plan, left_out: dict[str, str], progress: Any
) -> dict[str, Turn]:
    """Measure each contestant that is not left out once.

    If another server does not start or answers wrongly, it is added to `left_out` with the reason. If it is this
    project, BenchError or LoadError is raised.
    """
    taken = {}
    for contestant in contestants:
        if contestant.name not in left_out:
            try:
                tell = teller(progress, contestant.name)
                taken[contestant.name] = take_turn(contestant, shipped_photos(), plan, tell)
            except (BenchError, LoadError) as exc:
                if contestant.name == OURS:
                    raise
                left_out[contestant.name] = str(exc)
                progress.write(f"Left out: {contestant.name}: {exc}", file=sys.stderr)
        progress.update()
    return taken


def measure_limit(seconds: float) -> Mapping[str, Any]:
    """Run limit.py in a process of its own and return its results; raises BenchError."""
    command = [sys.executable, "-m", LIMIT_PROGRAM, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode:
        raise BenchError(f"limit.py failed: {done.stderr.strip()}")
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def rotated(chosen: Sequence[Contestant], number: int) -> list[Contestant]:
    """Return the contestants in another order for each round, so that none is always first or last."""
    first = number * max(1, len(chosen) // 3) % len(chosen)
    return [*chosen[first:], *chosen[:first]]


def teller(progress: Any, name: str) -> Callable[[str], None]:
    """Return a function that shows the present step at the progress bar."""
    return lambda what: progress.set_description(f"{name}: {what}")


def _grow(everybody: Sequence[Contestant], seconds: float, progress: Any) -> scaling.Scaling:
    ours = everybody[0]
    tutorial = next(one for one in everybody if one.name.startswith(TUTORIAL))
    return scaling.measure(ours, tutorial, max(2, seconds / 2), teller(progress, "scaling"))


def publish(results: Results, folder: Path) -> None:
    """Write table, figures and charts, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = report.markdown(results)
    (folder / "bench.md").write_text(table, encoding="utf-8")
    report.write_json(results, folder / "bench.json")
    pictures = charts.draw(results, folder)
    print(f"\n{table}")
    print("Written:", *(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path for path in pictures))
