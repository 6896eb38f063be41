"""Chooses the engine of each signature: OpenVINO if it computes the signature exactly, else TensorFlow.

OpenVINO can't compute a signature of constants, for example of strings; no engine is needed for it.
OpenVINO compiles each signature separately, which costs time and memory. So a signature that may never be called is
compiled at its first call (LazyEngine). All signatures that TensorFlow computes share one session.
"""

import logging
from collections.abc import Container
from dataclasses import replace
from functools import partial

from model_service.engines import constants
from model_service.engines import openvino as openvino_engine
from model_service.engines.lazy import LazyEngine
from model_service.engines.parallelism import Threads
from model_service.engines.tensorflow import AnyShapeEngine, Session, Shapes, SharedSession, TensorFlowEngine
from model_service.errors import StartError
from model_service.models.engine import Engine
from model_service.models.free_memory import free_bytes
from model_service.models.saved_model import SavedModel, Signature, changed, digest, ir_of
from serving_common.tensorflow_protos import TensorFlowMissing, has_tensorflow

logger = logging.getLogger(__name__)

# The memory of TensorFlow itself, with a small model and its calls.
_TENSORFLOW_BYTES = 1536 << 20


def load_engines(model: SavedModel, threads: Threads, at_load: Container[str]) -> dict[str, Engine]:
    """Return an engine for each signature that can be served; raises StartError if one can't be loaded.

    OpenVINO compiles the signatures named in `at_load` now, and each other one at its first call.
    """
    engines: dict[str, Engine] = {}
    session = SharedSession(model, threads.compute)
    has_other_shapes = model.is_tflite or (has_tensorflow() and ir_of(model.folder) is None)
    # Files may be read later, for other shapes. By then they must not have changed.
    seen = digest(model) if has_other_shapes else b""
    for signature in model.signatures.values():
        if not signature.is_servable:
            continue
        later = partial(_load_later, model, signature, session, threads, seen) if has_other_shapes else None
        try:
            load = openvino_engine.load if signature.name in at_load or model.is_tflite else LazyEngine
            engines[signature.name] = AnyShapeEngine(load(model, signature, threads), signature, later)
        except openvino_engine.Unsupported as exc:
            own = StartError(f"{model.folder}: OpenVINO can't compute its own network: {exc}")
            if model.is_tflite:
                raise own from exc
            try:
                engines[signature.name] = constants.load(model, signature)
            except constants.NoConstant:
                if ir_of(model.folder) is not None:
                    raise own from exc
                logger.warning("%s: %s; TensorFlow serves it instead", signature.name, exc)
                opened = _opened(session, model, f"{signature.name}: {exc}")
                engines[signature.name] = TensorFlowEngine(opened, signature, threads.callers)
    if not engines:
        raise StartError(f"{model.folder} has no signature that can be served: export the model with one.")
    return engines


def _load_later(
    model: SavedModel, signature: Signature, session: SharedSession, threads: Threads, seen: bytes, shapes: Shapes
) -> Engine:
    if digest(model) != seen:
        raise changed(model.folder)
    if not model.is_tflite:
        free = free_bytes()
        if not session.is_open and free is not None and free < _TENSORFLOW_BYTES:
            # A client's request may not push the process over the limit of its container.
            raise StartError(
                f"TensorFlow needs {_TENSORFLOW_BYTES >> 20} MiB, and {free >> 20} MiB of memory are free."
            )
        return TensorFlowEngine(session.open(), signature, threads.callers)
    inputs = {alias: replace(signature.inputs[alias], shape=shape) for alias, shape in shapes}
    outputs = {alias: replace(spec, shape=None) for alias, spec in signature.outputs.items()}
    try:
        return openvino_engine.load(model, replace(signature, inputs=inputs, outputs=outputs), threads)
    except openvino_engine.Unsupported as exc:
        raise StartError(str(exc)) from exc


def _opened(session: SharedSession, model: SavedModel, reason: str) -> Session:
    try:
        return session.open()
    except TensorFlowMissing as exc:
        raise StartError(
            f"{model.folder} needs TensorFlow ({reason}), but {exc}: pip install tensorflow, "
            "build the image with it, or use TensorFlow Serving."
        ) from exc
