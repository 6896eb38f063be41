"""What all connections share: their limits, the prerendered errors, and the budget of buffered bytes."""

import time
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Protocol

import httptools

from preprocess_service.app.config import Config
from preprocess_service.app.errors import HeadersTooLarge, InvalidHttp, Overloaded, RequestTimeout
from preprocess_service.app.middleware.client_address import client_addresses
from preprocess_service.app.middleware.cors import answer_headers
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.server.admission import LIMITED_PATHS, MODEL_PREFIX, PREDICTIONS, AdmissionController
from preprocess_service.app.server.prerendered_errors import PrerenderedError

VERSIONS = ("1.1", "1.0")
# The most headers of a request, and the most trailers. Even a short one takes about a hundred bytes of memory.
MAX_HEADERS = 100
# Fields that are not allowed as trailers (RFC 9110, 6.5.1). They control the message and the connection, and the parser
# would obey them.
FRAMING_FIELDS = (b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade")
# The share of all connections that is evicted at a time. Several are closed, because the search takes most of the time.
EVICTED_SHARE = 1 / 20
# The most bytes that all connections buffer: headers, pipelined requests, and answers that clients do not read.
BUFFERED_BYTES = 32_000_000
# The share of BUFFERED_BYTES that an eviction leaves in use. Connections with fewer than MIN_EVICTED_BYTES stay open.
BUFFERED_SHARE_AFTER_EVICTION = 0.8
MIN_EVICTED_BYTES = 4096


class Peer(Protocol):
    """What ``ConnectionLimits`` needs of a connection."""

    buffered: int

    def count_buffered(self) -> int:
        """Return the bytes that it buffers now; ``buffered`` is the result of the last call."""

    def idle_since(self) -> float | None:
        """Return since when the connection waits for its client, on the event loop's clock; None: it does not wait."""

    def evict(self) -> None:
        """Close it at once."""

    def enforce_timeouts(self, now: float) -> None:
        """Close it if its client has been silent for too long."""


class ConnectionLimits:
    """The open connections, their limits, and the errors of requests that the app never sees."""

    def __init__(self, config: Config, admission: AdmissionController, metrics: Metrics) -> None:
        self.limits = config.limits
        self.admission = admission
        self.overloaded = PrerenderedError(Overloaded())
        self.request_timeout = PrerenderedError(RequestTimeout())
        self.headers_too_large = PrerenderedError(HeadersTooLarge())
        self.invalid_http = PrerenderedError(InvalidHttp())
        self.open: set[Peer] = set()
        routes = {path: path for path in LIMITED_PATHS}
        for name in config.models:
            routes |= {MODEL_PREFIX.format(model=name) + path: MODEL_PREFIX + path for path in PREDICTIONS}
        self._routes = {
            f"{prefix}{path}{slash}".encode(): route
            for prefix in ("", config.server.root_path)
            for path, route in routes.items()
            for slash in ("", "/")
        }
        self._buffered = 0
        self._origins = config.server.cors_origins
        self._addresses = client_addresses(config.server.log_client_address, config.server.trusted_proxies)
        self._metrics = metrics

    def route(self, url: bytes) -> str | None:
        """Return the limited route that a request is for, or None; ``url`` is from the request line."""
        known = self._routes.get(url)
        if known is None:
            # Decoded as uvicorn does it, so that this is the path that the app gets.
            known = self._routes.get(urllib.parse.unquote(httptools.parse_url(url).path.decode("ascii")).encode())
        return known

    def headers_error(
        self, size: int, method: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> PrerenderedError | None:
        """Why a request is rejected for its line and headers, whose names are in lower case; None: it is not.

        Args:
            size: bytes of the line and the headers.
        """
        hosts = [name for name, _ in headers].count(b"host")
        if size > self.limits.header_bytes:
            return self.headers_too_large
        if version not in VERSIONS or hosts > 1 or (not hosts and version == "1.1") or method == b"CONNECT":
            return self.invalid_http
        return None

    def trailer_error(self, name: bytes, count: int) -> PrerenderedError | None:
        """Return the error of a request for its trailer ``name``, the ``count``-th one; None: it is accepted."""
        if name.lower() in FRAMING_FIELDS:
            return self.invalid_http
        return self.headers_too_large if count > MAX_HEADERS else None

    def record_rejection(
        self,
        error: PrerenderedError,
        route: str,
        client: tuple[str, int] | None,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        """Count a rejected request that the app does not see."""
        self._metrics.record_request(route, error.status, error.code)
        address = self._addresses.of(client[0], headers) if self._addresses and client else None
        self.admission.count_rejection(error.status, error.code, address)

    def cors_headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the header lines that let a page of an allowed origin read an error, else b"".

        The app's CORS middleware adds them to all other answers.
        """
        origin = headers.get(b"origin")
        if origin is None:
            # As nearly all: a rejection must cost little.
            return b""
        allowed = answer_headers(origin.decode("latin-1"), self._origins)
        if not allowed:
            return b""
        lines = [f"{name.lower()}: {value}\r\n" for name, value in allowed.items()]
        return "".join([*lines, "vary: origin\r\n"]).encode("latin-1")

    def add(self, peer: Peer) -> bool:
        """Add a new connection; return whether it is within the limit.

        At the limit the longest-idle connections are closed. A connection counts as idle also if its headers are not
        complete or if its client does not read the answer. So a thousand of those do not lock out other clients.
        """
        self.open.add(peer)
        return len(self.open) <= self.limits.connections or self._evict_idle(peer)

    def _evict_idle(self, peer: Peer) -> bool:
        """Close the longest-idle connections other than ``peer``; return whether there were any."""
        waiting = [(since, other) for other in self.open if (since := other.idle_since()) and other is not peer]
        waiting.sort(key=lambda one: one[0])
        for _, other in waiting[: 1 + int(EVICTED_SHARE * self.limits.connections)]:
            self._evict(other)
        return bool(waiting)

    def discard(self, peer: Peer) -> None:
        """Remove a connection that has ended."""
        self.open.discard(peer)
        self._buffered -= peer.buffered
        peer.buffered = 0

    def update(self, peer: Peer) -> None:
        """Count what a connection buffers now. Above BUFFERED_BYTES, evict those with the most bytes x idle time."""
        self._buffered += self._changed(peer)
        if self._buffered <= BUFFERED_BYTES:
            return
        # The counts of the others may be out of date: they may buffer less by now.
        self._buffered += sum(map(self._changed, self.open))
        if self._buffered <= BUFFERED_BYTES:
            return
        now = time.monotonic()
        waiting = [
            ((now - since) * other.buffered, other)
            for other in self.open
            if other.buffered > MIN_EVICTED_BYTES and (since := other.idle_since()) is not None
        ]
        waiting.sort(key=lambda one: one[0])
        while waiting and self._buffered > BUFFERED_SHARE_AFTER_EVICTION * BUFFERED_BYTES:
            self._evict(waiting.pop()[1])

    def _evict(self, peer: Peer) -> None:
        # The event loop closes it a moment later. Until then it must not be counted.
        self.discard(peer)
        peer.evict()

    @staticmethod
    def _changed(peer: Peer) -> int:
        before, peer.buffered = peer.buffered, peer.count_buffered()
        return peer.buffered - before
