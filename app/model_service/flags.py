"""TensorFlow Serving's command line: `--flag=value` only, the last one wins, an unknown flag is named and passed over.

A flag of TensorFlow Serving's that this server doesn't implement is never taken in silence: one that only tunes is
warned about, one whose absence would change what is served or how safely stops the start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from model_service.errors import StartError

# Of the largest messages: two that come, one that is read, which takes four times its bytes, and room for small ones.
_LARGEST_AT_WORK = 6.5


class FlagError(StartError):
    """A flag has a value that it can't have."""


@dataclass(frozen=True)
class Flags:
    """What the command line says. Sizes are bytes; 0 threads means one for each core; REST port 0 means off."""

    port: int = 8500
    rest_api_port: int = 0
    bind_address: str = "0.0.0.0"
    model_name: str = "default"
    model_base_path: str = ""
    file_system_poll_wait_seconds: int = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    unload_delay_seconds: int = 0
    rest_api_timeout_in_ms: int = 30_000
    max_message_bytes: int = 16 * 2**20
    max_total_message_bytes: int = 0
    max_execution_bytes: int = 3 * 2**20
    max_queued_requests: int = 0
    stuck_call_seconds: int = 30
    exit_when_stuck: bool = False
    monitoring_config_file: str = ""
    log_calls: bool = True
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 1
    enable_grpc_healthcheck_service: bool = True
    refuse_unsafe_operations: bool = False
    version: bool = False
    help: bool = False
    warnings: tuple[str, ...] = field(default=())

    @property
    def total_message_bytes(self) -> int:
        """How much memory the messages at work may take together."""
        return self.max_total_message_bytes or int(_LARGEST_AT_WORK * self.max_message_bytes)


HELP = {
    "port": "TCP port for gRPC",
    "rest_api_port": "TCP port for HTTP/REST; 0: none",
    "bind_address": "address to listen on (not in TensorFlow Serving)",
    "model_name": "name under which the model is served",
    "model_base_path": "folder that holds the version folders (required)",
    "file_system_poll_wait_seconds": "seconds between looks for new versions; 0 or less: only at the start",
    "max_num_load_retries": "how often a version that can't be loaded is tried again; at the start: never",
    "load_retry_interval_micros": "microseconds between these attempts",
    "unload_delay_seconds": "how long a replaced version stays since it was last named (not in TensorFlow Serving)",
    "rest_api_timeout_in_ms": "how long an HTTP call may take",
    "max_message_bytes": "largest message taken, and largest inputs of one as arrays (not in TensorFlow Serving)",
    "max_total_message_bytes": "memory of all messages at work; 0: 6.5 * max_message_bytes (not in TensorFlow Serving)",
    "max_execution_bytes": "inputs, as float32, computed at a time; more, in parts; 0: all (not in TensorFlow Serving)",
    "max_queued_requests": "calls that may wait, others are refused; 0: 16 for each core (not in TensorFlow Serving)",
    "stuck_call_seconds": "a longer call turns the health to NOT_SERVING; 0: no call does (not in TensorFlow Serving)",
    "exit_when_stuck": "end after such a call, for whoever starts this anew (not in TensorFlow Serving)",
    "monitoring_config_file": "text form of a MonitoringConfig, which turns the metrics for Prometheus on",
    "log_calls": "write a line of JSON for each prediction (not in TensorFlow Serving)",
    "tensorflow_session_parallelism": "threads to compute with; 0: one for each core",
    "tensorflow_intra_op_parallelism": "threads for one call; 0: chosen from the cores",
    "tensorflow_inter_op_parallelism": "calls computed at the same time; 0: chosen from the cores",
    "enable_model_warmup": "replay assets.extra/tf_serving_warmup_requests before serving",
    "num_request_iterations_for_warmup": "how often each warm-up request is run",
    "enable_grpc_healthcheck_service": "serve grpc.health.v1",
    "refuse_unsafe_operations": "load no model that could do more than compute (not in TensorFlow Serving)",
    "version": "print the version and exit",
    "help": "print this list and exit",
}

# Flags of TensorFlow Serving's that ask for something this server can't do, by the value that doesn't ask.
_REFUSED = {
    "model_config_file": "",
    "enable_per_model_batching_parameters": "false",
    "ssl_config_file": "",
    "grpc_socket_path": "",
    "rest_api_enable_cors_support": "false",
    "enable_serialization_as_tensor_content": "false",
    "enable_signature_method_name_check": "false",
    "prefer_tflite_model": "false",
    "saved_model_tags": "serve",
}
# Flags that tune what this server does in a way of its own.
_WITHOUT_EFFECT = frozenset(
    {
        "enable_batching",
        "batching_parameters_file",
        "model_config_file_poll_wait_seconds",
        "rest_api_num_threads",
        "grpc_max_threads",
        "grpc_channel_arguments",
        "num_load_threads",
        "num_unload_threads",
        "flush_filesystem_caches",
        "allow_version_labels_for_unavailable_models",
    }
)


def parse(arguments: Sequence[str]) -> Flags:
    """Return the flags, and in `warnings` a line for each argument that was passed over.

    Raises FlagError for a bad value and StartError for a flag that can't be honoured.
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
    ranges = {
        "port": (1, 65535),
        "rest_api_port": (0, 65535),
        "file_system_poll_wait_seconds": (-(2**31), 2**31 - 1),
        "max_num_load_retries": (0, 2**31 - 1),
        "load_retry_interval_micros": (0, 2**63 - 1),
        "unload_delay_seconds": (0, 2**31 - 1),
        "rest_api_timeout_in_ms": (1, 2**31),
        "max_message_bytes": (1, 2**31 - 1),
        "max_total_message_bytes": (0, 2**40),
        "max_execution_bytes": (0, 2**31 - 1),
        "max_queued_requests": (0, 2**31 - 1),
        "stuck_call_seconds": (0, 2**31 - 1),
        "tensorflow_session_parallelism": (0, 1024),
        "tensorflow_intra_op_parallelism": (0, 1024),
        "tensorflow_inter_op_parallelism": (0, 1024),
        "num_request_iterations_for_warmup": (0, 10_000),
    }
    for name, (lowest, highest) in ranges.items():
        if not lowest <= getattr(flags, name) <= highest:
            raise FlagError(f"--{name} must be between {lowest} and {highest}, not {getattr(flags, name)}.")
    least = int(_LARGEST_AT_WORK * flags.max_message_bytes)
    if flags.total_message_bytes < least:
        raise FlagError(
            f"--max_total_message_bytes must be {least} or more, {_LARGEST_AT_WORK} times --max_message_bytes, "
            f"not {flags.max_total_message_bytes}."
        )
    if not flags.model_base_path:
        raise FlagError("--model_base_path is required: the folder that holds the version folders.")
    return flags


def usage() -> str:
    """Return the list of flags, with their defaults, as it is printed after a mistake."""
    lines = ["usage: model_server.py", "Flags:"]
    for name, text in HELP.items():
        default = getattr(Flags(), name)
        shown = str(default).lower() if isinstance(default, bool) else repr(default).replace("'", '"')
        lines.append(f"\t--{name}={shown}\t{text}")
    return "\n".join(lines)
