"""The HTTP server: uvicorn, with limits on what clients may take before the app sees their requests."""

import asyncio
import contextlib
import functools
import math
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from preprocess_service.app.config import Config
from preprocess_service.app.server.connection_limits import ConnectionLimits
from preprocess_service.app.server.http_protocol import LimitedHttpProtocol
from serving_common.malloc import trim_malloc

# From when the bodies of a burst are released until their memory is free.
TRIM_DELAY_SECONDS = 2.0
# How long a new connection may be without a request when the server ends.
FIRST_REQUEST_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's server, with a graceful end.

    After the first signal /readyz says for ``drain_seconds`` that it is not ready, so that load balancers turn away in
    time; each kept connection is closed after its next answer. Then the port is closed, and the server ends when what
    is in flight is answered. So is what waits at the port when it is closed. A second signal ends it at once.
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
        self._drain_seconds = config.server.drain_seconds or 0

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._drain_seconds and sys.platform != "win32":
            await self._close_ports(sockets or [])
        await super().shutdown(sockets)

    async def _close_ports(self, sockets: list[socket.socket]) -> None:
        """Close the ports, and wait for the first requests of the connections that waited there.

        A proxy has sent its request when the system has made the connection, before the server accepts it. With the
        port, the system would reset the connections that are not accepted yet.
        """
        # A second handle keeps the port open when the event loop gives up its own.
        ports = [port.dup() for port in sockets]
        for server in self.servers:
            server.close()
        for port in sockets:
            port.close()
        await asyncio.sleep(0)
        for port in ports:
            # None may come between the last that is accepted and the end: there is no other work between these two.
            accepted = list(_accept_all(port))
            port.close()
            for client in accepted:
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, client)
        loop = asyncio.get_running_loop()
        end = loop.time() + FIRST_REQUEST_SECONDS
        is_waiting = True
        while is_waiting and loop.time() < end and not self.force_exit:
            # What has arrived is read meanwhile.
            await asyncio.sleep(0.05)
            since = [peer.idle_since() for peer in self._connections.open]
            is_waiting = any(one is not None and loop.time() - one < FIRST_REQUEST_SECONDS for one in since)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself makes them
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _accept_all(port: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections that wait at a port."""
    port.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            client, _ = port.accept()
            client.setblocking(False)
            yield client
