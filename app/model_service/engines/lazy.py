"""A signature that is compiled when its first call comes, and takes no memory before."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from model_service.engines import openvino as openvino_engine
from model_service.engines.parallelism import Threads
from model_service.errors import ServingError, StartError, failed_precondition
from model_service.models.engine import Engine
from model_service.models.saved_model import SavedModel, Signature, digest
from model_service.models.tensors import Array
from serving_common.malloc import trim_malloc

logger = logging.getLogger(__name__)


class LazyEngine:
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
    def infer_requests(self) -> int:
        """See engines.Engine; none before the first call: a warm-up has nothing to touch."""
        return self._engine.infer_requests if self._engine else 0

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
