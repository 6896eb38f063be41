"""How many times as fast as the limit and as others: all of them up at once, short stretches of load in turn.

    python -m tools.bench.side_by_side                  ours, the limit, and all without TensorFlow: some ten minutes
    python -m tools.bench.side_by_side --turns 60 --only "bare pair"
    python -m tools.bench.side_by_side --turns 30 --against ../before      and nothing else but another checkout

On a machine that others use too, the same program is faster at one time than some minutes later, by more than what is
compared here. So nothing is restarted between two stretches, those of one turn lie seconds apart, in an order drawn by
lot, and a ratio is that of two rates of the same turn. Only for ratios of throughput; all else is what
`python run.py bench` tells. Needs wrk, too.
"""

import argparse
import contextlib
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tools.bench.closed_loop import closed_loop, require_wrk
from tools.bench.contestants import OURS, checkout, contestants, install_packages_of, named
from tools.bench.environments import BenchError
from tools.bench.limit import MODEL, Network, newest_version, throughput, usable_cores, ways
from tools.bench.photos import shipped_photos
from tools.bench.running import check, running
from tools.bench.samples import LoadError
from tools.bench.turns import BUSY_CLIENTS, write_bodies
from tools.service import read_config

LIMIT = "the limit"
# Where each of these is up, TensorFlow would take most of a laptop's memory; its ratios are far from any noise.
DEFAULT = ("bare pair", "OpenVINO")

# Of each way to share the cores, before the best one is taken for the limit.
TRIALS = 7

# Loads one for so many seconds; gives its answers a second.
Measure = Callable[[float], float]


@dataclass(frozen=True)
class Ratio:
    """How many times as fast: the geometric mean over the turns, and its standard error."""

    mean: float
    error: float


def main() -> int:
    """Measure, and print a table; 1, and one line that says why, where that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40, help="stretches of each (default 40)")
    parser.add_argument("--seconds", type=int, default=2, help="of each stretch (default 2)")
    parser.add_argument("--clients", type=int, default=BUSY_CLIENTS, help=f"default {BUSY_CLIENTS}")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=DEFAULT, help="those whose name holds one of these"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="only another checkout, as of: git worktree add FOLDER COMMIT"
    )
    options = parser.parse_args()
    if min(options.turns, options.seconds, options.clients) < 1:
        parser.error("--turns, --seconds and --clients must be 1 or more")
    try:
        with contextlib.ExitStack() as stack:
            everybody = start(stack, options.only, options.clients, options.against)
            rates = take_turns(everybody, options.turns, options.seconds)
        print(table(rates))
    except (BenchError, LoadError) as exc:
        print(f"side_by_side: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def start(
    stack: contextlib.ExitStack, only: Sequence[str], clients: int, against: Path | None = None
) -> dict[str, Measure]:
    """Start ours, the limit, and those whose name holds one of the words, or another checkout; `stack` ends them.

    Raises BenchError and LoadError where one does not start, does not answer rightly, or can't be loaded.
    """
    require_wrk()
    config, model, cores = read_config(None), newest_version(MODEL), usable_cores()
    chosen = named(contestants(config, model, cores), [OURS, *([] if against else only)])
    if against:
        chosen.append(checkout(against.resolve(), str(against), config, model))
    left_out = install_packages_of(chosen)
    photos = shipped_photos()
    bodies = write_bodies(photos, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    pictures = [photo.data for photo in photos]

    def load_of(url: str) -> Measure:
        return lambda seconds: closed_loop(url, bodies, clients, seconds).requests_per_second

    def limit_of(streams: int, threads: int, callers: int) -> Measure:
        network = Network(model, streams, threads)
        return lambda seconds: throughput(pictures, config, network, callers, seconds)

    everybody: dict[str, Measure] = {}
    for contestant in chosen:
        if contestant.name not in left_out:
            service = stack.enter_context(running(contestant, photos[0]))
            check(service, photos)
            everybody[contestant.name] = load_of(service.url)
    if not against:
        everybody[LIMIT] = fastest([limit_of(*way) for way in ways(cores)])
    return everybody


def fastest(ways: Sequence[Measure]) -> Measure:
    """The one with the most answers a second: by its median of turns, not by its best, which is that of the machine."""
    rates = [[way(1) for way in ways] for _ in range(TRIALS)]
    medians = [statistics.median(of_one) for of_one in zip(*rates, strict=True)]
    return ways[medians.index(max(medians))]


def take_turns(everybody: Mapping[str, Measure], turns: int, seconds: float) -> dict[str, list[float]]:
    """Answers a second of each, turn by turn; the first turn warms up and does not count."""
    rates: dict[str, list[float]] = {name: [] for name in everybody}
    with tqdm(total=(turns + 1) * len(everybody), unit="stretch") as progress:
        for turn in range(turns + 1):
            for name in random.sample(list(everybody), len(everybody)):
                progress.set_description(name)
                rate = everybody[name](seconds)
                if turn:
                    rates[name].append(rate)
                progress.update()
    return rates


def ratio(ours: Sequence[float], others: Sequence[float]) -> Ratio:
    """Turn by turn; a single one has no error (NaN). Raises LoadError where one of them had no answer at all."""
    if not all((*ours, *others)):
        raise LoadError("nothing was answered in one of the stretches: give them more --seconds")
    logarithms = [math.log(mine / theirs) for mine, theirs in zip(ours, others, strict=True)]
    mean = math.exp(statistics.mean(logarithms))
    error = statistics.stdev(logarithms) / math.sqrt(len(logarithms)) if len(logarithms) > 1 else math.nan
    return Ratio(mean, mean * error)


def table(rates: Mapping[str, Sequence[float]]) -> str:
    """In Markdown: the median of each, and how many times as fast ours is."""
    lines = ["| | answers a second | ours to it |", "| --- | --- | --- |"]
    for name, found in rates.items():
        times = ratio(rates[OURS], found)
        shown = "" if name == OURS else f"{times.mean:.3f} ± {times.error:.3f}"
        lines.append(f"| {name} | {statistics.median(found):.0f} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
