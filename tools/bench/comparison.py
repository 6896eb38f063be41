"""How fast, beside what people would use instead: throughput, latency, CPU, memory and start-up, in one table.

    python run.py bench                             all of it, about 20 minutes
    python run.py bench --rounds 1 --seconds 3      a first look
    python run.py bench --only "this project" LitServe

Everything that is compared is started in turn, on the same photos and the same SavedModel, asked for the right answers
first, and loaded in several rounds, in another order each time. LitServe and BentoML are installed into environments of
their own under .build/. Needs wrk. Writes bench.md, bench.json and plots; leave the machine alone meanwhile.
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
    """Measure what is asked for; 1, and one line that says why, where that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default 3)")
    parser.add_argument("--seconds", type=int, default=4, help="of each stretch of load (default 4)")
    parser.add_argument("--rate", type=float, default=30, help="photos a second in the open loop (default 30)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose name holds one of these words")
    parser.add_argument("--no-scaling", action="store_true", help="leave out clients, photo sizes and batches")
    parser.add_argument("--out", type=Path, default=ENVIRONMENTS / "results", help="the folder to write to")
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
    """All rounds; raises BenchError and LoadError."""
    require_wrk()
    model, cores = newest_version(MODEL), usable_cores()
    everybody = contestants(read_config(None), model, cores)
    chosen = named(everybody, options.only) if options.only else everybody
    if OURS not in [one.name for one in chosen]:
        raise BenchError(f"--only must leave {OURS!r} in: all ratios are to it")
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
    """A turn of each that is not left out.

    A rival that does not start, or answers wrongly, is put into `left_out`, and the others go on; raises BenchError
    and LoadError where that is ours.
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
                progress.write(f"Left out, {contestant.name}: {exc}", file=sys.stderr)
        progress.update()
    return taken


def measure_limit(seconds: float) -> Mapping[str, Any]:
    """What limit.py finds, in a process of its own; raises BenchError."""
    command = [sys.executable, "-m", LIMIT_PROGRAM, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode:
        raise BenchError(f"limit.py failed: {done.stderr.strip()}")
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def rotated(chosen: Sequence[Contestant], number: int) -> list[Contestant]:
    """Another one first in each round, so that none always runs on the warm, or the tired, machine."""
    first = number * max(1, len(chosen) // 3) % len(chosen)
    return [*chosen[first:], *chosen[:first]]


def teller(progress: Any, name: str) -> Callable[[str], None]:
    """Shows what is being done beside the progress bar."""
    return lambda what: progress.set_description(f"{name}: {what}")


def _grow(everybody: Sequence[Contestant], seconds: float, progress: Any) -> scaling.Scaling:
    ours = everybody[0]
    tutorial = next(one for one in everybody if one.name.startswith(TUTORIAL))
    return scaling.measure(ours, tutorial, max(2, seconds / 2), teller(progress, "scaling"))


def publish(results: Results, folder: Path) -> None:
    """Write and print the table, the figures and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    table = report.markdown(results)
    (folder / "bench.md").write_text(table, encoding="utf-8")
    report.write_json(results, folder / "bench.json")
    pictures = charts.draw(results, folder)
    print(f"\n{table}")
    print("Written:", *(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path for path in pictures))
