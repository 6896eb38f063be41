"""The messages and stubs of ``tensorflow-serving-api``, without TensorFlow.

The generated modules import ``tensorflow.core...``, and importing ``tensorflow`` costs seconds and hundreds of
megabytes. So ``tensorflow`` is put into ``sys.modules`` as a module that knows its folder and has not been executed.
Its sub-modules are imported as always; in a container the folder may hold nothing but these. ``load_tensorflow``
executes that same module where a model needs the real TensorFlow; the messages stay the ones already loaded.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class TensorFlowMissing(ImportError):
    """TensorFlow's runtime is not installed, or only its message modules are."""


def _register_bare_tensorflow() -> None:
    if "tensorflow" in sys.modules:
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None:
        raise TensorFlowMissing("the message modules of the package tensorflow are not installed")
    sys.modules["tensorflow"] = importlib.util.module_from_spec(spec)


# The one thing that happens at import: without it the imports below would run all of TensorFlow.
_register_bare_tensorflow()

# protobuf ships no types.
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format  # type: ignore[import-untyped]  # noqa: E402
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # noqa: E402
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: E402
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

ParseError = text_format.ParseError

__all__ = [
    "DecodeError",
    "MessageToDict",
    "ParseError",
    "TensorFlowMissing",
    "descriptor_pb2",
    "descriptor_pool",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "load_prediction_log",
    "load_tensorflow",
    "message_factory",
    "meta_graph_pb2",
    "model_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2_grpc",
    "saved_model_pb2",
    "tensor_pb2",
    "tensor_shape_pb2",
    "text_format",
    "types_pb2",
]


def load_prediction_log() -> Any:
    """Return the module of ``PredictionLog``: fifteen more message modules, which only a warm-up file needs."""
    return importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")


def load_tensorflow() -> ModuleType:
    """Execute the registered bare package, which makes it the real TensorFlow, and return it.

    Raises:
        TensorFlowMissing: only the message modules are installed.
    """
    module = sys.modules["tensorflow"]
    if hasattr(module, "__version__"):
        return module
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.loader is None or spec.origin is None:
        raise TensorFlowMissing("TensorFlow is not installed")
    try:
        spec.loader.exec_module(module)
    except ImportError as exc:
        raise TensorFlowMissing(f"TensorFlow can't be imported: {exc}") from exc
    return module
