"""The HTTP server: uvicorn, with bounds on what senders may take of it before the app sees anything of them."""

import asyncio
import functools
import math
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
from config import Config
from errors import HeadersTooLarge, InvalidHttp, Overloaded, RequestTimeout
from gate import PATHS, Gate
from metrics import Metrics
from refusal import Refusal
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CLOSE = b"connection: close\r\n"
# Of all connections, how many make room at a time when there is none: looking for them takes longer than closing them.
EVICTED = 1 / 20


class Doorkeeper:
    """What all connections share: the limits, the gate, and the refusals."""

    def __init__(self, config: Config, gate: Gate, metrics: Metrics) -> None:
        self.limits = config.limits
        self._origins = {origin.encode() for origin in config.server.cors_origins}
        self.gate = gate
        self.overloaded = Refusal(Overloaded())
        self.request_timeout = Refusal(RequestTimeout())
        self.headers_too_large = Refusal(HeadersTooLarge())
        self.invalid_http = Refusal(InvalidHttp())
        self.connections: set[Connection] = set()
        self.routes = {path.encode(): path for path in PATHS}
        self._metrics = metrics

    def count(self, refusal: Refusal, route: str = "none") -> None:
        """Count a request that the app does not see."""
        self._metrics.answered(route, refusal.status, refusal.code)

    def lines_for(self, headers: Mapping[bytes, bytes]) -> bytes:
        """What lets a page from elsewhere read a refusal, where it may; the app does the same for all other answers."""
        origin = headers.get(b"origin")
        if origin is None or not self._origins & {origin, b"*"}:
            return b""
        return (
            b"access-control-allow-origin: %b\r\naccess-control-expose-headers: retry-after\r\nvary: origin\r\n"
            % origin
        )


