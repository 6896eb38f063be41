"""The results of one load: answers per second, latencies, errors."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


class LoadError(Exception):
    """The load could not be sent or measured."""


@dataclass(frozen=True)
class Sample:
    """`requests_per_second` counts successful answers; `percentiles` has the 1st to 99th of their latency, in ms;
    `requests` and `errors` count all requests, and those without a successful answer."""

    requests_per_second: float
    percentiles: list[float]
    requests: int
    errors: int

    def percentile(self, percent: int) -> float:
        """Return the latency in milliseconds of the percentile `percent`, 1 to 99."""
        return self.percentiles[percent - 1]


def sample_of(latencies_ms: Sequence[float], errors: int, seconds: float) -> Sample:
    """Return the sample of a load that lasted `seconds`; raises LoadError if it has fewer than two answers."""
    if len(latencies_ms) < 2:
        raise LoadError(f"of {len(latencies_ms) + errors} requests, {errors} failed")
    percentiles = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    return Sample(len(latencies_ms) / seconds, percentiles, len(latencies_ms) + errors, errors)
