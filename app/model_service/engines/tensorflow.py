"""Computes a signature with TensorFlow itself, as TensorFlow Serving does: one session, feeds and fetches by name."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grpc

from model_service.errors import ServingError, StartError, invalid_argument, one_line, without_folders
from model_service.models.engine import Engine
from model_service.models.saved_model import SavedModel, Signature, TensorSpec, checked_copy
from model_service.models.tensors import Array, shape_text
from serving_common.tensorflow_protos import load_tensorflow

logger = logging.getLogger(__name__)

# The shapes of all inputs, by alias, and for how many of them an engine is kept.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_MOST_SHAPES = 4

# TensorFlow's error codes are the same as gRPC's.
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class Session:
    """The module tensorflow, and the session with a model's graph, variables and tables."""

    tensorflow: Any
    session: Any


def open_session(model: SavedModel, threads: int) -> Session:
    """Import TensorFlow and load the model into a session.

    Raises TensorFlowMissing if it isn't installed, and StartError if it can't load the model.
    """
    # TensorFlow's C++ code logs several lines to stderr at its start. Level 2 leaves only errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN's convolution ends the process if a client's input has another rank. TensorFlow's own returns an error.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    tensorflow: Any = load_tensorflow()
    tensorflow.get_logger().setLevel("ERROR")
    v1 = tensorflow.compat.v1
    settings = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = v1.Session(graph=v1.Graph(), config=settings)
    try:
        with checked_copy(model) as folder, session.graph.as_default():
            v1.saved_model.load(session, model.tags, str(folder))
    except StartError:
        raise
    except Exception as exc:
        # Also other exceptions than TensorFlow's own: its loader does not check every malformed message.
        raise StartError(f"{model.folder} can't be loaded ({one_line(exc)}): export the model again.") from exc
    return Session(tensorflow, session)


class SharedSession:
    """The session of a model, opened when a signature first needs it."""

    def __init__(self, model: SavedModel, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def is_open(self) -> bool:
        """Whether the memory for it is in use already."""
        return self._session is not None

    def open(self) -> Session:
        """Return the session; raises TensorFlowMissing and StartError, see `open_session`."""
        with self._lock:
            if self._session is None:
                self._session = open_session(self._model, self._threads)
            return self._session


class TensorFlowEngine:
    """One signature of a session; `infer_requests` is the number of parallel calls.

    As in TensorFlow Serving, inputs may have any shape: the operations of the graph check it. So the session's `run`
    is not used, which compares them with the shapes in the graph.
    """

    def __init__(self, session: Session, signature: Signature, infer_requests: int) -> None:
        self._session = session.session
        self._op_error = session.tensorflow.errors.OpError
        self._inputs = self._tensors(signature.inputs)
        self._outputs = self._tensors(signature.outputs)
        self.infer_requests = infer_requests

    def _tensors(self, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        graph = self._session.graph
        return {alias: graph.get_tensor_by_name(spec.name)._as_tf_output() for alias, spec in specs.items()}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine."""
        feeds = {tensor: inputs[alias] for alias, tensor in self._inputs.items()}
        fetches = [self._outputs[alias] for alias in outputs]
        try:
            results = self._session._call_tf_sessionrun(None, feeds, fetches, [], None)
        except self._op_error as exc:
            raise _refusal(_STATUS_CODES[exc.error_code], exc.message) from exc
        except UnicodeDecodeError as exc:
            # TensorFlow's text quotes bytes of an input, and Python can't read them.
            raise _refusal(grpc.StatusCode.INVALID_ARGUMENT, exc.object.decode(errors="replace")) from exc
        return dict(zip(outputs, results, strict=True))


def _refusal(code: grpc.StatusCode, message: str) -> ServingError:
    text = one_line(message)
    told = without_folders(text)
    if told != text:
        logger.info("%s", text)
    return ServingError(code, told)


class AnyShapeEngine:
    """An engine for the shapes of its signature. `load` returns one for all other shapes, given by alias.

    TensorFlow Serving does not check the shape. Without `load`, and if it fails, other shapes are rejected.
    """

    def __init__(self, engine: Engine, signature: Signature, load: Callable[[Shapes], Engine] | None) -> None:
        self._engine = engine
        self._signature = signature
        self._load = lru_cache(_MOST_SHAPES)(load) if load else None

    @property
    def infer_requests(self) -> int:
        """See Engine."""
        return self._engine.infer_requests

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine. Raises ServingError INVALID_ARGUMENT for a shape that can't be computed."""
        for alias, spec in self._signature.inputs.items():
            shape = inputs[alias].shape
            if not spec.accepts(shape):
                if self._load:
                    try:
                        engine = self._load(tuple((alias, array.shape) for alias, array in sorted(inputs.items())))
                        return engine.run(inputs, outputs)
                    except StartError as exc:
                        logger.warning("%s: other shapes can't be computed: %s", self._signature.name, exc)
                raise invalid_argument(
                    f"Expects input {alias} to have shape {shape_text(spec.shape)} but {shape_text(shape)} is provided"
                )
        return self._engine.run(inputs, outputs)
