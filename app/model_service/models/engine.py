"""The interface of the engines, which compute signatures."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Protocol

from model_service.models.tensors import Array

# The method of PredictionService for which a thread computes. The metrics show it.
API = ContextVar("API", default="Predict")


class Engine(Protocol):
    """Computes one signature. Several threads may call it at the same time."""

    @property
    def infer_requests(self) -> int:
        """How many calls it computes at the same time. Each of them has its own memory, which a warm-up allocates."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs in `outputs` by alias; `inputs` has an array for each input of the signature.

        Raises ServingError if the graph rejects the inputs.
        """
