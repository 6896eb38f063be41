"""The settings: one frozen, typed object, read from ``config.yaml`` and the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from preprocess_service.app.recipe import Recipe
from preprocess_service.app.setting_types import (
    Canary,
    CanaryShare,
    CommaSeparated,
    Key,
    Models,
    Name,
    Network,
    Origin,
    Port,
    Prefix,
    Section,
)
from serving_common.cpu_quota import usable_cores

CONFIG_FILE = Path(__file__).with_name("config.yaml")

# The variable with the names of the models, separated by commas. Both services read it.
MODEL_NAME = "MODEL_NAME"
# Variable -> the key that it sets. Any other SERVICE_* variable is an error at the start, like an unknown key.
ENVIRONMENT: dict[str, tuple[str, ...]] = {
    MODEL_NAME: ("experiment_id",),
    "SERVICE_MODEL_HOST": ("model_server", "host"),
    "SERVICE_MODEL_PORT": ("model_server", "port"),
    "SERVICE_HOST": ("server", "host"),
    "SERVICE_PORT": ("server", "port"),
    "SERVICE_DRAIN_SECONDS": ("server", "drain_seconds"),
    "SERVICE_API_KEYS": ("server", "api_keys"),
    "SERVICE_API_KEYS_FILE": ("server", "api_keys_file"),
    "SERVICE_CORS_ORIGINS": ("server", "cors_origins"),
    "SERVICE_LOG_CLIENT_ADDRESS": ("server", "log_client_address"),
    "SERVICE_TRUSTED_PROXIES": ("server", "trusted_proxies"),
    "SERVICE_ROOT_PATH": ("server", "root_path"),
    "SERVICE_SECOND_LOOK": ("second_look",),
    "SERVICE_CANARY": ("canary",),
}

# Kubernetes sends SIGTERM to a pod and takes it out of its Services at the same time. Requests still come until all
# nodes know. Kubernetes sets this variable in each container.
KUBERNETES_VARIABLE = "KUBERNETES_SERVICE_HOST"
KUBERNETES_DRAIN_SECONDS = 5.0


class ConfigError(Exception):
    """The settings can't be used. The message names the key and the value."""


class ModelServer(Section):
    """How to reach TensorFlow Serving or the embedded model server by gRPC."""

    host: Name
    port: Port
    max_message_bytes: int = Field(ge=1024)
    max_concurrent_batches: int = Field(ge=0, description="0: chosen from the cores")
    # With more photos, their request ids might not fit into the 8 KB that gRPC accepts as metadata.
    batch_size: int = Field(ge=1, le=32)


class Server(Section):
    """Where this service listens for HTTP, which clients and proxies it accepts, and how it shuts down."""

    host: Name
    port: Port
    drain_seconds: float | None = Field(ge=0, description="null: chosen by ``load_config``")
    api_keys: Annotated[tuple[Key, ...], CommaSeparated]
    api_keys_file: Name | None
    cors_origins: Annotated[tuple[Origin, ...], CommaSeparated]
    log_client_address: bool
    trusted_proxies: Annotated[tuple[Network, ...], CommaSeparated]
    root_path: Prefix


# Enough that no core waits for work. Few enough that the last photo is still answered within a fraction of a second: at
# 50 photos per second and core, 16 photos take 0.3 s.
PHOTOS_PER_CORE = 16
# How many batch requests take all slots together.
BATCHES_AT_A_TIME = 4


