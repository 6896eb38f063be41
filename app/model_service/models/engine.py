"""What computes a signature of a model."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from model_service.models.tensors import Array


class Engine(Protocol):
    """Computes one signature; may be called from several threads at once."""

    @property
    def infer_requests(self) -> int:
        """How many calls it computes at the same time; each has its own state that a warm-up should touch."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the named outputs for one array per input.

        Raises ServingError where the graph refuses the inputs.
        """
