"""HTTP connections to the REST API: uvicorn's, with limits that apply before a request is handled."""

import json
from typing import Any

from serving_common.uvicorn_protocol import UvicornProtocol, has_long_head

# The most bytes that are not body: headers, or chunk sizes, extensions and trailers without body bytes in between.
MAX_HEADER_BYTES = 16 << 10
# Time limit for headers, and for the rest of a body whose request is already answered.
HEADER_TIMEOUT_S = 10.0
# How long a connection is kept that is idle, or whose client does not read its answers.
IDLE_S = 5.0
CONNECTIONS = 256
# How many pipelined requests may wait for their answers on one connection.
PIPELINED = 16
# How many connections are evicted at a time. Several are closed, because the search takes most of the time.
_EVICTION_BATCH = CONNECTIONS // 20


class LimitedHttpProtocol(UvicornProtocol):
    """One connection. `open_connections` holds all open connections of the server."""

    def __init__(self, *arguments: Any, open_connections: "set[LimitedHttpProtocol]", **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._open = open_connections
        self._is_rejected = False
        self._is_in_headers = self._is_in_body = self._has_long_head = False
        # Bytes that arrived since the last part of a body.
        self._other_bytes = 0
        # Since when the connection has been waiting for a request, or for the rest of one.
        self._since = self.loop.time()
        self._blocked_since: float | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._open.add(self)
        if len(self._open) > CONNECTIONS and not self._evict_idle():
            self._reject("503 Service Unavailable", "There are too many connections: try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._is_rejected:
            return
        self._other_bytes += len(data)
        self._has_long_head = not (self._is_in_headers or self._is_in_body) and has_long_head(data, MAX_HEADER_BYTES)
        super().data_received(data)
        if self._other_bytes > MAX_HEADER_BYTES and (self._is_in_headers or self._is_in_body):
            self._reject_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_headers = True
        self._since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers after a body are dropped: they are not used, and uvicorn would store any number of them.
        if not self._is_in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_headers = False
        self._is_in_body = True
        self._since = self.loop.time()
        if self._is_rejected:
            return
        if self._has_long_head or self.head_bytes() > MAX_HEADER_BYTES:
            self._reject_headers()
        elif self.parser.get_http_version() == "1.1" and [name for name, _ in self.headers].count(b"host") != 1:
            self._reject("400 Bad Request", "A request of HTTP/1.1 has one header Host")
        elif len(self.pipeline) >= PIPELINED:
            self._reject("400 Bad Request", f"More than {PIPELINED} pipelined requests wait for their answers")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._other_bytes = 0
        if not self._is_rejected:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._other_bytes = 0
        self._since = self.loop.time()
        if not self._is_rejected:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._reject("400 Bad Request", msg)

    def enforce_timeouts(self, now: float) -> None:
        """Close the connection if its client has been silent for too long. It is called about once a second."""
        if self.transport.is_closing() and self._blocked_since is None:
            # The last bytes are still being sent.
            self._blocked_since = now
        if self._blocked_since is not None:
            if now - self._blocked_since > IDLE_S:
                self.transport.abort()
        elif self._is_in_headers:
            if now - self._since > HEADER_TIMEOUT_S:
                self._reject(
                    "408 Request Timeout", f"The headers of the request did not arrive within {HEADER_TIMEOUT_S:g} s"
                )
        elif not self.is_answering() and now - self._since > (HEADER_TIMEOUT_S if self._is_in_body else IDLE_S):
            self.transport.close()

    def _evict_idle(self) -> bool:
        """Close the longest-idle connections; return whether there were any."""
        waiting = [other for other in self._open if other is not self and not other.is_answering()]
        waiting.sort(key=lambda other: other._since)
        for other in waiting[: 1 + _EVICTION_BATCH]:
            other.transport.close()
        return bool(waiting)

    def _reject_headers(self) -> None:
        text = f"The request has more than {MAX_HEADER_BYTES} bytes of headers, trailers or chunk framing"
        self._reject("431 Request Header Fields Too Large", text)

    def _reject(self, status: str, text: str) -> None:
        """Send an error, unless an answer is under way, and close the connection. Nothing more is parsed."""
        self._is_rejected = True
        if not self.is_answering():
            body = json.dumps({"error": text})
            self.transport.write(
                f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"connection: close\r\n\r\n{body}".encode()
            )
        self.transport.close()