class Limits(Section):
    """Limits on requests, photos and connections."""

    body_bytes: int = Field(ge=1024)
    buffered_bytes: int = Field(ge=1024)
    body_grace_seconds: float = Field(ge=0)
    body_bytes_per_second: int = Field(ge=0)
    pixels: int = Field(ge=1)
    decode_bytes: int = Field(ge=16_000_000)
    batch_items: int = Field(ge=1)
    deadline_seconds: float = Field(gt=0)
    in_flight: int = Field(ge=0, description="0: chosen from the cores")
    decode_threads: int = Field(ge=0, description="0: one for each core, and as many processes and one more")
    prepared: int = Field(ge=0, description="0: chosen from the cores")
    connections: int = Field(ge=1)
    header_bytes: int = Field(ge=1024)
    header_seconds: float = Field(gt=0)
    idle_seconds: float = Field(gt=0)

    @property
    def photos_in_flight(self) -> int:
        """How many photos may be in flight at the same time."""
        return self.in_flight or PHOTOS_PER_CORE * usable_cores()

    @property
    def photos_per_request(self) -> int:
        """How many of these photos may belong to one request."""
        return max(1, self.photos_in_flight // BATCHES_AT_A_TIME)


class Config(Section):
    """All settings. ``config.yaml`` explains each."""

    models: Models = Field(alias="experiment_id", min_length=1)
    signature_name: Name | None
    model_input_name: Name | None
    model_output_name: Name | None
    recipe: Recipe | None
    second_look: bool
    canary: Annotated[tuple[Canary, ...], CommaSeparated]
    model_server: ModelServer
    server: Server
    limits: Limits

    @model_validator(mode="after")
    def _check_canaries(self) -> Self:
        named = [one.model for one in self.canary]
        for name in named:
            if name not in self.models or named.count(name) > 1:
                raise ValueError(f"canary: {name!r} must be one of the models, with one canary at most")
        return self

    def canary_of(self, name: str) -> CanaryShare | None:
        """Return the canary of a model; None if it has none."""
        return next((one for one in self.canary if one.model == name), None)

    @property
    def experiment_id(self) -> str:
        """The first model: the only one, or the one that answers where a request names none."""
        return self.models[0]

    def of_model(self, name: str) -> "Config":
        """Return the settings for one of ``models``. The names of the input and the output belong to the first."""
        names = {} if name == self.experiment_id else {"model_input_name": None, "model_output_name": None}
        return self.model_copy(update={"models": (name,), **names})


def load_config(environment: Mapping[str, str]) -> Config:
    """Read the settings from the file that ``SERVICE_CONFIG`` names, by default ``config.yaml``, then ``ENVIRONMENT``.

    Raises:
        ConfigError: a file can't be read, or a key is missing, unknown or has an invalid value.
    """
    path = Path(environment.get("SERVICE_CONFIG") or CONFIG_FILE)
    settings = _read_yaml(path)
    origins = _apply_environment(settings, environment)
    if isinstance(server := settings.get("server"), dict):
        if isinstance(server.get("api_keys_file"), str):
            _read_keys(server, origins)
        if server.get("drain_seconds", 0) is None:
            server["drain_seconds"] = KUBERNETES_DRAIN_SECONDS if environment.get(KUBERNETES_VARIABLE) else 0
    try:
        return Config.model_validate(settings)
    except ValidationError as exc:
        raise ConfigError("; ".join(_explain(error, path, origins) for error in exc.errors())) from exc


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigError(f"{path} can't be read: {' '.join(str(exc).split())}") from exc
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(settings).__name__}")
    return settings


def _apply_environment(settings: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Overwrite settings with the environment. Return which variable set which key."""
    unknown = sorted(n for n in environment if n.startswith("SERVICE_") and n not in {*ENVIRONMENT, "SERVICE_CONFIG"})
    if unknown:
        known = ", ".join([*ENVIRONMENT, "SERVICE_CONFIG"])
        raise ConfigError(f"unknown environment variable {unknown[0]}; known are {known}")
    if environment.get(MODEL_NAME) and _first(environment[MODEL_NAME]) != _first(settings.get("experiment_id")):
        # These names belong to the first model that the file names.
        settings |= {key: None for key in ("model_input_name", "model_output_name") if key in settings}
    origins: dict[tuple[str, ...], str] = {}
    for variable, path in ENVIRONMENT.items():
        *sections, key = path
        section = settings.get(sections[0]) if sections else settings
        # An empty variable counts as unset: Docker Compose passes an undefined variable as an empty one.
        if environment.get(variable) and isinstance(section, dict):
            section[key] = environment[variable]
            origins[path] = variable
    return origins


def _first(models: object) -> object:
    if isinstance(models, list):
        return next(iter(models), None)
    return models.partition(",")[0].strip() if isinstance(models, str) else models


def _read_keys(server: dict[str, Any], origins: dict[tuple[str, ...], str]) -> None:
    """Read ``server.api_keys_file`` into ``server.api_keys``: one key per line, ``#`` begins a comment."""
    name = origins.get(("server", "api_keys_file"), "server.api_keys_file")
    if server.get("api_keys"):
        other = origins.get(("server", "api_keys"), "server.api_keys")
        raise ConfigError(f"{name} and {other} are both set; set one of them")
    try:
        lines = Path(server["api_keys_file"]).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as exc:
        # The message does not show the bytes: a key is a secret.
        raise ConfigError(f"{name}: {server['api_keys_file']} is not text in UTF-8") from exc
    except OSError as exc:
        raise ConfigError(f"{name}: {server['api_keys_file']} can't be read: {exc.strerror}") from exc
    keys = [key for line in lines if (key := line.partition("#")[0].strip())]
    if not keys:
        raise ConfigError(f"{name}: {server['api_keys_file']} has no key")
    server["api_keys"] = keys
    origins["server", "api_keys"] = name


def _explain(error: Any, path: Path, origins: dict[tuple[str, ...], str]) -> str:
    location = tuple(error["loc"])
    name = (
        origins.get(location[:2])
        or origins.get(location[:1])
        or f"{path.name}: {'.'.join(map(str, location)) or 'the file'}"
    )
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] == "extra_forbidden":
        return f"{name} is an unknown key"
    # A key is a secret, even an invalid one.
    if "api_keys" in location:
        return f"{name}: {error['msg']}"
    return f"{name}: {error['msg']}, not {error['input']!r}" if location else f"{name}: {error['msg']}"
