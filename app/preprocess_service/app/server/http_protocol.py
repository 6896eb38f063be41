"""One HTTP connection: uvicorn's, with bounds on what its sender may take before the app sees anything of it."""

import asyncio
import time
from collections import deque
from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from preprocess_service.app.server.connection_limits import Connections
from preprocess_service.app.server.flow_control import ReadingControl
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.server.prerendered_errors import Refusal
from preprocess_service.app.server.received_bytes import Received

CLOSE = b"connection: close\r\n"
VERSIONS = ("1.1", "1.0")
# Headers of a request, and trailers: each takes some hundred bytes of memory, however short it is.
FIELDS = 100
# What no trailer may say (RFC 9110, 6.5.1), and the parser would heed: how the message, and the connection, goes on.
FRAMING_FIELDS = (b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade")
# Requests of one connection that wait for their answers; past them it ends with the last of these.
PIPELINED = 16
# Seconds for which a sender of many small parts is not read, and one that is not listened to any more.
PAUSE = 0.1


class Connection(HttpToolsProtocol):
    """A sender's connection. Beyond what uvicorn's own does, it refuses at the head of a request what there is no place
    for, takes heads, trailers and chunks of bounded size and in bounded time only, and does not wait for ever for
    whoever is silent."""

    flow: ReadingControl

    def __init__(self, *arguments: Any, shared: Connections, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.held = 0
        self._shared = shared
        # Of the request that is being parsed: what the app works on, None where it does not; whether it was refused.
        self._own: RequestResponseCycle | None = None
        self._is_refused = False
        self._is_in_body = False
        self._keeps_body = False
        self._reservation: IncomingBody | None = None
        self._head_since: float | None = None
        self._trailers = 0
        self._received = Received(shared.limits)
        # What the app works on or will, in the order in which it came.
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._refused_at_once = self._queued_bytes = self._pauses = 0
        # Nothing is parsed any more; this is what is sent after the answers that are under way.
        self._is_ended = False
        self._last_words = b""
        self._without_upgrade = b""
        # Since when it has been waiting, for a request or for the rest of one that is answered already.
        self._since = self.loop.time()
        self._blocked_since: float | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = ReadingControl(transport)
        if not self._shared.add(self):
            self._end(self._shared.overloaded)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells only the last one.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._shared.discard(self)
        self._release()

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            # Taken all the same, slowly: where something is left unread, the system may throw the last answer away.
            self._pause(PAUSE)
            return
        self._unset_keepalive_if_required()
        received = self._received
        received.begin_part()
        if not self._parse(data):
            return
        received.end_part(len(data))
        if received.has_too_much_framing():
            self._end(self._shared.headers_too_large)
            return
        if received.has_too_much_payload():
            self._end(None)
            return
        if received.comes_in_small_parts():
            self._pause(PAUSE)
        if self.pipeline:
            self._queued_bytes += len(data)
            self.flow.hold_back("pipeline")
        self._shared.note(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked_since = self.loop.time()
        self._shared.note(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = None

    # --- the parser's side

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._own = None
        self._is_refused = False
        self._keeps_body = False
        self._trailers = 0
        self._received.bound(is_begin=True)
        self._head_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:
            # A trailer: it may say nothing that a proxy would have looked for in the head, and so says nothing at all.
            self._trailers += 1
            if name.lower() in FRAMING_FIELDS:
                self._stop(self._shared.invalid_http)
            if self._trailers > FIELDS:
                self._stop(self._shared.headers_too_large)
            return
        super().on_header(name, value)
        if len(self.headers) > FIELDS:
            self._stop(self._shared.headers_too_large)

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._is_in_body = True
        self._since = self.loop.time()
        self.scope["state"]["arrived"] = time.monotonic()
        if self.transport.is_closing():
            self._is_refused = True
            return
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value)
            hosts += name == b"host"
        if size > self._shared.limits.head_bytes:
            self._stop(self._shared.headers_too_large)
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if version not in VERSIONS or hosts > 1 or (not hosts and version == "1.1") or method == b"CONNECT":
            self._stop(self._shared.invalid_http)
        if len(self._unanswered) >= PIPELINED:
            self.cycle.keep_alive = False
            self._stop(None)
        if self.parser.should_upgrade():
            # The parser would take the body for another protocol. What asks for one that we don't speak is a request
            # like any other (RFC 9110, 7.8): it is parsed again, as if it had not asked.
            self._is_refused = True
            lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self._without_upgrade = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version.encode(), b"".join(lines))
            return
        # One that waits behind another on the same connection is refused when its turn comes, if it has to be; so is
        # what is not recognised here.
        route = self._shared.route(self.url) if method == b"POST" and not self._unanswered else None
        if route is not None:
            reservation = self._shared.gate.reserve()
            if reservation is None:
                self._refuse_for_now(route)
                return
            self.scope["state"]["reservation"] = self._reservation = reservation
        super().on_headers_complete()
        # In a request of another method a body means nothing (RFC 9110, 9.3), and no route asks for it.
        self._keeps_body = method == b"POST"
        self._own = self.cycle
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._received.body(len(body))
        if self._keeps_body:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._own = None
        self._received.bound(is_begin=False)
        self._since = self.loop.time()
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        self._since = self.loop.time()
        self._release()
        super().on_response_complete()
        if not self.pipeline:
            self._queued_bytes = 0
            self.flow.read_on("pipeline")
        if self._is_ended and not self._unanswered:
            self._say_goodbye()

    # --- the other connections' side

    def count_held(self) -> int:
        # What is read goes on to the app in a moment, unless that waits for its answer to be taken.
        body = len(self.cycle.body) if self._unanswered and self._blocked_since is not None else 0
        return (
            self._received.framing
            + self._received.uncounted
            + self._queued_bytes
            + body
            + self.transport.get_write_buffer_size()
        )

    def waiting_since(self) -> float | None:
        if self._blocked_since is not None:
            return self._blocked_since
        # Who sends the next requests before the answers is the first to make room.
        if self._unanswered and not self._queued_bytes:
            return None
        return self._since if self._head_since is None else self._head_since

    def give_up(self) -> None:
        # What is not taken would be waited for.
        if self._blocked_since is None:
            self.transport.close()
        else:
            self.transport.abort()

    # --- what is new

    def end_if_late(self, now: float) -> None:
        """Close the connection if its sender has been silent for too long; asked about once a second."""
        limits = self._shared.limits
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
        elif self._head_since is not None:
            if now - self._head_since > limits.head_seconds:
                self._end(self._shared.request_timeout)
        elif now - self._since > (limits.head_seconds if self._is_in_body else limits.idle_seconds):
            self.transport.close()

    def _parse(self, data: bytes) -> bool:
        """Whether the connection goes on."""
        self._refused_at_once = 0
        while True:
            try:
                self.parser.feed_data(data)
                return not self._is_ended
            except httptools.HttpParserUpgrade as exc:
                data = self._without_upgrade + data[exc.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                self._end(self._shared.invalid_http)
                return False

    def _refuse_for_now(self, route: str) -> None:
        """Refuse a request that there is no place for, and go on with its sender, at a pace that can be afforded."""
        self._is_refused = True
        self._refused_at_once += 1
        pause = self._shared.gate.refuse()
        # Who asks first whether to send the body is told no, and may send another request in its place.
        if self.expect_100_continue or not self.parser.should_keep_alive() or self._refused_at_once > PIPELINED:
            self._stop(self._shared.overloaded, route)
        self._shared.refused(self._shared.overloaded, route, self.client, self.headers)
        headers = dict(self.headers)
        self.transport.write(self._shared.overloaded.render(headers, self._shared.lines_for(headers)))
        if pause:
            self._pause(pause)

    def _pause(self, seconds: float) -> None:
        self.flow.hold_back("pace")
        self._pauses += 1
        self.loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        self._pauses -= 1
        if not self._pauses and not self.transport.is_closing():
            self.flow.read_on("pace")

    def _release(self) -> None:
        if self._reservation is not None:
            self._shared.gate.release(self._reservation)
            self._reservation = None

    def _stop(self, refusal: Refusal | None, route: str = "none") -> NoReturn:
        """End the connection, from within the parser, which goes no further."""
        self._end(refusal, route)
        raise ConnectionAbortedError

    def _end(self, refusal: Refusal | None, route: str = "none") -> None:
        """Parse nothing any more. What is under way is answered, then this is refused, then the connection ends."""
        if self._is_ended:
            return
        self._is_ended = True
        self._head_since = None
        if refusal is not None:
            headers = dict(self.headers or ())
            self._shared.refused(refusal, route, self.client, headers.items())
            self._last_words = refusal.render(headers, CLOSE + self._shared.lines_for(headers))
        if self._own is not None:
            self._withdraw(self._own)
        if not self._unanswered:
            self._say_goodbye()

    def _withdraw(self, cycle: RequestResponseCycle) -> None:
        """Take a request back from the app whose body is no good: what is refused is this very request."""
        if cycle.response_started:
            # It has its answer.
            self._last_words = b""
            return
        cycle.disconnected = True
        cycle.message_event.set()
        self._unanswered.remove(cycle)
        for queued in [queued for queued in self.pipeline if queued[0] is cycle]:
            self.pipeline.remove(queued)

    def _say_goodbye(self) -> None:
        if not self.transport.is_closing():
            if self._last_words:
                self.transport.write(self._last_words)
            self.transport.close()
