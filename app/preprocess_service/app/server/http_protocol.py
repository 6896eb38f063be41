"""One HTTP connection: uvicorn's, with bounds on what its sender may take before the app sees anything of it."""

import asyncio
import time
from collections import deque
from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from preprocess_service.app.server.connection_limits import ConnectionLimits
from preprocess_service.app.server.flow_control import ReadingFlowControl
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.server.prerendered_errors import PrerenderedError
from preprocess_service.app.server.received_bytes import ReceivedBytes

CLOSE = b"connection: close\r\n"
VERSIONS = ("1.1", "1.0")
# Headers of a request, and trailers: each takes some hundred bytes of memory, however short it is.
MAX_HEADERS = 100
# What no trailer may say (RFC 9110, 6.5.1), and the parser would heed: how the message, and the connection, goes on.
FRAMING_FIELDS = (b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade")
# Requests of one connection that wait for their answers; past them it ends with the last of these.
MAX_PIPELINED = 16
# Seconds for which a sender of many small parts is not read, and one that is not listened to any more.
PAUSE = 0.1


class LimitedHttpProtocol(HttpToolsProtocol):
    """A sender's connection. Beyond what uvicorn's own does, it refuses at the head of a request what there is no place
    for, takes heads, trailers and chunks of bounded size and in bounded time only, and does not wait for ever for
    whoever is silent."""

    flow: ReadingFlowControl

    def __init__(self, *arguments: Any, connections: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.buffered = 0
        self._connections = connections
        # Of the request that is being parsed: what the app works on, None where it does not; whether it was refused.
        self._current: RequestResponseCycle | None = None
        self._is_rejected = False
        self._is_in_body = False
        self._keeps_body = False
        self._reservation: IncomingBody | None = None
        self._headers_since: float | None = None
        self._trailers = 0
        self._received = ReceivedBytes(connections.limits)
        # What the app works on or will, in the order in which it came.
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._rejected_in_a_row = self._pipelined_bytes = self._pauses = 0
        # Nothing is parsed any more; this is what is sent after the answers that are under way.
        self._is_ended = False
        self._final_response = b""
        self._without_upgrade = b""
        # Since when it has been waiting, for a request or for the rest of one that is answered already.
        self._idle_since = self.loop.time()
        self._blocked_since: float | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = ReadingFlowControl(transport)
        if not self._connections.add(self):
            self._end_with(self._connections.overloaded)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells only the last one.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._connections.discard(self)
        self._release_reservation()

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            # Taken all the same, slowly: where something is left unread, the system may throw the last answer away.
            self._pause_reading(PAUSE)
            return
        self._unset_keepalive_if_required()
        received = self._received
        received.begin_read()
        if not self._parse(data):
            return
        received.end_read(len(data))
        if received.has_too_much_framing():
            self._end_with(self._connections.headers_too_large)
            return
        if received.has_too_much_payload():
            self._end_with(None)
            return
        if received.comes_in_small_reads():
            self._pause_reading(PAUSE)
        if self.pipeline:
            self._pipelined_bytes += len(data)
            self.flow.pause("pipeline")
        self._connections.update(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked_since = self.loop.time()
        self._connections.update(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = None

    # --- the parser's side

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._current = None
        self._is_rejected = False
        self._keeps_body = False
        self._trailers = 0
        self._received.mark_boundary(is_begin=True)
        self._headers_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:
            # A trailer: it may say nothing that a proxy would have looked for in the head, and so says nothing at all.
            self._trailers += 1
            if name.lower() in FRAMING_FIELDS:
                self._abort(self._connections.invalid_http)
            if self._trailers > MAX_HEADERS:
                self._abort(self._connections.headers_too_large)
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._abort(self._connections.headers_too_large)

    def on_headers_complete(self) -> None:
        self._headers_since = None
        self._is_in_body = True
        self._idle_since = self.loop.time()
        self.scope["state"]["arrived"] = time.monotonic()
        if self.transport.is_closing():
            self._is_rejected = True
            return
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value)
            hosts += name == b"host"
        if size > self._connections.limits.header_bytes:
            self._abort(self._connections.headers_too_large)
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if version not in VERSIONS or hosts > 1 or (not hosts and version == "1.1") or method == b"CONNECT":
            self._abort(self._connections.invalid_http)
        if len(self._unanswered) >= MAX_PIPELINED:
            self.cycle.keep_alive = False
            self._abort(None)
        if self.parser.should_upgrade():
            # The parser would take the body for another protocol. What asks for one that we don't speak is a request
            # like any other (RFC 9110, 7.8): it is parsed again, as if it had not asked.
            self._is_rejected = True
            lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self._without_upgrade = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version.encode(), b"".join(lines))
            return
        # One that waits behind another on the same connection is refused when its turn comes, if it has to be; so is
        # what is not recognised here.
        route = self._connections.route(self.url) if method == b"POST" and not self._unanswered else None
        if route is not None:
            reservation = self._connections.admission.reserve()
            if reservation is None:
                self._reject(route)
                return
            self.scope["state"]["reservation"] = self._reservation = reservation
        super().on_headers_complete()
        # In a request of another method a body means nothing (RFC 9110, 9.3), and no route asks for it.
        self._keeps_body = method == b"POST"
        self._current = self.cycle
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._received.add_body(len(body))
        if self._keeps_body:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._current = None
        self._received.mark_boundary(is_begin=False)
        self._idle_since = self.loop.time()
        if not self._is_rejected:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        self._idle_since = self.loop.time()
        self._release_reservation()
        super().on_response_complete()
        if not self.pipeline:
            self._pipelined_bytes = 0
            self.flow.resume("pipeline")
        if self._is_ended and not self._unanswered:
            self._finish()

    # --- the other connections' side

    def count_buffered(self) -> int:
        # What is read goes on to the app in a moment, unless that waits for its answer to be taken.
        body = len(self.cycle.body) if self._unanswered and self._blocked_since is not None else 0
        return (
            self._received.framing
            + self._received.uncounted
            + self._pipelined_bytes
            + body
            + self.transport.get_write_buffer_size()
        )

    def idle_since(self) -> float | None:
        if self._blocked_since is not None:
            return self._blocked_since
        # Who sends the next requests before the answers is the first to make room.
        if self._unanswered and not self._pipelined_bytes:
            return None
        return self._idle_since if self._headers_since is None else self._headers_since

    def evict(self) -> None:
        # What is not taken would be waited for.
        if self._blocked_since is None:
            self.transport.close()
        else:
            self.transport.abort()

    # --- what is new

    def enforce_timeouts(self, now: float) -> None:
        """Close the connection if its sender has been silent for too long; asked about once a second."""
        limits = self._connections.limits
        if self.transport.is_closing() and self._blocked_since is None:
            # Closed for good when the last answer is taken; a sender that does not take it is treated like one that
            # stops in the middle of an answer.
            self._blocked_since = now
        if self._blocked_since is not None:
            if now - self._blocked_since > limits.idle_seconds:
                self.transport.abort()
        elif self._unanswered:
            # The app knows how long it may take.
            pass
        elif self._headers_since is not None:
            if now - self._headers_since > limits.header_seconds:
                self._end_with(self._connections.request_timeout)
        elif now - self._idle_since > (limits.header_seconds if self._is_in_body else limits.idle_seconds):
            self.transport.close()

    def _parse(self, data: bytes) -> bool:
        """Whether the connection goes on."""
        self._rejected_in_a_row = 0
        while True:
            try:
                self.parser.feed_data(data)
                return not self._is_ended
            except httptools.HttpParserUpgrade as exc:
                data = self._without_upgrade + data[exc.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                self._end_with(self._connections.invalid_http)
                return False

    def _reject(self, route: str) -> None:
        """Refuse a request that there is no place for, and go on with its sender, at a pace that can be afforded."""
        self._is_rejected = True
        self._rejected_in_a_row += 1
        pause = self._connections.admission.record_rejection()
        # Who asks first whether to send the body is told no, and may send another request in its place.
        if self.expect_100_continue or not self.parser.should_keep_alive() or self._rejected_in_a_row > MAX_PIPELINED:
            self._abort(self._connections.overloaded, route)
        self._connections.record_rejection(self._connections.overloaded, route, self.client, self.headers)
        headers = dict(self.headers)
        self.transport.write(self._connections.overloaded.render(headers, self._connections.cors_headers(headers)))
        if pause:
            self._pause_reading(pause)

    def _pause_reading(self, seconds: float) -> None:
        self.flow.pause("pace")
        self._pauses += 1
        self.loop.call_later(seconds, self._resume_reading)

    def _resume_reading(self) -> None:
        self._pauses -= 1
        if not self._pauses and not self.transport.is_closing():
            self.flow.resume("pace")

    def _release_reservation(self) -> None:
        if self._reservation is not None:
            self._connections.admission.release(self._reservation)
            self._reservation = None

    def _abort(self, error: PrerenderedError | None, route: str = "none") -> NoReturn:
        """End the connection, from within the parser, which goes no further."""
        self._end_with(error, route)
        raise ConnectionAbortedError

    def _end_with(self, error: PrerenderedError | None, route: str = "none") -> None:
        """Parse nothing any more. What is under way is answered, then this is refused, then the connection ends."""
        if self._is_ended:
            return
        self._is_ended = True
        self._headers_since = None
        if error is not None:
            headers = dict(self.headers or ())
            self._connections.record_rejection(error, route, self.client, headers.items())
            self._final_response = error.render(headers, CLOSE + self._connections.cors_headers(headers))
        if self._current is not None:
            self._cancel_request(self._current)
        if not self._unanswered:
            self._finish()

    def _cancel_request(self, cycle: RequestResponseCycle) -> None:
        """Take a request back from the app whose body is no good: what is refused is this very request."""
        if cycle.response_started:
            # It has its answer.
            self._final_response = b""
            return
        cycle.disconnected = True
        cycle.message_event.set()
        self._unanswered.remove(cycle)
        for queued in [queued for queued in self.pipeline if queued[0] is cycle]:
            self.pipeline.remove(queued)

    def _finish(self) -> None:
        if not self.transport.is_closing():
            if self._final_response:
                self.transport.write(self._final_response)
            self.transport.close()
