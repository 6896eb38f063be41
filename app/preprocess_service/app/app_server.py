"""Builds and starts the HTTP service. It takes a photo and answers what is in it: CAT or DOG, or another model's label.

Start it with ``python app/preprocess_service/app/app_server.py``, from any folder.
"""

import sys
from pathlib import Path

# If this file is run as a program, its own folder is first in sys.path. The source root replaces it.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from serving_common import process_one

    process_one.end_on_sigterm()

import asyncio
import logging
import os
import socket
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from preprocess_service.app.api import openapi
from preprocess_service.app.api.exception_handlers import HANDLERS, on_service_error
from preprocess_service.app.api.routes import add_routes
from preprocess_service.app.config import Config, ConfigError, load_config
from preprocess_service.app.inference.pipeline import Runner
from preprocess_service.app.middleware import cors
from preprocess_service.app.middleware.api_key import ApiKeyMiddleware, ApiKeys
from preprocess_service.app.middleware.client_address import ClientAddresses, client_addresses
from preprocess_service.app.middleware.request_context import RequestContextMiddleware
from preprocess_service.app.middleware.route_path import RoutePathMiddleware
from preprocess_service.app.model_runner import ModelRunner
from preprocess_service.app.observability.metrics import VERSION, Metrics
from preprocess_service.app.observability.tracing import Tracing, open_tracing
from preprocess_service.app.served_models import ServedModels
from preprocess_service.app.server.admission import AdmissionController
from preprocess_service.app.server.uvicorn_server import Server
from serving_common.json_logging import configure_json_logging
from serving_common.malloc import configure_malloc
from serving_common.sockets import allow_open_files, bind, join


def create_app(
    config: Config, runner: Runner, tracing: Tracing | None = None, others: Sequence[Runner] = ()
) -> FastAPI:
    """Build the app. It opens nothing before its lifespan starts. At the lifespan's end it closes ``tracing``.

    Args:
        runner: of the first model; ``others``: of the other ones.
    """
    tracing = tracing or Tracing()
    metrics = Metrics(config.models, bool(config.canary))
    admission = AdmissionController(config.limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models = ServedModels(config, [runner, *others], metrics)
        await models.open()
        app.state.models = models
        yield
        await models.close()
        await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title=openapi.title_of(config.experiment_id),
        version=VERSION,
        description=openapi.description_of(config.experiment_id),
        lifespan=lifespan,
        # Our own are in two languages, and /docs has a Content-Security-Policy.
        openapi_url=None,
        # A redirect would use the Host header of the request, which can name any server.
        redirect_slashes=False,
        # FastAPI's own spans know neither our stages nor our error codes, and its variables could prevent the start.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    add_routes(app, config)
    app.state.config, app.state.metrics, app.state.admission = config, metrics, admission
    add_security_middleware(app, config)
    # The middleware that is added last sees a request first.
    app.add_middleware(
        RoutePathMiddleware,
        paths=[route.path for route in app.routes if isinstance(route, Route)],
        prefix=config.server.root_path,
        proxies=ClientAddresses(config.server.trusted_proxies) if config.server.trusted_proxies else None,
    )
    addresses = client_addresses(config.server.log_client_address, config.server.trusted_proxies)
    app.add_middleware(RequestContextMiddleware, metrics=metrics, tracing=tracing, addresses=addresses)
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    return app


def add_security_middleware(app: FastAPI, config: Config) -> None:
    """Require an API key if keys are set, and allow pages of other origins (CORS) if origins are set."""
    keys = ApiKeys(key.get_secret_value() for key in config.server.api_keys)
    if keys:
        app.add_middleware(ApiKeyMiddleware, keys=keys, on_error=on_service_error)
        plain = app.openapi
        app.openapi = lambda: openapi.with_keys(plain())  # type: ignore[method-assign]  # as FastAPI's manual has it
    if config.server.cors_origins:
        # CORS comes before the API keys, because a browser's preflight request has no key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.cors_origins,
            allow_methods=cors.METHODS,
            allow_headers=cors.SENT_HEADERS,
            expose_headers=cors.EXPOSED_HEADERS,
        )


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status. A failed start prints one line on stderr."""
    try:
        config = load_config(os.environ)
        allow_open_files(config.limits.connections)
        listener = _bind(config.server.host, config.server.port)
    except (ConfigError, OSError) as exc:
        sys.stderr.write(f"app_server: {exc}\n")
        return 1
    configure_json_logging()
    # Pillow warns about irregular photos, python_multipart about irregular forms. The log is for the operator, who
    # can't change what clients send.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for library in ("PIL", "python_multipart"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    configure_malloc(mmap_threshold=1 << 20, trim_threshold=16 << 20)
    tracing = open_tracing(os.environ)
    runner = ModelRunner(config, tracing)
    app = create_app(config, runner, tracing, [runner.for_model(name) for name in config.models[1:]])
    Server(app).run(sockets=[listener])
    return 0


def _bind(host: str, port: int) -> socket.socket:
    """Bind the port first, so that a taken port gives one clear line; raises OSError."""
    try:
        return bind(host, port)
    except OSError as exc:
        reason = f"{exc.strerror}; is another program using it? Set SERVICE_PORT to a free port"
        raise OSError(f"can't listen on {join(host, port)}: {reason}") from exc


if __name__ == "__main__":
    sys.exit(main())
