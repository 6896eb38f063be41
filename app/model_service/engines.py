"""Chooses what computes each signature: OpenVINO wherever it is exact, TensorFlow for the rest."""

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import openvino_engine
import tensorflow_engine
from failures import StartError
from saved_model import SavedModel
from tensorflow_messages import TensorFlowMissing
from tensors import Array
from threads import Threads

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Computes one signature; may be called from several threads at once."""

    @property
    def slots(self) -> int:
        """How many calls it computes at the same time; each has its own state that a warm-up should touch."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the named outputs for one array per input.

        Raises ServingError where the graph refuses the inputs.
        """


def load_engines(model: SavedModel, threads: Threads) -> dict[str, Engine]:
    """Return an engine for each signature that can be served; raises StartError where one can't be loaded."""
    engines: dict[str, Engine] = {}
    session: tensorflow_engine.Session | None = None
    for signature in model.signatures.values():
        if not signature.is_servable:
            continue
        try:
            engines[signature.name] = openvino_engine.load(model, signature, threads)
        except openvino_engine.Unsupported as exc:
            logger.warning("%s: %s; TensorFlow serves it instead", signature.name, exc)
            session = session or _tensorflow_session(model, threads, f"{signature.name}: {exc}")
            engines[signature.name] = tensorflow_engine.TensorFlowEngine(session, signature, threads.callers)
    if not engines:
        raise StartError(f"{model.folder} has no signature that can be served: export the model with one.")
    return engines


def _tensorflow_session(model: SavedModel, threads: Threads, reason: str) -> tensorflow_engine.Session:
    try:
        return tensorflow_engine.open_session(model, threads.compute)
    except TensorFlowMissing as exc:
        raise StartError(
            f"{model.folder} needs TensorFlow ({reason}), but {exc}: pip install tensorflow, or use TensorFlow Serving."
        ) from exc
