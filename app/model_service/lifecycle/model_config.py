"""The list of models to serve: TensorFlow Serving's ModelServerConfig, with its checks and texts."""

import os
from pathlib import Path
from typing import Any

from grpc import StatusCode

from model_service.errors import ServingError, StartError, invalid_argument, one_line
from serving_common.tensorflow_protos import ParseError, model_server_config_pb2, text_format

_PLATFORM = "tensorflow"
ModelConfig = model_server_config_pb2.ModelConfig
ModelServerConfig = model_server_config_pb2.ModelServerConfig


def one_model(name: str, base_path: str) -> Any:
    """Return the configuration of `--model_name` and `--model_base_path`, which may be relative."""
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=_PLATFORM)
    return config


def read(path: str) -> Any:
    """Return the ModelServerConfig in a `--model_config_file`; raises StartError if it can't be read or is wrong."""
    try:
        config = text_format.Parse(Path(path).read_text(encoding="utf-8"), ModelServerConfig())
        check(config, ModelServerConfig())
    except ParseError as exc:
        reason = f"Error parsing text-format {ModelServerConfig.DESCRIPTOR.full_name}: {one_line(exc)}"
        raise StartError(f"--model_config_file={path}: {reason}", StatusCode.INVALID_ARGUMENT) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise StartError(f"--model_config_file={path} can't be read: {one_line(exc)}.", StatusCode.NOT_FOUND) from exc
    except ServingError as exc:
        raise StartError(f"--model_config_file={path}: {exc.message}", exc.code) from exc
    return config


def check(config: Any, previous: Any) -> None:
    """Raise ServingError if `config` is wrong, or gives another platform to a model of the config `previous`."""
    if config.WhichOneof("config") == "custom_model_config":
        raise invalid_argument("ModelServer does not yet support custom model config.")
    names: set[str] = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in config.model_config_list.config:
        # TensorFlow Serving takes URIs too, of file systems that this server can't read.
        if not os.path.isabs(model.base_path):
            expected = f"Expected model {model.name} to have an absolute path or URI"
            raise invalid_argument(f"{expected}; got base_path()={model.base_path}")
    platforms = {model.name: _platform(model) for model in previous.model_config_list.config}
    for model in config.model_config_list.config:
        platform = _platform(model)
        if platforms.get(model.name, platform) != platform:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {model.name} platform was {platforms[model.name]} "
                f"and new platform requested is {platform}"
            )
        if platform != _PLATFORM:
            raise invalid_argument(f"Model {model.name} requests unsupported platform {platform}")


def _platform(model: Any) -> str:
    names = "ModelServerConfig::model_type (deprecated) {} ModelServerConfig::model_platform, model name is {}"
    if not model.model_type:
        if not model.model_platform:
            raise invalid_argument(f"Illegal setting neither {names.format('nor', model.name)}")
        return str(model.model_platform)
    if model.model_platform:
        raise invalid_argument(f"Illegal setting both {names.format('and', model.name)}")
    if model.model_type != model_server_config_pb2.TENSORFLOW:
        raise invalid_argument(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    return _PLATFORM
