"""TensorFlow Serving's --enable_batching and its file: how many of the calls that wait are computed together."""

import logging
from dataclasses import dataclass

from model_service.config_files import parse_batching_parameters, read_config_file
from model_service.errors import StartError
from model_service.prediction.executor import ONE_BY_ONE, Batches

logger = logging.getLogger(__name__)

# TensorFlow Serving's default.
_MAX_BATCH_SIZE = 1000


@dataclass(frozen=True)
class Batching:
    """What is asked for; None: nothing, so that it is chosen from the cores."""

    batches: Batches = ONE_BY_ONE
    queued: int | None = None
    streams: int | None = None


def read_batching(is_enabled: bool, file: str) -> Batching:
    """Return what --enable_batching and --batching_parameters_file ask for.

    Raises StartError where the file can't be read, is no BatchingParameters, or asks for what this server can't do.
    """
    if not is_enabled:
        if file:
            raise StartError(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        return Batching()
    parameters = parse_batching_parameters("")
    if file:
        parameters = read_config_file("batching_parameters_file", file, parse_batching_parameters)

    def refuse(reason: str) -> StartError:
        return StartError(f"--batching_parameters_file={file}: {reason}.")

    def number(name: str, least: int = 1) -> int | None:
        if not parameters.HasField(name):
            return None
        value: int = getattr(parameters, name).value
        if value < least:
            raise refuse(f"{name} must be {least} or more, not {value}")
        return value

    if parameters.pad_variable_length_inputs:
        raise refuse("pad_variable_length_inputs is not supported: leave it out")
    if parameters.allowed_batch_sizes:
        logger.warning("allowed_batch_sizes has no effect: batches are computed as they are, not filled up")
    most = number("max_batch_size") or _MAX_BATCH_SIZE
    together = most
    if parameters.enable_large_batch_splitting.value:
        together = min(most, number("max_execution_batch_size") or most)
    wait_s = (number("batch_timeout_micros", least=0) or 0) / 1e6
    batches = number("max_enqueued_batches")
    return Batching(
        Batches(max_rows=together, max_task_rows=most, wait_s=wait_s),
        queued=batches and batches * together,
        streams=number("num_batch_threads"),
    )
