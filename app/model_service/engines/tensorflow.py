"""Computes a signature with TensorFlow itself, as TensorFlow Serving does: one session, feeds and fetches by name."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from model_service.errors import ServingError, StartError, one_line, without_folders
from model_service.models.saved_model import SERVE_TAG, SavedModel, Signature, checked_copy
from model_service.models.tensors import Array
from serving_common.tensorflow_protos import load_tensorflow

logger = logging.getLogger(__name__)

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
    tensorflow: Any = load_tensorflow()
    tensorflow.get_logger().setLevel("ERROR")
    v1 = tensorflow.compat.v1
    settings = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = v1.Session(graph=v1.Graph(), config=settings)
    try:
        with checked_copy(model) as folder, session.graph.as_default():
            v1.saved_model.load(session, [SERVE_TAG], str(folder))
    except StartError:
        raise
    except Exception as exc:
        # Also other exceptions than TensorFlow's own: its loader does not check every malformed message.
        raise StartError(f"{model.folder} can't be loaded ({one_line(exc)}): export the model again.") from exc
    return Session(tensorflow, session)


class TensorFlowEngine:
    """One signature of a session; `infer_requests` is the number of parallel calls."""

    def __init__(self, session: Session, signature: Signature, infer_requests: int) -> None:
        self._session = session.session
        self._op_error = session.tensorflow.errors.OpError
        self._signature = signature
        self.infer_requests = infer_requests

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine."""
        feeds = {spec.name: inputs[alias] for alias, spec in self._signature.inputs.items()}
        fetches = {alias: self._signature.outputs[alias].name for alias in outputs}
        try:
            results: dict[str, Array] = self._session.run(fetches, feeds)
        except self._op_error as exc:
            text = one_line(exc.message)
            told = without_folders(text)
            if told != text:
                logger.info("%s", text)
            raise ServingError(_STATUS_CODES[exc.error_code], told) from exc
        return results
