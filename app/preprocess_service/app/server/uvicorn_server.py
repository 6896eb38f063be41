"""The HTTP server: uvicorn, with limits that apply before the app sees a request, and a graceful end."""

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

# Seconds between the end of a burst of bodies and the trim. By then the memory of the bodies is free.
TRIM_DELAY_SECONDS = 2.0
# When the server ends: seconds that it waits for the first request of a new connection.
FIRST_REQUEST_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's server, with a graceful end.

    After the first signal /readyz answers 503 for ``drain_seconds``, so that load balancers stop using this server.
    Meanwhile each keep-alive connection is closed after its next answer. Then the port is closed. Requests in flight
    are answered, and so are connections that waited at the port to be accepted. Then the server ends. After a second
    signal it ends at once.
    """

    def __init__(self, app: Starlette) -> None:
        config: Config = app.state.config
        self._connections = ConnectionLimits(config, app.state.admission, app.state.metrics)
        super().__init__(
            uvicorn.Config(
                app,
                # uvicorn calls this like a class.
                http=functools.partial(LimitedHttpProtocol, connections=self._connections),  # type: ignore[arg-type]
                ws="none",
                server_header=False,
                # uvicorn does not read X-Forwarded-For. ``ClientAddresses`` does, by the setting ``trusted_proxies``.
                proxy_headers=False,
                access_log=False,
                log_config=None,
                timeout_keep_alive=config.limits.idle_seconds,  # type: ignore[arg-type]  # a float works too
                # After the last deadline, only clients that do not read their answers are left.
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
        # In a thread, because it takes a few milliseconds. Garbage is not collected: a body that was cut off leaves no
        # garbage, and a collection stops the event loop.
        asyncio.get_running_loop().run_in_executor(None, trim_malloc)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        models = getattr(self._app.state, "models", None)
        if models is None or models.is_draining or not self._drain_seconds:
            super().handle_exit(sig, frame)
            return
        models.is_draining = True
        # From now on every answer closes its connection. On a keep-alive connection the next request could arrive in
        # the moment when the server ends.
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        asyncio.get_running_loop().call_later(self._drain_seconds, super().handle_exit, sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._drain_seconds and sys.platform != "win32":
            await self._close_ports(sockets or [])
        await super().shutdown(sockets)

    async def _close_ports(self, sockets: list[socket.socket]) -> None:
        """Accept all connections that wait at the ports, close the ports, and wait for their first requests.

        A proxy may send its request before the server accepts the connection. When a port is closed, the system resets
        the connections that are not accepted yet.
        """
        # A duplicate keeps each port open after the event loop has closed its own socket.
        ports = [port.dup() for port in sockets]
        for server in self.servers:
            server.close()
        for port in sockets:
            port.close()
        await asyncio.sleep(0)
        for port in ports:
            # No other work between the last accept and the close: a connection that arrives there would be reset.
            accepted = list(_accept_all(port))
            port.close()
            for client in accepted:
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, client)
        loop = asyncio.get_running_loop()
        end = loop.time() + FIRST_REQUEST_SECONDS
        is_waiting = True
        while is_waiting and loop.time() < end and not self.force_exit:
            # Meanwhile the event loop reads the requests that have arrived.
            await asyncio.sleep(0.05)
            since = [peer.idle_since() for peer in self._connections.open]
            is_waiting = any(one is not None and loop.time() - one < FIRST_REQUEST_SECONDS for one in since)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself makes them
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _accept_all(port: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait at a port, accepted and non-blocking."""
    port.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            client, _ = port.accept()
            client.setblocking(False)
            yield client
