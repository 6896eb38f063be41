"""TensorFlow Serving's command line: `--flag=value`. The last value of a flag counts. Unknown flags cause a warning.

The server does not ignore a flag of TensorFlow Serving silently. If the flag only tunes, there is a warning. If it
would change what is served or how safely, the server does not start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from model_service.errors import StartError

# In units of the largest message: two are received (2), one is parsed and takes four times its size (4), and two shares
# of a quarter are kept for small messages (0.5).
_TOTAL_PER_MESSAGE = 6.5
_INT32 = 2**31 - 1


class FlagError(StartError):
    """A flag has an invalid value."""


def _flag(default: Any, text: str, lowest: int = 0, highest: int = _INT32) -> Any:
    """A flag: its default, its text in `--help`, and its range if it is a number."""
    return field(default=default, metadata={"text": text, "lowest": lowest, "highest": highest})


@dataclass(frozen=True)
class Flags:
    """The command line. Sizes are in bytes. 0 threads means one per core. REST port 0 means no REST API."""

    port: int = _flag(8500, "TCP port for gRPC; 0: none", 0, 65535)
    grpc_socket_path: str = _flag("", "path of a Unix socket on which gRPC listens too")
    grpc_channel_arguments: str = _flag("", "gRPC's own arguments, KEY=VALUE, with commas between them")
    ssl_config_file: str = _flag("", "text form of an SSLConfig: keys and certificates of gRPC; turns on TLS")
    rest_api_port: int = _flag(0, "TCP port for HTTP/REST; 0: none", 0, 65535)
    bind_address: str = _flag("0.0.0.0", "address to listen on (not in TensorFlow Serving)")
    model_name: str = _flag("default", "name under which the model is served")
    model_base_path: str = _flag("", "folder that holds the version folders (required without --model_config_file)")
    model_config_file: str = _flag(
        "", "text form of a ModelServerConfig: the models to serve, in place of --model_name and --model_base_path"
    )
    model_config_file_poll_wait_seconds: int = _flag(
        0, "seconds between two reads of this file; 0 or less: only at the start", -_INT32 - 1
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "a new version label may name a version that is not loaded yet"
    )
    allow_reload_requests: bool = _flag(
        True, "clients may change the models by HandleReloadConfigRequest (not in TensorFlow Serving)"
    )
    file_system_poll_wait_seconds: int = _flag(
        1, "seconds between two polls for new versions; 0 or less: only at the start", -_INT32 - 1
    )
    max_num_load_retries: int = _flag(5, "retries after a new version could not be loaded; at the start there are none")
    load_retry_interval_micros: int = _flag(60_000_000, "microseconds between these retries", 0, 2**63 - 1)
    unload_delay_seconds: int = _flag(
        0, "a replaced version stays for this time since it was last named (not in TensorFlow Serving)"
    )
    rest_api_enable_cors_support: bool = _flag(False, "allow every web page to call the REST API")
    rest_api_timeout_in_ms: int = _flag(30_000, "time limit of an HTTP call, in milliseconds", 1, 2**31)
    max_message_bytes: int = _flag(
        16 * 2**20, "largest message, and largest inputs of a message as arrays (not in TensorFlow Serving)", 1
    )
    max_total_message_bytes: int = _flag(
        0, "memory of all messages; 0: 6.5 * max_message_bytes (not in TensorFlow Serving)", 0, 2**40
    )
    max_execution_bytes: int = _flag(
        3 * 2**20, "a larger input, as float32, is computed in parts; 0: never (not in TensorFlow Serving)"
    )
    max_queued_requests: int = _flag(
        0, "calls that may wait; more are rejected; 0: 16 per core (not in TensorFlow Serving)"
    )
    stuck_call_seconds: int = _flag(
        30, "a longer call sets the health to NOT_SERVING; 0: never (not in TensorFlow Serving)"
    )
    exit_when_stuck: bool = _flag(
        False, "exit after such a call, so that a supervisor restarts the server (not in TensorFlow Serving)"
    )
    monitoring_config_file: str = _flag("", "text form of a MonitoringConfig; turns on the metrics for Prometheus")
    log_calls: bool = _flag(True, "write a line of JSON for each prediction (not in TensorFlow Serving)")
    tensorflow_session_parallelism: int = _flag(0, "threads that compute; 0: one per core", 0, 1024)
    tensorflow_intra_op_parallelism: int = _flag(0, "threads of one call; 0: chosen from the cores", 0, 1024)
    tensorflow_inter_op_parallelism: int = _flag(
        0, "calls that are computed at the same time; 0: chosen from the cores", 0, 1024
    )
    enable_model_warmup: bool = _flag(True, "replay assets.extra/tf_serving_warmup_requests before serving")
    num_request_iterations_for_warmup: int = _flag(1, "how often each warm-up request runs", 0, 10000)
    enable_grpc_healthcheck_service: bool = _flag(True, "serve grpc.health.v1")
    refuse_unsafe_operations: bool = _flag(
        False, "reject a model that could do more than compute (not in TensorFlow Serving)"
    )
    saved_model_tags: str = _flag("serve", "tags of the graph that is served, with commas between them")
    prefer_tflite_model: bool = _flag(False, "serve model.tflite of a version folder where there is one")
    enable_signature_method_name_check: bool = _flag(False, "Classify, Regress and Predict need their method_name")
    enable_serialization_as_tensor_content: bool = _flag(False, "answer Predict with tensor_content")
    version: bool = _flag(False, "print the version and exit")
    help: bool = _flag(False, "print this list and exit")
    warnings: tuple[str, ...] = field(default=())

    @property
    def total_message_bytes(self) -> int:
        """The memory limit of all messages together, in bytes."""
        return self.max_total_message_bytes or int(_TOTAL_PER_MESSAGE * self.max_message_bytes)


HELP = {flag.name: flag.metadata["text"] for flag in fields(Flags) if flag.metadata}

# Flags of TensorFlow Serving that this server does not support, and the value with which they change nothing.
_REFUSED = {
    "enable_per_model_batching_parameters": "false",
}
# Flags that tune something that this server does in another way.
_WITHOUT_EFFECT = frozenset(
    {
        "enable_batching",
        "batching_parameters_file",
        "rest_api_num_threads",
        "grpc_max_threads",
        "num_load_threads",
        "num_unload_threads",
        "flush_filesystem_caches",
    }
)


def parse(arguments: Sequence[str]) -> Flags:
    """Return the flags; `warnings` has a line for each argument that has no effect.

    Raises FlagError for an invalid value, StartError for a flag that is not supported.
    """
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for argument in arguments:
        name, has_value, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            warnings.append(f"unknown argument: {argument}")
        elif name in HELP:
            values[name] = _value(name, text if has_value else None)
        elif name in _REFUSED:
            _refuse_unless_harmless(name, text if has_value else "true")
        elif name in _WITHOUT_EFFECT:
            warnings.append(f"--{name} has no effect on the embedded model server")
        else:
            warnings.append(f"unknown argument: {argument}")
    return _checked(Flags(**values, warnings=tuple(warnings)))


def _refuse_unless_harmless(name: str, text: str) -> None:
    harmless = {"false", "0"} if _REFUSED[name] == "false" else {_REFUSED[name]}
    if text.lower() not in harmless:
        raise StartError(f"--{name} is not supported by the embedded model server: leave it out.")


def _value(name: str, text: str | None) -> Any:
    kind = type(getattr(Flags(), name))
    read: dict[type, Callable[[str], Any]] = {bool: _boolean, int: int, str: str}
    try:
        if text is None and kind is not bool:
            raise ValueError("a value is needed")
        return read[kind]("true" if text is None else text)
    except ValueError as exc:
        raise FlagError(f"Couldn't interpret value {text or ''} for flag {name}.") from exc


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError as exc:
        raise ValueError(text) from exc


def _checked(flags: Flags) -> Flags:
    if flags.version or flags.help:
        return flags
    for flag in fields(flags):
        value = getattr(flags, flag.name)
        if type(value) is int and not flag.metadata["lowest"] <= value <= flag.metadata["highest"]:
            between = f"{flag.metadata['lowest']} and {flag.metadata['highest']}"
            raise FlagError(f"--{flag.name} must be between {between}, not {value}.")
    least = int(_TOTAL_PER_MESSAGE * flags.max_message_bytes)
    if flags.total_message_bytes < least:
        raise FlagError(
            f"--max_total_message_bytes must be {least} or more, {_TOTAL_PER_MESSAGE} times --max_message_bytes, "
            f"not {flags.max_total_message_bytes}."
        )
    if not flags.port and not flags.grpc_socket_path:
        raise FlagError("At least one of --port and --grpc_socket_path must be set.")
    if not flags.model_base_path and not flags.model_config_file:
        raise FlagError("--model_base_path is required: the folder that holds the version folders.")
    return flags


def usage() -> str:
    """Return the list of all flags with their defaults."""
    lines = ["usage: model_server.py", "Flags:"]
    for name, text in HELP.items():
        default = getattr(Flags(), name)
        shown = str(default).lower() if isinstance(default, bool) else repr(default).replace("'", '"')
        lines.append(f"\t--{name}={shown}\t{text}")
    return "\n".join(lines)
