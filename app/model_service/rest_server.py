"""Runs the REST face on uvicorn, in the event loop that the gRPC server runs in."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from failures import StartError
from rest_api import RestApi

# How often to look whether uvicorn listens, which it doesn't tell.
_POLL_S = 0.005


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: one place in the process decides when both faces stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class RestServer:
    """One port with the REST face on it."""

    def __init__(self, api: RestApi, drain_s: float) -> None:
        config = uvicorn.Config(
            api,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(drain_s),
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def open(self, claimed: socket.socket) -> None:
        """Listen on the claimed socket; raises StartError if another program was quicker."""
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
        """Take no more requests and finish those under way."""
        self._server.should_exit = True
        if self._serving:
            await self._serving
