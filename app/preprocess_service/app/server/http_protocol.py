"""One HTTP connection: uvicorn's, with limits on what its client may take before the app sees a request."""

import asyncio
import time
from collections import deque
from typing import Any, NoReturn

import httptools

from preprocess_service.app.server.connection_limits import MAX_HEADERS, ConnectionLimits
from preprocess_service.app.server.idle_timer import IdleTimer
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.server.prerendered_errors import PrerenderedError
from preprocess_service.app.server.received_bytes import ReceivedBytes
from serving_common.uvicorn_protocol import RequestResponseCycle, UvicornProtocol, has_long_head

CLOSE = b"connection: close\r\n"
# Requests of one connection that wait for their answers; past them it ends with the last of these.
MAX_PIPELINED = 16
# Seconds for which a client of many small parts is not read, and one whose connection has been ended.
PAUSE = 0.1


class LimitedHttpProtocol(UvicornProtocol):
    """A client's connection.

    Beyond uvicorn's own, it rejects a request at its headers when there is no free slot. It limits the size of headers,
    trailers and chunks, and the time that they take. It does not wait for ever for a client that is silent.
    """

    def __init__(self, *arguments: Any, connections: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.buffered = 0
        self._connections = connections
        # Of the request that is being parsed: what the app works on, None where it does not; whether it was rejected.
        self._current: RequestResponseCycle | None = None
        self._is_rejected = self._is_in_body = self._keeps_body = False
        self._reservation: IncomingBody | None = None
        self._has_long_head = False
        self._trailers = 0
        self._received = ReceivedBytes(connections.limits)
        # What the app works on or will, in the order in which it came.
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._rejected_in_a_row = self._pipelined_bytes = 0
        # Nothing is parsed any more; this is what is sent after the answers that are under way.
        self._is_ended = False
        self._final_response = b""
        self._timer = IdleTimer(connections.limits, self.loop.time())

    # --- asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if not self._connections.add(self):
            self._end_with(self._connections.overloaded)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells only the last one.
        for cycle in self._unanswered:
            self.disconnect(cycle)
        self._connections.discard(self)
        self._release_reservation()

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            # Taken all the same, slowly: where something is left unread, the system may throw the last answer away.
            self.flow.pause_for(PAUSE)
            return
        self._unset_keepalive_if_required()
        received = self._received
        received.begin_read()
        self._has_long_head = not received.is_begun and has_long_head(data, self._connections.limits.header_bytes)
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
            self.flow.pause_for(PAUSE)
        if self.pipeline:
            self._pipelined_bytes += len(data)
            self.flow.pause_reading("pipeline")
        self._connections.update(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._timer.blocked_since = self.loop.time()
        self._connections.update(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._timer.blocked_since = None

    # --- the parser's side

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._current = None
        self._is_rejected = self._keeps_body = False
        self._trailers = 0
        self._received.mark_boundary(is_begin=True)
        self._timer.headers_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:
            # A trailer: a proxy would not have looked here, so it is checked and then ignored.
            self._trailers += 1
            if error := self._connections.trailer_error(name, self._trailers):
                self._abort(error)
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._abort(self._connections.headers_too_large)

    def on_headers_complete(self) -> None:
        self._timer.headers_since = None
        self._is_in_body = True
        self._timer.idle_since = self.loop.time()
        self.scope["state"]["arrived"] = time.monotonic()
        if self.transport.is_closing():
            self._is_rejected = True
            return
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if self._has_long_head:
            self._abort(self._connections.headers_too_large)
        if error := self._connections.headers_error(self.head_bytes(), method, version, self.headers):
            self._abort(error)
        if len(self._unanswered) >= MAX_PIPELINED:
            self.close_after_answer()
            self._abort(None)
        # One that waits behind another on the same connection is rejected when its turn comes, if it has to be; so is
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
        self._timer.idle_since = self.loop.time()
        if not self._is_rejected:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        self._timer.idle_since = self.loop.time()
        self._release_reservation()
        super().on_response_complete()
        if not self.pipeline:
            self._pipelined_bytes = 0
            self.flow.resume_reading("pipeline")
        if self._is_ended and not self._unanswered:
            self._finish()

    # --- the other connections' side

    def count_buffered(self) -> int:
        # What is read goes on to the app in a moment, unless that waits for its answer to be taken.
        body = self.body_bytes() if self._unanswered and self._timer.blocked_since is not None else 0
        unparsed = self._received.buffered + self._pipelined_bytes
        return unparsed + body + self.transport.get_write_buffer_size()

    def idle_since(self) -> float | None:
        # A client that pipelines further requests is among the first to be evicted.
        return self._timer.waiting_since(is_working=bool(self._unanswered) and not self._pipelined_bytes)

    def evict(self) -> None:
        # What is not taken would be waited for.
        if self._timer.blocked_since is None:
            self.transport.close()
        else:
            self.transport.abort()

    # --- what is new

    def enforce_timeouts(self, now: float) -> None:
        """Close the connection if its client has been silent for too long; called about once a second."""
        if self.transport.is_closing() and self._timer.blocked_since is None:
            # Closed for good when the last answer is taken; a client that does not take it is treated like one that
            # stops in the middle of an answer.
            self._timer.blocked_since = now
        match self._timer.expired(now, bool(self._unanswered), self._is_in_body):
            case "blocked":
                self.transport.abort()
            case "headers":
                self._end_with(self._connections.request_timeout)
            case "idle":
                self.transport.close()

    def _parse(self, data: bytes) -> bool:
        """Whether the connection goes on."""
        self._rejected_in_a_row = 0
        try:
            self.feed(data)
        except httptools.HttpParserError:
            self._end_with(self._connections.invalid_http)
        return not self._is_ended

    def _reject(self, route: str) -> None:
        """Reject a request that there is no slot for, and go on with its client, at a pace that can be afforded."""
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
            self.flow.pause_for(pause)

    def _release_reservation(self) -> None:
        if self._reservation is not None:
            self._connections.admission.release(self._reservation)
            self._reservation = None

    def _abort(self, error: PrerenderedError | None, route: str = "none") -> NoReturn:
        """End the connection, from within the parser, which goes no further."""
        self._end_with(error, route)
        raise ConnectionAbortedError

    def _end_with(self, error: PrerenderedError | None, route: str = "none") -> None:
        """Parse nothing any more. What is in flight is answered, then this error is sent, then the connection ends."""
        if self._is_ended:
            return
        self._is_ended = True
        self._timer.headers_since = None
        if error is not None:
            headers = dict(self.headers or ())
            self._connections.record_rejection(error, route, self.client, headers.items())
            self._final_response = error.render(headers, CLOSE + self._connections.cors_headers(headers))
        if self._current is not None:
            self._cancel_request(self._current)
        if not self._unanswered:
            self._finish()

    def _cancel_request(self, cycle: RequestResponseCycle) -> None:
        """Take a request back from the app whose body is no good: it is this request that is rejected."""
        if self.withdraw(cycle):
            self._unanswered.remove(cycle)
        else:
            # It has its answer.
            self._final_response = b""

    def _finish(self) -> None:
        if not self.transport.is_closing():
            if self._final_response:
                self.transport.write(self._final_response)
            self.transport.close()
