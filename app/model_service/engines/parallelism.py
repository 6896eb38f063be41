"""How many calls compute at the same time, with how many threads, and how many may wait for them."""

from dataclasses import dataclass

from serving_common.cpu_quota import usable_cores

# What the preprocess service on a machine of the same size has at work at once: so one alone is never refused.
_QUEUED_PER_CORE = 16


def queue_length(asked: int) -> int:
    """Return how many calls may wait where `asked` are asked for; 0 means 16 for each core."""
    return asked or _QUEUED_PER_CORE * usable_cores()


# Calls side by side, each with one thread, waste nothing on waiting for each other's parts; but each has buffers of its
# own, so on many cores a call gets several threads instead.
_MOST_STREAMS = 8


@dataclass(frozen=True)
class Threads:
    """How much of the machine to use: `compute` threads in all, shared by `streams` calls at a time.

    With `has_latency_model`, a call that is the only one gets all of them.
    """

    compute: int
    streams: int
    has_latency_model: bool = False

    @classmethod
    def sharing(cls, compute: int = 0, streams: int = 0) -> "Threads":
        """Fill in what is 0: a thread for each core, and as many calls as there are threads, up to 8."""
        compute = compute or usable_cores()
        chosen = streams or min(compute, _MOST_STREAMS)
        return cls(compute, chosen, has_latency_model=not streams and chosen > 1)

    @property
    def callers(self) -> int:
        """How many calls to accept at once: one more than compute, so the next one is ready when one ends."""
        return self.streams + 1
