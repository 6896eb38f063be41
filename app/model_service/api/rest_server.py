"""Runs the REST API on uvicorn, in the event loop of the gRPC server."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator

import uvicorn

from model_service.api.http_protocol import IDLE_S, LimitedHttpProtocol
from model_service.api.rest_api import RestApi
from model_service.errors import StartError

# How often to check whether uvicorn listens; it has no event for this.
_POLL_S = 0.005


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: model_server.py decides when both APIs stop.

    It closes connections of `open_connections` that are idle for too long.
    """

    def __init__(self, config: uvicorn.Config, open_connections: set[LimitedHttpProtocol]) -> None:
        super().__init__(config)
        self._open_connections = open_connections

    async def on_tick(self, counter: int) -> bool:
        """Check the connections once a second; uvicorn calls this every 0.1 s."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self._open_connections):
                connection.enforce_timeouts(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not install signal handlers."""
        yield


class RestServer:
    """One port with the REST API on it."""

    def __init__(self, api: RestApi, drain_s: float) -> None:
        open_connections: set[LimitedHttpProtocol] = set()
        config = uvicorn.Config(
            api,
            http=functools.partial(LimitedHttpProtocol, open_connections=open_connections),  # type: ignore[arg-type]  # makes one
            lifespan="off",
            ws="none",
            log_config=None,
            # uvicorn warns of each invalid request, so any client could fill the log.
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,  # type: ignore[arg-type]  # a float works too
            timeout_graceful_shutdown=int(drain_s),
        )
        self._server = _Server(config, open_connections)
        self._serving: asyncio.Task[None] | None = None

    async def open(self, claimed: socket.socket) -> None:
        """Listen on the bound socket; raises StartError if another program listens on the port already."""
        try:
            claimed.listen()
        except OSError as exc:
            raise StartError(
                f"HTTP can't listen ({exc.strerror}): the port is taken; choose another --rest_api_port."
            ) from exc
        self._serving = asyncio.create_task(self._server.serve([claimed]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Accept no more requests and finish the running ones."""
        self._server.should_exit = True
        if self._serving:
            await self._serving
