"""The embedded model server: TensorFlow Serving's gRPC and REST APIs on SavedModels, without Docker.

    python model_server.py --port=8500 --rest_api_port=8501 --model_name=CAT-DOG --model_base_path=FOLDER

It serves the highest version in the folder, and later each higher version that appears; with --model_config_file
several models, and the versions of each that the file asks for. The ports open after the model is loaded and warmed
up. After SIGTERM or Ctrl-C the running calls are finished first. If the server can't start, it writes why to stderr.
"""

import sys
from pathlib import Path

# When this file is the program: replace its folder on the path by the source root, where the packages are.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from serving_common import process_one

    process_one.end_on_sigterm()

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial

from model_service import flags
from model_service.api.grpc_server import GrpcServer
from model_service.api.rest_api import RestApi
from model_service.api.rest_server import RestServer
from model_service.engines.parallelism import Threads, queue_length
from model_service.errors import StartError
from model_service.flags import Flags
from model_service.listeners import Listeners, bind, read_listeners
from model_service.loading import load_models
from model_service.models.servables import Servables
from model_service.observability.metrics import Monitoring, read_path
from model_service.observability.readiness import Readiness
from model_service.prediction.executor import InferenceExecutor
from model_service.prediction.idle_memory import release_unused_memory
from model_service.prediction.message_memory import MessageMemory
from model_service.prediction.request_log import RequestLogger, RequestRecord
from model_service.prediction.validation import Options
from model_service.server_context import ServerContext
from serving_common import sockets
from serving_common.json_logging import configure_json_logging
from serving_common.malloc import configure_malloc
from serving_common.otel import SpanExport, open_export

logger = logging.getLogger("model_server")

VERSION = "0.1.0"

# TensorFlow Serving's exit code when it can't start.
EXIT_START_FAILED = 255
EXIT_STUCK = 1
EXIT_INTERRUPTED = 130

# Docker waits 10 s between SIGTERM and SIGKILL. Calls that take longer than this are cut off.
DRAIN_S = 8.0
# After the last prediction: time to send the last answers. Only open health watches need all of it.
FLUSH_S = 0.3
STUCK_CHECK_S = 1.0
# How long the process waits at its end for the last spans to be sent.
TRACES_CLOSE_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    configure_json_logging()
    try:
        return _serve(flags.parse(arguments))
    except flags.FlagError as exc:
        sys.stderr.write(f"{exc}\n{flags.usage()}\n")
        return EXIT_START_FAILED
    except StartError as exc:
        sys.stderr.write(f"{exc}\n")
        return EXIT_START_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _serve(options: Flags) -> int:
    if options.help:
        sys.stdout.write(f"{flags.usage()}\n")
        return 0
    if options.version:
        sys.stdout.write(f"TensorFlow ModelServer (embedded stand-in): {VERSION}\n")
        return 0
    for warning in options.warnings:
        logger.warning("%s", warning)
    if any(warning.startswith("unknown argument") for warning in options.warnings):
        sys.stderr.write(f"{flags.usage()}\n")
    configure_malloc(mmap_threshold=32 << 20, trim_threshold=64 << 20)
    # Python's limit is 4,300 digits. A body full of such numbers would block the process for 0.25 s.
    sys.set_int_max_str_digits(sys.int_info.str_digits_check_threshold)
    monitoring_path = _monitoring_path(options)
    listening = read_listeners(
        sockets.join(options.bind_address, options.port) if options.port else "",
        options.grpc_socket_path,
        options.ssl_config_file,
        options.grpc_channel_arguments,
    )
    grpc_claim = bind(options.bind_address, options.port, "port") if options.port else None
    rest_claim = _claim_rest(options)
    threads = Threads.sharing(
        options.tensorflow_intra_op_parallelism or options.tensorflow_session_parallelism,
        options.tensorflow_inter_op_parallelism,
    )
    monitoring = Monitoring(monitoring_path)
    servables = Servables()
    models = load_models(options, servables, threads, monitoring)
    executor = InferenceExecutor(threads.callers, queue_length(options.max_queued_requests))
    readiness = Readiness(servables, executor, options.stuck_call_seconds)
    export = open_export(os.environ, "model_service", VERSION, TRACES_CLOSE_S)
    request_logger = RequestLogger(options.log_calls, _export_request(export), monitoring.waited)
    messages = MessageMemory(options.total_message_bytes, options.max_message_bytes)
    server_context = ServerContext(
        servables,
        models,
        executor,
        readiness,
        monitoring,
        request_logger,
        messages,
        Options(
            options.max_message_bytes,
            options.enable_signature_method_name_check,
            options.enable_serialization_as_tensor_content,
        ),
        options.rest_api_enable_cors_support,
    )
    if grpc_claim:
        grpc_claim.close()
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        is_computing = runner.run(_run(options, server_context, listening, rest_claim))
    if export:
        export.close()
    if is_computing:
        # Python would wait for that thread without a limit, or destroy the engine while the thread uses it.
        logger.info("Stopping although a computation runs: no client waits for it")
        logging.shutdown()
        os._exit(EXIT_STUCK if readiness.is_stuck else 0)
    return 0


