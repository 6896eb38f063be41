"""Loads and warms up the models that the flags name."""

from functools import partial
from pathlib import Path

from model_service.engines.factory import load_engines
from model_service.engines.parallelism import Threads
from model_service.engines.split_batches import SplitEngine
from model_service.engines.tflite import read_tflite
from model_service.flags import Flags
from model_service.lifecycle import model_config
from model_service.lifecycle.served_models import Changes, ServedModels
from model_service.lifecycle.version_poller import Schedule
from model_service.models.engine import Engine
from model_service.models.saved_model import TFLITE_FILE, read_saved_model
from model_service.models.servables import Servable, Servables
from model_service.observability.metrics import Monitoring
from model_service.prediction.warmup import called_signatures, warm_up
from serving_common.malloc import trim_malloc


def load_models(options: Flags, servables: Servables, threads: Threads, monitoring: Monitoring) -> ServedModels:
    """Load the models that are configured; raises StartError."""
    poll_s, retry_s = options.file_system_poll_wait_seconds, options.load_retry_interval_micros / 1e6
    schedule = Schedule(poll_s, options.max_num_load_retries, retry_s, options.unload_delay_seconds)
    changes = Changes(
        options.model_config_file,
        options.model_config_file_poll_wait_seconds,
        options.allow_version_labels_for_unavailable_models,
        options.allow_reload_requests,
    )
    models = ServedModels(servables, partial(load_version, options, threads, monitoring), schedule, changes)
    models.load_first(
        model_config.read(changes.path)
        if changes.path
        else model_config.one_model(options.model_name, options.model_base_path)
    )
    return models


def load_version(
    options: Flags, threads: Threads, monitoring: Monitoring, name: str, version: int, folder: Path
) -> Servable:
    """Load and warm up the version in `folder`; raises StartError.

    A signature that the warm-up file does not call is compiled at its first call.
    """
    if options.prefer_tflite_model and (folder / TFLITE_FILE).is_file():
        model = read_tflite(folder, version, options.refuse_unsafe_operations)
    else:
        tags = frozenset(options.saved_model_tags.split(","))
        model = read_saved_model(folder, version, options.refuse_unsafe_operations, tags)
    at_load = called_signatures(model) if options.enable_model_warmup else model.signatures
    timed: dict[str, Engine] = {}
    for key, engine in load_engines(model, threads, at_load).items():
        split = SplitEngine(engine, model.signatures[key], options.max_execution_bytes)
        timed[key] = monitoring.timed(split, name)
    servable = Servable(name, model, timed)
    if options.enable_model_warmup:
        # Clients can read the metrics, so they do not show the server's folders.
        with monitoring.warmup(Path(name, folder.name)):
            warm_up(servable, options.num_request_iterations_for_warmup, options.max_message_bytes)
    trim_malloc()
    return servable