class Connection(HttpToolsProtocol):
    """A sender's connection. Beyond what uvicorn's own does, it refuses at the head of a request what there is no place
    for, takes heads of a bounded size and in bounded time only, and does not wait for ever for whoever is silent."""

    def __init__(self, *arguments: Any, keeper: Doorkeeper, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._keeper = keeper
        self._is_refused = False
        self._is_in_body = False
        self._head_bytes = 0
        self._head_since: float | None = None
        # Since when it has been waiting, for a request or for the rest of one that is answered already.
        self._since = self.loop.time()
        self._blocked_since: float | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._keeper.connections.add(self)
        if len(self._keeper.connections) > self._keeper.limits.connections and not self._make_room():
            self._refuse(self._keeper.overloaded)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._keeper.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        was_in_body = self._is_in_body
        super().data_received(data)
        # What follows a body in the same part is not counted; the next part is.
        if self._head_since is not None and not was_in_body:
            self._head_bytes += len(data)
            if self._head_bytes > self._keeper.limits.head_bytes:
                self._refuse(self._keeper.headers_too_large)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = None

    # --- the parser's side

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_refused = False
        self._head_bytes = 0
        self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._is_in_body = True
        self._since = self.loop.time()
        self.scope["state"]["arrived"] = time.monotonic()
        if self.transport.is_closing():
            self._is_refused = True
            return
        if sum(len(name) + len(value) for name, value in self.headers) > self._keeper.limits.head_bytes:
            self._refuse(self._keeper.headers_too_large)
            return
        route = self._keeper.routes.get(self.url.partition(b"?")[0])
        # One that waits behind another on the same connection is refused when its turn comes, if it has to be.
        if route is None or self.parser.get_method() != b"POST" or self._is_answering():
            super().on_headers_complete()
        elif ticket := self._keeper.gate.let_in():
            self.scope["state"]["ticket"] = ticket
            super().on_headers_complete()
        else:
            self._refuse_for_now(route)

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._since = self.loop.time()
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._keeper.gate.came(self.cycle.scope["state"].get("ticket"))
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._keeper.invalid_http)

    # --- what is new

    def end_if_late(self, now: float) -> None:
        """Close the connection if its sender has been silent for too long; asked about once a second."""
        limits = self._keeper.limits
        if self.transport.is_closing() and self._blocked_since is None:
            # Closed for good when the last answer is taken; a sender that does not take it is treated like one that
            # stops in the middle of an answer.
            self._blocked_since = now
        if self._blocked_since is not None:
            if now - self._blocked_since > limits.idle_seconds:
                self.transport.abort()
        elif self._is_answering():
            # The app knows how long it may take.
            pass
        elif self._head_since is not None:
            if now - self._head_since > limits.head_seconds:
                self._refuse(self._keeper.request_timeout)
        elif now - self._since > (limits.head_seconds if self._is_in_body else limits.idle_seconds):
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        """Close the connections that have been waited for the longest; whether there were any.

        One that has sent a part of a head is no better than one that is idle: so a thousand of them keep nobody out.
        """
        waiting = [other for other in self._keeper.connections if other is not self and not other._is_answering()]
        waiting.sort(key=lambda other: other._since if other._head_since is None else other._head_since)
        for other in waiting[: 1 + int(EVICTED * self._keeper.limits.connections)]:
            other.transport.close()
        return bool(waiting)

    def _refuse_for_now(self, route: str) -> None:
        """Refuse a request that there is no place for, and go on with its sender, at a pace that can be afforded."""
        self._is_refused = True
        pause = self._keeper.gate.refuse()
        # Who asks first whether to send the body is told no, and may send another request in its place.
        if self.expect_100_continue or not self.parser.should_keep_alive():
            self._refuse(self._keeper.overloaded, route)
            return
        self._keeper.count(self._keeper.overloaded, route)
        headers = dict(self.headers)
        self.transport.write(self._keeper.overloaded.render(headers, self._keeper.lines_for(headers)))
        if pause:
            self.flow.pause_reading()
            self.loop.call_later(pause, self._listen_again)

    def _listen_again(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _refuse(self, refusal: Refusal, route: str = "none") -> None:
        """Refuse what there is no way to go on after."""
        self._keeper.count(refusal, route)
        self._is_refused = True
        self._head_since = None
        if not self._is_answering():
            headers = dict(self.headers or ())
            self.transport.write(refusal.render(headers, CLOSE + self._keeper.lines_for(headers)))
        self.transport.close()


class Server(uvicorn.Server):
    """Says for ``drain_seconds`` that it is not ready, so that whoever shares requests out turns away in time, and ends
    each kept connection with its next answer; then stops to listen, finishes what is in flight and ends. A second
    signal ends it at once."""

    def __init__(self, app: Starlette) -> None:
        config: Config = app.state.config
        self._keeper = Doorkeeper(config, app.state.gate, app.state.metrics)
        super().__init__(
            uvicorn.Config(
                app,
                http=functools.partial(Connection, keeper=self._keeper),  # type: ignore[arg-type]  # makes one, like a type
                ws="none",
                server_header=False,
                access_log=False,
                log_config=None,
                timeout_keep_alive=config.limits.idle_seconds,  # type: ignore[arg-type]  # any number will do
                # Beyond the last deadline there is only who does not take the answer.
                timeout_graceful_shutdown=math.ceil(config.limits.deadline_seconds) + 1,
            )
        )
        app.state.metrics.connections.set_function(lambda: len(self._keeper.connections))
        self._app = app
        self._drain_seconds = config.server.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self._keeper.connections):
                connection.end_if_late(now)
            self._app.state.gate.report()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        pipeline = getattr(self._app.state, "pipeline", None)
        if pipeline is None or pipeline.is_draining or not self._drain_seconds:
            super().handle_exit(sig, frame)
            return
        pipeline.is_draining = True
        # With every answer from now on: whoever keeps its connection would else send the next request just as it ends.
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        asyncio.get_running_loop().call_later(self._drain_seconds, super().handle_exit, sig, frame)
