"""How many calls are computed at the same time, with how many threads, and how many may wait."""

from dataclasses import dataclass

from serving_common.cpu_quota import usable_cores

# The preprocess service on a machine of the same size sends at most this many calls, so one service is never rejected.
_QUEUED_PER_CORE = 16


def queue_length(asked: int) -> int:
    """Return how many calls may wait: `asked`, or 16 per core if it is 0."""
    return asked or _QUEUED_PER_CORE * usable_cores()


# Parallel calls with one thread each are fastest, because no thread waits for another. But each call has its own
# buffers, so on many cores a call gets several threads instead.
_MOST_STREAMS = 8


@dataclass(frozen=True)
class Threads:
    """How many threads compute: `compute` in all, shared by `streams` parallel calls.

    With `has_latency_model`, a call that runs alone gets all threads.
    """

    compute: int
    streams: int
    has_latency_model: bool = False

    @classmethod
    def sharing(cls, compute: int = 0, streams: int = 0) -> "Threads":
        """Replace zeros: one thread per core, and as many parallel calls as threads, at most 8."""
        compute = compute or usable_cores()
        chosen = streams or min(compute, _MOST_STREAMS)
        return cls(compute, chosen, has_latency_model=not streams and chosen > 1)

    @property
    def callers(self) -> int:
        """How many calls the executor runs: one more than `streams`, so that the next one starts without a gap."""
        return self.streams + 1
