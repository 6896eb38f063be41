"""The results of the bench: a table in Markdown, and all figures in JSON."""

import json
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.bench import turns
from tools.bench.contestants import OURS, Contestant
from tools.bench.scaling import Scaling
from tools.bench.turns import BUSY_CLIENTS, CLIENTS, Plan, Spread, Turn

LIMIT = "the limit: decode, resize and network in one process"


@dataclass(frozen=True)
class Results:
    """All measurements, and what they were made with; `left_out` has the reason for each missing contestant."""

    contestants: Sequence[Contestant]
    turns: Mapping[str, Sequence[Turn]]
    limits: Sequence[Mapping[str, Any]]
    scaling: Scaling | None
    plan: Plan
    model: str
    cores: int
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def limit_rate(self) -> float:
        """Photos per second with the best setting; the median over the rounds."""
        return float(statistics.median(max(limit["rates"].values()) for limit in self.limits))

    @property
    def limit_ms(self) -> float:
        """Milliseconds of decode, resize and network for a single photo; the median over the rounds."""
        return float(statistics.median(sum(limit["steps_ms"].values()) for limit in self.limits))


def markdown(results: Results) -> str:
    """Return the table, with model, machine, settings and ratios."""
    lines = [
        f"{results.cores} cores ({platform.machine()}), Python {platform.python_version()}, {results.model}, "
        f"JSON with base64, median of {len(results.limits)} interleaved rounds of {results.plan.seconds:g} s "
        "(± half of what lies between the least and the most).",
        "",
        f"| | answers a second, {_slashes(CLIENTS)} clients | p50 at 1, ms | p50 / p95 / p99 at {BUSY_CLIENTS}, ms | "
        f"p50 / p99 at {results.plan.rate:g} a second, ms | CPU a photo, ms | memory, MB | start, s | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        _limit_row(results),
        *(_row(contestant.name, results.turns[contestant.name]) for contestant in results.contestants),
        "",
        f"CPU and memory are those at {BUSY_CLIENTS} clients, of all processes; what they share is counted once: "
        + _parts(results),
        "Settings: "
        + "; ".join(f"{contestant.name}: {contestant.settings}" for contestant in results.contestants)
        + f"; the limit: {results.limits[0]['best']}.",
        *(f"Left out: {name}: {reason}." for name, reason in results.left_out.items()),
        "",
        *(f"- {name}: {value:.2f}" for name, value in ratios(results).items()),
        "",
    ]
    return "\n".join(lines)


def ratios(results: Results) -> dict[str, float]:
    """Return the ratios by which this project is judged, all from this run."""
    ours = results.turns[OURS]
    found = {f"throughput at {BUSY_CLIENTS} clients to the limit's": _ratio(_busy(ours), results.limit_rate)}
    for contestant in results.contestants:
        if contestant.name != OURS:
            others = results.turns[contestant.name]
            found[f"throughput at {BUSY_CLIENTS} clients to that of {contestant.name}"] = _ratio(
                _busy(ours), _busy(others)
            )
    found["p50 at 1 client to decode, resize and network alone"] = turns.latency(ours, 1, 50).median / results.limit_ms
    p99, p50 = (turns.latency(ours, BUSY_CLIENTS, percent).median for percent in (99, 50))
    found[f"p99 to p50 at {BUSY_CLIENTS} clients"] = p99 / p50
    if results.scaling:
        mine, tutorial = results.scaling.sizes.values()
        found["throughput with a photo of 12 megapixels to the tutorial's"] = _ratio(
            mine[max(mine)], tutorial[max(tutorial)]
        )
    return found


def write_json(results: Results, target: Path) -> None:
    """Write all figures of all rounds."""
    content = {
        "model": results.model,
        "cores": results.cores,
        "plan": asdict(results.plan),
        "settings": {contestant.name: contestant.settings for contestant in results.contestants},
        "turns": {name: [asdict(turn) for turn in taken] for name, taken in results.turns.items()},
        "limits": list(results.limits),
        "ratios": ratios(results),
        "left_out": dict(results.left_out),
        "scaling": asdict(results.scaling) if results.scaling else None,
    }
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _ratio(ours: float, others: float) -> float:
    # A contestant without an answer in a short phase counts as infinitely slower.
    return ours / others if others else math.inf


def _busy(taken: Sequence[Turn]) -> float:
    return turns.rates(taken)[BUSY_CLIENTS].median


def _limit_row(results: Results) -> str:
    best = turns.spread(max(limit["rates"].values()) for limit in results.limits)
    cpu = statistics.median(limit["cpu_ms"] for limit in results.limits)
    memory = statistics.median(limit["megabytes"] for limit in results.limits)
    return f"| {LIMIT} | {_spread(best)} | {results.limit_ms:.1f} | | | {cpu:.1f} | {memory:.0f} | | |"


def _row(name: str, taken: Sequence[Turn]) -> str:
    busy = [f"{turns.latency(taken, BUSY_CLIENTS, percent).median:.0f}" for percent in (50, 95, 99)]
    opened = turns.distribution(taken)
    cells = [
        f"**{name}**" if name == OURS else name,
        _slashes(_spread(rate) for rate in turns.rates(taken).values()),
        f"{turns.latency(taken, 1, 50).median:.1f}",
        _slashes(busy),
        f"{opened[49]:.1f} / {opened[98]:.1f}",
        f"{statistics.median(sum(turn.cpu_ms.values()) for turn in taken):.1f}",
        f"{statistics.median(sum(turn.megabytes.values()) for turn in taken):.0f}",
        f"{statistics.median(turn.start_s for turn in taken):.1f}",
        str(turns.errors(taken)),
    ]
    return f"| {' | '.join(cells)} |"


def _parts(results: Results) -> str:
    ours = results.turns[OURS]
    parts = [
        f"{name} {statistics.median(turn.cpu_ms[name] for turn in ours):.1f} ms and "
        f"{statistics.median(turn.megabytes[name] for turn in ours):.0f} MB"
        for name in ours[0].cpu_ms
    ]
    load = statistics.median(turn.load_cpu_ms for turn in ours)
    return f"of {OURS}, {', '.join(parts)}. The load generator, which shares the cores, took {load:.1f} ms a photo."


def _spread(value: Spread) -> str:
    return f"{value.median:.0f} ± {(value.most - value.least) / 2:.0f}"


def _slashes(values: Any) -> str:
    return " / ".join(map(str, values))
