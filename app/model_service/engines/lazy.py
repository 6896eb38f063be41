"""An engine that is compiled at its first call and uses no memory before."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from model_service.engines import openvino as openvino_engine
from model_service.engines.parallelism import Threads
from model_service.errors import ServingError, StartError, failed_precondition
from model_service.models.engine import Engine
from model_service.models.saved_model import SavedModel, Signature, changed, digest
from model_service.models.tensors import Array
from serving_common.malloc import trim_malloc

logger = logging.getLogger(__name__)


class LazyEngine:
    """A signature that OpenVINO can compute, compiled at its first call.

    The first call reads the model's files again. They must not have changed since the model was loaded.
    """

    def __init__(self, model: SavedModel, signature: Signature, threads: Threads) -> None:
        """Read the signature without keeping it; raises openvino_engine.Unsupported."""
        openvino_engine.check(model, signature)
        self._digest = digest(model)
        self._model = model
        self._signature = signature
        self._threads = threads
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    @property
    def infer_requests(self) -> int:
        """See Engine. It is 0 before the first call, so a warm-up does not compile the signature."""
        return self._engine.infer_requests if self._engine else 0

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine. The first call compiles; calls that arrive meanwhile wait for it.

        Raises ServingError FAILED_PRECONDITION if that fails. The next call tries again.
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
            if digest(self._model) != self._digest:
                raise changed(folder)
            return openvino_engine.load(self._model, self._signature, self._threads)
        except (OSError, StartError, openvino_engine.Unsupported) as exc:
            logger.error("%s: can't be compiled at its first call: %s", self._signature.name, exc)
            raise self._failure() from exc
        finally:
            trim_malloc()

    def _failure(self) -> ServingError:
        # Clients must not see the server's folders.
        return failed_precondition(
            f"Serving signature key \"{self._signature.name}\" can't be loaded any more: the server's log says why."
        )
