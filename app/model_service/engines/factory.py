"""Chooses what computes each signature: OpenVINO wherever it is exact, TensorFlow for the rest.

OpenVINO compiles each signature by itself, which takes time and memory: those that nobody may ever call wait for their
first call (OnDemand). All that TensorFlow serves shares one session.
"""

import logging
import threading
import time
from collections.abc import Container, Mapping, Sequence

from model_service.engines import openvino as openvino_engine
from model_service.engines import tensorflow as tensorflow_engine
from model_service.engines.parallelism import Threads
from model_service.errors import ServingError, StartError, failed_precondition
from model_service.models.engine import Engine
from model_service.models.saved_model import SavedModel, Signature, digest
from model_service.models.tensors import Array
from serving_common.malloc import trim_malloc
from serving_common.tensorflow_protos import TensorFlowMissing

logger = logging.getLogger(__name__)


class OnDemand:
    """A signature that OpenVINO can compute, compiled when its first call comes.

    Until then it takes no memory: its files are read again, and have to be what they were.
    """

    def __init__(self, model: SavedModel, signature: Signature, threads: Threads) -> None:
        """Read the signature and let it go again; raises openvino_engine.Unsupported."""
        openvino_engine.check(model, signature)
        self._digest = digest(model.folder)
        self._model = model
        self._signature = signature
        self._threads = threads
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    @property
    def slots(self) -> int:
        """See engines.Engine; none before the first call: a warm-up has nothing to touch."""
        return self._engine.slots if self._engine else 0

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See engines.Engine; the first call compiles, and those that come meanwhile wait for it.

        Raises ServingError FAILED_PRECONDITION where that fails; the next call tries again.
        """
        return self._compiled().run(inputs, outputs)

    def _compiled(self) -> Engine:
        with self._lock:
            if self._engine is None:
                began = time.perf_counter()
                self._engine = self._compile()
                seconds = time.perf_counter() - began
                logger.info("%s: compiled at its first call, in %.2f s", self._signature.name, seconds)
            return self._engine

    def _compile(self) -> Engine:
        folder = self._model.folder
        try:
            if digest(folder) != self._digest:
                raise StartError(f"{folder} has changed since it was loaded: bring what is new as a new version.")
            return openvino_engine.load(self._model, self._signature, self._threads)
        except (OSError, StartError, openvino_engine.Unsupported) as exc:
            logger.error("%s: can't be compiled at its first call: %s", self._signature.name, exc)
            raise self._failure() from exc
        finally:
            trim_malloc()

    def _failure(self) -> ServingError:
        # Of the server's folders a client learns nothing.
        return failed_precondition(
            f"Serving signature key \"{self._signature.name}\" can't be loaded any more: the server's log says why."
        )


def load_engines(model: SavedModel, threads: Threads, at_load: Container[str]) -> dict[str, Engine]:
    """Return an engine for each signature that can be served; raises StartError where one can't be loaded.

    What OpenVINO computes is compiled now where it is named in `at_load`, and else when its first call comes.
    """
    engines: dict[str, Engine] = {}
    session: tensorflow_engine.Session | None = None
    for signature in model.signatures.values():
        if not signature.is_servable:
            continue
        try:
            load = openvino_engine.load if signature.name in at_load else OnDemand
            engines[signature.name] = load(model, signature, threads)
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
