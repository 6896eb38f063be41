"""Compares throughput side by side: all contestants run at the same time and are loaded in turn for short times.

    python -m tools.bench.side_by_side                  ours, the limit, and all without TensorFlow: about ten minutes
    python -m tools.bench.side_by_side --turns 60 --only "bare pair"
    python -m tools.bench.side_by_side --turns 30 --against ../before      only another checkout

On a shared machine the speed of one program changes within minutes, by more than the differences that are measured
here. So no contestant is restarted between two loads, the loads of one turn follow each other within seconds in random
order, and a ratio compares two rates of the same turn. This program measures only ratios of throughput; for everything
else use `python run.py bench`. It needs wrk too.
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
# With TensorFlow, all contestants together would need most of a laptop's memory. Its ratios are clear without this.
DEFAULT = ("bare pair", "OpenVINO")

# How often each setting of the limit is measured before the best one is chosen.
TRIALS = 7

# Loads one contestant for a number of seconds; returns its answers per second.
Measure = Callable[[float], float]


@dataclass(frozen=True)
class Ratio:
    """The ratio of two throughputs: the geometric mean over the turns, and its standard error."""

    mean: float
    error: float


def main() -> int:
    """Measure and print a table; return 0, or 1 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40, help="turns (default 40)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of each load (default 2)")
    parser.add_argument("--clients", type=int, default=BUSY_CLIENTS, help=f"clients (default {BUSY_CLIENTS})")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=DEFAULT, help="those whose name contains one of these"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="only another checkout (git worktree add FOLDER COMMIT)"
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
    """Start ours, and the limit and the contestants named in `only`, or another checkout; `stack` stops them.

    Raises BenchError and LoadError if one does not start, answers wrongly, or can't be loaded.
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
    """Return the fastest by its median. The maximum would depend on the machine's best moment."""
    rates = [[way(1) for way in ways] for _ in range(TRIALS)]
    medians = [statistics.median(of_one) for of_one in zip(*rates, strict=True)]
    return ways[medians.index(max(medians))]


def take_turns(everybody: Mapping[str, Measure], turns: int, seconds: float) -> dict[str, list[float]]:
    """Return the answers per second of each contestant, one value per turn, without the first one: it is a warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in everybody}
    with tqdm(total=(turns + 1) * len(everybody), unit="load") as progress:
        for turn in range(turns + 1):
            for name in random.sample(list(everybody), len(everybody)):
                progress.set_description(name)
                rate = everybody[name](seconds)
                if turn:
                    rates[name].append(rate)
                progress.update()
    return rates


def ratio(ours: Sequence[float], others: Sequence[float]) -> Ratio:
    """Compare turn by turn. With one turn the error is NaN. Raises LoadError if a turn had no answer."""
    if not all((*ours, *others)):
        raise LoadError("nothing was answered in one of the loads: use more --seconds")
    logarithms = [math.log(mine / theirs) for mine, theirs in zip(ours, others, strict=True)]
    mean = math.exp(statistics.mean(logarithms))
    error = statistics.stdev(logarithms) / math.sqrt(len(logarithms)) if len(logarithms) > 1 else math.nan
    return Ratio(mean, mean * error)


def table(rates: Mapping[str, Sequence[float]]) -> str:
    """Return a Markdown table: the median rate of each contestant, and the ratio of our rate to it."""
    lines = ["| | answers a second | ours to it |", "| --- | --- | --- |"]
    for name, found in rates.items():
        times = ratio(rates[OURS], found)
        shown = "" if name == OURS else f"{times.mean:.3f} ± {times.error:.3f}"
        lines.append(f"| {name} | {statistics.median(found):.0f} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
