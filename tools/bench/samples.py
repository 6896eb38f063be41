"""What a stretch of load gave: answers a second, how long they took, how many were none."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


class LoadError(Exception):
    """The load could not be made, or not measured."""


@dataclass(frozen=True)
class Sample:
    """Answers a second, the 1st to 99th percentile of their latency in milliseconds, how many requests there were and
    how many of them were not answered with a success."""

    requests_per_second: float
    percentiles: list[float]
    requests: int
    errors: int

    def percentile(self, percent: int) -> float:
        """Milliseconds within which `percent` (1 to 99) of the answers came."""
        return self.percentiles[percent - 1]


def sample_of(latencies_ms: Sequence[float], errors: int, seconds: float) -> Sample:
    """The sample of single requests that took `seconds` together; raises LoadError where fewer than two came back."""
    if len(latencies_ms) < 2:
        raise LoadError(f"of {len(latencies_ms) + errors} requests, {errors} failed")
    percentiles = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    return Sample(len(latencies_ms) / seconds, percentiles, len(latencies_ms) + errors, errors)
