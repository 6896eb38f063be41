"""Counters, histograms and gauges, and the text that Prometheus reads.

By hand, because TensorFlow Serving's names are wanted: prometheus_client ends the name of every counter in `_total`, so
it can't spell `:tensorflow:serving:request_count`.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, KeysView, Sequence
from itertools import accumulate

from model_service.models.servables import OTHERS

# Names of models come from requests, also made-up ones: no more series than this, or strangers could fill the memory.
MAX_SERIES = 1000


class Counter:
    """Counts, for each combination of labels; may be used from any thread."""

    def __init__(self, name: str, *labels: str) -> None:
        self._name = name
        self._labels = labels
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], int] = {}

    def count(self, *values: str) -> None:
        """Add one to the count with these values of the labels."""
        with self._lock:
            values = _bounded(self._counts.keys(), values)
            self._counts[values] = self._counts.get(values, 0) + 1

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text, without line breaks."""
        with self._lock:
            counts = dict(self._counts)
        yield f"# TYPE {self._name} counter"
        for values, count in counts.items():
            yield sample(self._name, count, dict(zip(self._labels, values, strict=True)))


class Histogram:
    """Sorts numbers into buckets, for each combination of labels; may be used from any thread."""

    def __init__(self, name: str, limits: Sequence[float], *labels: str) -> None:
        self._name = name
        self._limits = limits
        self._labels = labels
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, ...], float] = {}
        self._counts: dict[tuple[str, ...], list[int]] = {}

    def observe(self, number: float, *values: str) -> None:
        """Count a number in the first bucket that it isn't larger than."""
        with self._lock:
            values = _bounded(self._counts.keys(), values)
            counts = self._counts.setdefault(values, [0] * (len(self._limits) + 1))
            counts[bisect_left(self._limits, number)] += 1
            self._sums[values] = self._sums.get(values, 0.0) + number

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text, without line breaks; each bucket counts what the ones below it do, too."""
        with self._lock:
            series = [(values, list(counts), self._sums[values]) for values, counts in self._counts.items()]
        yield f"# TYPE {self._name} histogram"
        edges = [*(f"{limit:g}" for limit in self._limits), "+Inf"]
        for values, counts, total in series:
            labels = dict(zip(self._labels, values, strict=True))
            for edge, count in zip(edges, accumulate(counts), strict=True):
                yield sample(f"{self._name}_bucket", count, labels | {"le": edge})
            yield sample(f"{self._name}_sum", total, labels)
            yield sample(f"{self._name}_count", sum(counts), labels)


def sample(name: str, number: float, labels: dict[str, str] | None = None) -> str:
    """Return the line of one number."""
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in (labels or {}).items())
    return f"{name}{{{pairs}}} {number!r}" if pairs else f"{name} {number!r}"


def _bounded(known: KeysView[tuple[str, ...]], values: tuple[str, ...]) -> tuple[str, ...]:
    if values in known or len(known) < MAX_SERIES:
        return values
    return (OTHERS, *values[1:])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
