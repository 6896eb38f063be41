"""One HTTP connection: uvicorn's protocol, with limits for the client before the app sees a request."""

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
# How many requests of one connection may wait for answers. At one more, the connection closes after these answers.
MAX_PIPELINED = 16
# Seconds for which nothing is read from a client that sends many small parts, or whose connection is being closed.
PAUSE = 0.1


class LimitedHttpProtocol(UvicornProtocol):
    """A client's connection.

    In addition to uvicorn's protocol, it rejects a request at its headers if there is no free slot. It limits the size
    of headers, trailers and chunks, and the time that they take. It closes the connection of a silent client.
    """

    def __init__(self, *arguments: Any, connections: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.buffered = 0
        self._connections = connections
        # The request that is being parsed: its cycle, None if the app does not have it; whether it was rejected.
        self._current: RequestResponseCycle | None = None
        self._is_rejected = self._is_in_body = self._keeps_body = False
        self._reservation: IncomingBody | None = None
        self._has_long_head = False
        self._trailers = 0
        self._received = ReceivedBytes(connections.limits)
        # The requests that the app has or will get, in the order of arrival.
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._rejected_in_a_row = self._pipelined_bytes = 0
        # If true, nothing is parsed any more. The final response is sent after the answers in flight.
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
        # uvicorn notifies only the last request of the disconnect.
        for cycle in self._unanswered:
            self.disconnect(cycle)
        self._connections.discard(self)
        self._release_reservation()

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            # Continue to read, but slowly: with unread data, the operating system may discard the last answer.
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
            # A trailer. A proxy would not have checked it, so it is checked here, and then ignored.
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
        # A request that waits for another one on the same connection is admitted or rejected when its turn comes. So is
        # a request whose route is not recognised here.
        route = self._connections.route(self.url) if method == b"POST" and not self._unanswered else None
        if route is not None:
            reservation = self._connections.admission.reserve()
            if reservation is None:
                self._reject(route)
                return
            self.scope["state"]["reservation"] = self._reservation = reservation
        super().on_headers_complete()
        # In requests of other methods a body has no meaning (RFC 9110, 9.3), and no route uses it.
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
        # A body that was read goes to the app at once, unless the app waits for the client to read an answer.
        body = self.body_bytes() if self._unanswered and self._timer.blocked_since is not None else 0
        unparsed = self._received.buffered + self._pipelined_bytes
        return unparsed + body + self.transport.get_write_buffer_size()

    def idle_since(self) -> float | None:
        # A client that pipelines requests counts as idle, so it is among the first to be evicted.
        return self._timer.waiting_since(is_working=bool(self._unanswered) and not self._pipelined_bytes)

    def evict(self) -> None:
        # close() would wait until the client has read the answer.
        if self._timer.blocked_since is None:
            self.transport.close()
        else:
            self.transport.abort()

    # --- what is new

    def enforce_timeouts(self, now: float) -> None:
        """Close the connection if its client has been silent for too long; called about once a second."""
        if self.transport.is_closing() and self._timer.blocked_since is None:
            # The connection closes when the client has read the last answer. A client that does not read it is treated
            # like one that stops in the middle of an answer.
            self._timer.blocked_since = now
        match self._timer.expired(now, bool(self._unanswered), self._is_in_body):
            case "blocked":
                self.transport.abort()
            case "headers":
                self._end_with(self._connections.request_timeout)
            case "idle":
                self.transport.close()

    def _parse(self, data: bytes) -> bool:
        """Parse data. Return whether the connection continues."""
        self._rejected_in_a_row = 0
        try:
            self.feed(data)
        except httptools.HttpParserError:
            self._end_with(self._connections.invalid_http)
        return not self._is_ended

    def _reject(self, route: str) -> None:
        """Reject a request without a free slot. The connection stays open, but its client may be slowed down."""
        self._is_rejected = True
        self._rejected_in_a_row += 1
        pause = self._connections.admission.record_rejection()
        # With "Expect: 100-continue" the client may send another request instead of the body, so the connection ends.
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
        """End the connection from within the parser, and stop the parser."""
        self._end_with(error, route)
        raise ConnectionAbortedError

    def _end_with(self, error: PrerenderedError | None, route: str = "none") -> None:
        """Stop parsing. Requests in flight are answered, then this error is sent, then the connection closes."""
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
        """Withdraw a request with an invalid body from the app. This request gets the error."""
        if self.withdraw(cycle):
            self._unanswered.remove(cycle)
        else:
            # The request has its answer already.
            self._final_response = b""

    def _finish(self) -> None:
        if not self.transport.is_closing():
            if self._final_response:
                self.transport.write(self._final_response)
            self.transport.close()