def _claim_rest(options: Flags) -> socket.socket | None:
    if options.rest_api_port == options.port:
        logger.error("--rest_api_port is the same as --port: the HTTP/REST API is off")
        return None
    if not options.rest_api_port:
        return None
    return bind(options.bind_address, options.rest_api_port, "rest_api_port")


def _monitoring_path(options: Flags) -> str | None:
    path = read_path(options.monitoring_config_file)
    if path and not options.rest_api_port:
        logger.warning("The metrics are off: they need --rest_api_port")
    return path


def _event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop if uvloop is installed: each prediction passes the loop several times."""
    try:
        import uvloop
    except ImportError:  # uvloop does not support Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _run(
    options: Flags, server_context: ServerContext, listening: Listeners, rest_claim: socket.socket | None
) -> bool:
    """Serve until a signal arrives and the running calls are answered; return whether a thread still runs."""
    stop = _stop_event()
    grpc_server = GrpcServer(server_context, options.enable_grpc_healthcheck_service, listening)
    rest_server = RestServer(RestApi(server_context, options.rest_api_timeout_in_ms / 1000), DRAIN_S)
    await grpc_server.open()
    if rest_claim:
        await rest_server.open(rest_claim)
        logger.info("Exporting HTTP/REST API at:%s ...", sockets.join(options.bind_address, options.rest_api_port))
    server_context.models.start()
    memory_release = asyncio.create_task(release_unused_memory(server_context.messages))
    stuck = _stop_when_stuck(server_context.readiness, stop) if options.exit_when_stuck else None
    stuck_watch = asyncio.create_task(stuck) if stuck else None
    await stop.wait()
    if stuck_watch:
        stuck_watch.cancel()
    memory_release.cancel()
    logger.info("Stopping: finishing the running calls")
    server_context.models.stop()
    server_context.readiness.is_stopping = True
    await grpc_server.announce_end()
    await asyncio.gather(_drain(grpc_server, server_context.executor), rest_server.close())
    server_context.executor.close()
    return bool(server_context.executor.computing) or server_context.models.is_loading


async def _stop_when_stuck(readiness: Readiness, stop: asyncio.Event) -> None:
    # Docker restarts a container that exits, but not one that is unhealthy.
    while not readiness.is_stuck:
        await asyncio.sleep(STUCK_CHECK_S)
    logger.error("%s: exiting (--exit_when_stuck)", readiness.failing())
    stop.set()


async def _drain(grpc_server: GrpcServer, executor: InferenceExecutor) -> None:
    draining = asyncio.create_task(grpc_server.stop(DRAIN_S))
    # Otherwise a client that watches the health service would keep the process alive for all of DRAIN_S.
    await asyncio.wait([asyncio.create_task(executor.wait_until_idle())], timeout=DRAIN_S)
    await grpc_server.stop(FLUSH_S)
    await draining


def _stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set. `add_signal_handler` does not work on Windows."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop


def _export_request(export: SpanExport | None) -> Callable[[RequestRecord], str] | None:
    if export is None:
        return None
    # Imported only when needed: it loads OpenTelemetry.
    from model_service.observability.tracing import export_request

    return partial(export_request, export.tracer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
