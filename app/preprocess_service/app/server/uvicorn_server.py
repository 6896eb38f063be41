"""The HTTP server: uvicorn, with limits on what clients may take before the app sees their requests."""

import asyncio
import functools
import math
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from preprocess_service.app.config import Config
from preprocess_service.app.server.connection_limits import ConnectionLimits
from preprocess_service.app.server.http_protocol import LimitedHttpProtocol
from serving_common.malloc import trim_malloc

# From when the bodies of a burst are released until their memory is free.
TRIM_DELAY_SECONDS = 2.0


class Server(uvicorn.Server):
    """uvicorn's server, with a graceful end.

    After the first signal /readyz says for ``drain_seconds`` that it is not ready, so that load balancers turn away in
    time; each kept connection is closed after its next answer. Then the port is closed, and the server ends when what
    is in flight is answered. A second signal ends it at once.
    """

    def __init__(self, app: Starlette) -> None:
        config: Config = app.state.config
        self._connections = ConnectionLimits(config, app.state.admission, app.state.metrics)
        super().__init__(
            uvicorn.Config(
                app,
                # It makes one, like a type.
                http=functools.partial(LimitedHttpProtocol, connections=self._connections),  # type: ignore[arg-type]
                ws="none",
                server_header=False,
                # What proxies say of a sender is taken from those that are named in our settings, where it is logged.
                proxy_headers=False,
                access_log=False,
                log_config=None,
                timeout_keep_alive=config.limits.idle_seconds,  # type: ignore[arg-type]  # any number will do
                # After the last deadline only clients that do not take their answers are left.
                timeout_graceful_shutdown=math.ceil(config.limits.deadline_seconds) + 1,
            )
        )
        app.state.metrics.connections.set_function(lambda: len(self._connections.open))
        self._app = app
        self._drain_seconds = config.server.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self._connections.open):
                connection.enforce_timeouts(now)
            bodies = self._app.state.admission.bodies
            bodies.reject_slow()
            if bodies.is_burst_over():
                asyncio.get_running_loop().call_later(TRIM_DELAY_SECONDS, self._trim)
            self._app.state.admission.log_rejections()
        return await super().on_tick(counter)

    @staticmethod
    def _trim() -> None:
        # In a thread: it takes some milliseconds. Garbage is not collected: a body that was cut off leaves none, and a
        # collection stops the event loop.
        asyncio.get_running_loop().run_in_executor(None, trim_malloc)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        pipeline = getattr(self._app.state, "pipeline", None)
        if pipeline is None or pipeline.is_draining or not self._drain_seconds:
            super().handle_exit(sig, frame)
            return
        pipeline.is_draining = True
        # With every answer from now on: on a connection that is kept the next request could come just as it ends.
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        asyncio.get_running_loop().call_later(self._drain_seconds, super().handle_exit, sig, frame)
