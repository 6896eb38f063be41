"""One HTTP connection of uvicorn, the base class for both services. Only this module knows uvicorn's private parts.

A subclass may use the parts in this list and no others. A test names each one that a newer uvicorn no longer has:

- attributes of ``HttpToolsProtocol``: ``client``, ``cycle``, ``expect_100_continue``, ``flow``, ``headers``, ``loop``,
  ``parser``, ``pipeline``, ``scope``, ``transport``, ``url``;
- its methods: ``_unset_keepalive_if_required``, ``on_body``, ``on_header``, ``on_headers_complete``,
  ``on_message_begin``, ``on_message_complete``, ``on_response_complete``, ``on_url``, ``send_400_response``;
- attributes of ``RequestResponseCycle``: ``body``, ``disconnected``, ``keep_alive``, ``message_event``,
  ``response_complete``, ``response_started``;
- of ``FlowControl``: ``_transport``, ``pause_reading``, ``resume_reading``.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["RequestResponseCycle", "UvicornProtocol", "has_long_head"]


def has_long_head(data: bytes, most: int) -> bool:
    """Whether the line and the headers that begin here have more than ``most`` bytes. The parser leaves out blanks."""
    return len(data) > most and data.find(b"\r\n\r\n", 0, most) < 0


class _ReadingFlowControl(FlowControl):
    """Pauses reading for several reasons: uvicorn's and ours. Reading goes on when no reason is left."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._reasons: set[str] = set()
        self._timers = 0

    def pause_reading(self, reason: str = "uvicorn") -> None:
        self._reasons.add(reason)
        super().pause_reading()

    def resume_reading(self, reason: str = "uvicorn") -> None:
        self._reasons.discard(reason)
        if not self._reasons:
            super().resume_reading()

    def pause_for(self, seconds: float) -> None:
        """Read nothing for ``seconds``. Of several such pauses, the one that ends last counts."""
        self.pause_reading("timer")
        self._timers += 1
        self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._timers -= 1
        if not self._timers and not self._transport.is_closing():
            self.resume_reading("timer")


class _ParserEvents:
    """What the parser calls, of a connection: its own methods, but for two."""

    def __init__(self, connection: "UvicornProtocol") -> None:
        self.on_message_begin = connection.on_message_begin
        self.on_url = connection.on_url
        self.on_header = connection.on_header
        self.on_headers_complete = connection.end_headers
        self.on_body = connection.on_body
        self.on_message_complete = connection.end_message


class UvicornProtocol(HttpToolsProtocol):
    """A client's connection; a request is uvicorn's ``RequestResponseCycle``.

    A request that asks for another protocol is a request like any other (RFC 9110, 7.8). But the parser takes all that
    comes behind its headers for that protocol. So the request is parsed again, without what asks for it.
    """

    flow: _ReadingFlowControl

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # The headers of a request that is parsed again.
        self._head_to_repeat = b""
        self._reset_parser()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def feed(self, data: bytes) -> None:
        """Parse what came in; raises HttpParserError."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                if not self._head_to_repeat:
                    raise httptools.HttpParserError("CONNECT is not taken") from exc
                data = self._head_to_repeat + data[exc.args[0] :]
                self._head_to_repeat = b""
                self._reset_parser()
            else:
                return

    def end_headers(self) -> None:
        """The parser's ``on_headers_complete``."""
        if not self.parser.should_upgrade():
            self.on_headers_complete()
            return
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.on_headers_complete()
            return
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        self._head_to_repeat = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))

    def end_message(self) -> None:
        """The parser's ``on_message_complete``."""
        if not self._head_to_repeat:
            self.on_message_complete()

    def head_bytes(self) -> int:
        """The size of the request's line and headers, as they are written without spare blanks."""
        line = len(self.parser.get_method()) + len(self.url) + len(b"  HTTP/1.1\r\n\r\n")
        return line + sum([len(name) + len(value) + len(b": \r\n") for name, value in self.headers])

    def _reset_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(_ParserEvents(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _ReadingFlowControl(transport, self.loop)

    def is_answering(self) -> bool:
        """Return whether the last request has no complete answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def body_bytes(self) -> int:
        """Return how many bytes of the last request's body the app has not read yet."""
        return len(self.cycle.body)

    def close_after_answer(self) -> None:
        """Close the connection after the answer to the last request."""
        self.cycle.keep_alive = False

    @staticmethod
    def disconnect(cycle: RequestResponseCycle) -> None:
        """Tell the app that a request's client has disconnected."""
        cycle.disconnected = True
        cycle.message_event.set()

    def withdraw(self, cycle: RequestResponseCycle) -> bool:
        """Cancel a request in the app, or remove it from the queue; return False if its answer has begun."""
        if cycle.response_started:
            return False
        self.disconnect(cycle)
        for queued in [queued for queued in self.pipeline if queued[0] is cycle]:
            self.pipeline.remove(queued)
        return True
