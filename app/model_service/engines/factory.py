"""Chooses what computes each signature: OpenVINO wherever it is exact, TensorFlow for the rest.

What OpenVINO can't compute may be constant, and is then computed by nobody.
OpenVINO compiles each signature by itself, which takes time and memory: those that nobody may ever call wait for their
first call (LazyEngine). All that TensorFlow serves shares one session.
"""

import logging
from collections.abc import Container

from model_service.engines import constants
from model_service.engines import openvino as openvino_engine
from model_service.engines import tensorflow as tensorflow_engine
from model_service.engines.lazy import LazyEngine
from model_service.engines.parallelism import Threads
from model_service.errors import StartError
from model_service.models.engine import Engine
from model_service.models.saved_model import SavedModel, ir_of
from serving_common.tensorflow_protos import TensorFlowMissing

logger = logging.getLogger(__name__)


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
            load = openvino_engine.load if signature.name in at_load else LazyEngine
            engines[signature.name] = load(model, signature, threads)
        except openvino_engine.Unsupported as exc:
            try:
                engines[signature.name] = constants.load(model, signature)
                continue
            except constants.NoConstant:
                if ir_of(model.folder) is not None:
                    raise StartError(f"{model.folder}: OpenVINO can't compute its own network: {exc}") from exc
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
