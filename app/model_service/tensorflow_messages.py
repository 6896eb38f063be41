"""TensorFlow Serving's messages without TensorFlow.

The generated modules of `tensorflow-serving-api` import `tensorflow.core...`, and running `tensorflow/__init__.py`
for that would cost seconds and hundreds of megabytes. So `tensorflow` enters `sys.modules` as a module that
knows where its folder is but has not been executed: its sub-modules import as always. Should a model need the
real TensorFlow, `load_tensorflow` executes that same module, and the messages stay the ones already loaded.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
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
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "load_prediction_log",
    "load_tensorflow",
    "meta_graph_pb2",
    "model_pb2",
    "model_service_pb2_grpc",
    "parse_batching_parameters",
    "parse_monitoring_config",
    "predict_pb2",
    "prediction_service_pb2_grpc",
    "saved_model_pb2",
    "tensor_pb2",
    "tensor_shape_pb2",
    "types_pb2",
]


def load_prediction_log() -> Any:
    """Return the module of `PredictionLog`: fifteen more message modules, wanted only by a warm-up file."""
    return importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")


def parse_monitoring_config(text: str) -> Any:
    """Return a MonitoringConfig read from its text form; raises ParseError.

    The package tensorflow-serving-api lacks this one, which is TensorFlow Serving's config/monitoring_config.proto.
    """
    prometheus = {"enable": _FIELD.TYPE_BOOL, "path": _FIELD.TYPE_STRING}
    messages = {"PrometheusConfig": prometheus, "MonitoringConfig": {"prometheus_config": "PrometheusConfig"}}
    return _parse(text, messages)


def parse_batching_parameters(text: str) -> Any:
    """Return a BatchingParameters read from its text form; raises ParseError.

    The package lacks this one too, of servables/tensorflow/session_bundle_config.proto. Its numbers are messages of
    their own, so that 0 can be told from what is not there.
    """
    numbers = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    fields: dict[str, Any] = {name: "Int64" for name in (*numbers, "max_execution_batch_size")}
    fields |= {"thread_pool_name": "String", "enable_large_batch_splitting": "Bool"}
    fields |= {"allowed_batch_sizes": [_FIELD.TYPE_INT64], "pad_variable_length_inputs": _FIELD.TYPE_BOOL}
    values = {"Int64": _FIELD.TYPE_INT64, "String": _FIELD.TYPE_STRING, "Bool": _FIELD.TYPE_BOOL}
    messages = {name: {"value": kind} for name, kind in values.items()}
    return _parse(text, {**messages, "BatchingParameters": fields})


_FIELD = descriptor_pb2.FieldDescriptorProto


def _parse(text: str, messages: Mapping[str, Mapping[str, Any]]) -> Any:
    """Read `text` as the last of `messages`: field -> type, name of another message, or a list of a type: repeated.

    In text form only the names count, so that the fields may have any numbers.
    """
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="config", syntax="proto3")
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), start=1):
            field = described.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
            if isinstance(kind, list):
                field.label, (kind,) = _FIELD.LABEL_REPEATED, kind
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".config.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    (*_, last) = messages
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName(f"config.{last}"))())


def load_tensorflow() -> ModuleType:
    """Execute the registered bare package, which makes it the real TensorFlow, and return it.

    Raises TensorFlowMissing where only the message modules are installed.
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
