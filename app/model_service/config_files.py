"""TensorFlow Serving's configuration files: protobuf messages in text format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model_service.errors import StartError, one_line
from serving_common.tensorflow_protos import ParseError, descriptor_pb2, descriptor_pool, message_factory, text_format


def read_config_file(flag: str, file: str, parse: Callable[[str], Any]) -> Any:
    """Return the message in `file`, read by `parse`; raises StartError, which names `flag`, if it can't be read."""
    try:
        return parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ParseError) as exc:
        raise StartError(f"--{flag}={file} can't be read: {one_line(exc)}.") from exc


def parse_monitoring_config(text: str) -> Any:
    """Return the MonitoringConfig in `text` (protobuf text format); raises ParseError.

    The message is TensorFlow Serving's config/monitoring_config.proto. The package tensorflow-serving-api lacks it.
    """
    prometheus = {"enable": _FIELD.TYPE_BOOL, "path": _FIELD.TYPE_STRING}
    messages = {"PrometheusConfig": prometheus, "MonitoringConfig": {"prometheus_config": "PrometheusConfig"}}
    return _parse(text, messages)


_FIELD = descriptor_pb2.FieldDescriptorProto


def _parse(text: str, messages: Mapping[str, Mapping[str, Any]]) -> Any:
    """Parse `text` as the last of `messages`. Each message maps a field's name to its type or to another message.

    The text format has only the names of the fields, so their numbers may differ from TensorFlow Serving's.
    """
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="config", syntax="proto3")
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), start=1):
            field = described.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".config.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    (*_, last) = messages
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName(f"config.{last}"))())
