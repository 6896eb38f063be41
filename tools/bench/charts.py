"""The charts of the bench: throughput by clients, latency at a fixed rate, time by stage, and scaling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from tools.bench import turns
from tools.bench.contestants import OURS
from tools.bench.report import Results
from tools.bench.scaling import Scaling

matplotlib.use("Agg")  # writes files and needs no screen

from matplotlib import pyplot

# In the order of a request. Stages that are not listed here come last.
STEPS = ("client", "read", "queue", "decode", "resize", "model", "other")


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw all charts for which there are results, as PNG; return the files."""
    files = {"bench_throughput.png": _throughput, "bench_latency.png": _latency}
    for name, paint in files.items():
        figure, axes = pyplot.subplots(figsize=(8.5, 4.5))
        paint(results, axes)
        _save(figure, folder / name)
    if results.scaling is None:
        return [folder / name for name in files]
    _steps(results.scaling, folder / "bench_steps.png")
    _scaling(results.scaling, folder / "bench_scaling.png")
    return [folder / name for name in (*files, "bench_steps.png", "bench_scaling.png")]


def _throughput(results: Results, axes: Any) -> None:
    axes.axhline(results.limit_rate, color="grey", linestyle="--", label="the limit")
    for contestant in results.contestants:
        found = turns.rates(results.turns[contestant.name])
        medians = [rate.median for rate in found.values()]
        around = [
            [rate.median - rate.least for rate in found.values()],
            [rate.most - rate.median for rate in found.values()],
        ]
        axes.errorbar(list(found), medians, around, capsize=2, label=contestant.name, **_style(contestant.name))
    axes.set_xscale("log", base=2)
    axes.set_xticks(turns.CLIENTS, map(str, turns.CLIENTS))
    axes.set(xlabel="clients", ylabel="answers a second", title="throughput", ylim=(0, None))
    _legend(axes)


def _latency(results: Results, axes: Any) -> None:
    for contestant in results.contestants:
        found = turns.distribution(results.turns[contestant.name])
        axes.plot(found, range(1, 100), label=contestant.name, **(_style(contestant.name) | {"marker": ""}))
    axes.set_xscale("log")
    axes.set(
        xlabel="milliseconds", ylabel="% answered within", title=f"latency at {results.plan.rate:g} photos a second"
    )
    axes.grid(alpha=0.3)
    _legend(axes)


def _steps(scaling: Scaling, target: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(8.5, 2.8))
    rows = [f"{clients} client{'s' * (clients > 1)}" for clients in scaling.steps]
    lefts = [0.0] * len(rows)
    known = {step for found in scaling.steps.values() for step in found}
    for step in [step for step in STEPS if step in known] + sorted(known - set(STEPS)):
        widths = [found.get(step, 0.0) / sum(found.values()) for found in scaling.steps.values()]
        axes.barh(rows, widths, left=lefts, label=step)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for row, found in enumerate(scaling.steps.values()):
        axes.text(1.01, row, f"{sum(found.values()):.0f} ms", va="center")
    axes.set(title="time by step, as a share", xlim=(0, 1))
    axes.legend(ncols=len(known), loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize=8)
    _save(figure, target)


def _scaling(scaling: Scaling, target: Path) -> None:
    figure, (clients, sizes, batches) = pyplot.subplots(1, 3, figsize=(12, 3.8))
    _line(clients, scaling.clients, "clients", OURS)
    for name, found in scaling.sizes.items():
        _line(sizes, found, "megabytes of the photo", name)
    _line(batches, scaling.batches, "photos in a request", OURS)
    clients.set(ylabel="photos a second", ylim=(0, None))
    sizes.set(yscale="log")
    batches.set(ylim=(0, None))
    sizes.legend(fontsize=8)
    _save(figure, target)


def _line(axes: Any, points: Mapping[int, float] | Mapping[float, float], label: str, name: str) -> None:
    axes.plot(list(points), list(points.values()), label=name, **_style(name))
    axes.set_xscale("log")
    axes.set_xticks(list(points), [f"{point:.2g}" if point < 1 else f"{point:.3g}" for point in points], fontsize=8)
    axes.minorticks_off()
    axes.set(xlabel=label)


def _style(name: str) -> dict[str, Any]:
    ours = name == OURS
    return {"marker": "o", "linewidth": 2.4 if ours else 1.2, "markersize": 5 if ours else 3}


def _legend(axes: Any) -> None:
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _save(figure: Any, target: Path) -> None:
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    pyplot.close(figure)
