"""What all connections share: the limits, the prerendered errors, and a budget of buffered bytes."""

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
from preprocess_service.app.server.admission import LIMITED_PATHS, AdmissionController
from preprocess_service.app.server.prerendered_errors import PrerenderedError

VERSIONS = ("1.1", "1.0")
# Headers of a request, and trailers: each takes some hundred bytes of memory, however short it is.
MAX_HEADERS = 100
# What no trailer may say (RFC 9110, 6.5.1), and the parser would heed: how the message, and the connection, goes on.
FRAMING_FIELDS = (b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade")
# The share of all connections that is evicted at a time: to find the longest-idle ones takes longer than to close them.
EVICTED_SHARE = 1 / 20
# What all connections buffer together: headers, pipelined requests, and answers that are not taken.
BUFFERED_BYTES = 32_000_000
# The share of it that is in use after an eviction, and what a connection has to buffer to be evicted for it.
BUFFERED_SHARE_AFTER_EVICTION = 0.8
MIN_EVICTED_BYTES = 4096


class Peer(Protocol):
    """One connection, as the others see it."""

    buffered: int

    def count_buffered(self) -> int:
        """The bytes that it buffers; ``buffered`` is the result of the last call."""

    def idle_since(self) -> float | None:
        """Since when its client is waited for, on the event loop's clock; None: it is not."""

    def evict(self) -> None:
        """Close it at once."""

    def enforce_timeouts(self, now: float) -> None:
        """Close it if its client has been silent for too long."""


class ConnectionLimits:
    """The open connections, their limits, and the errors that are sent before the app sees a request."""

    def __init__(self, config: Config, admission: AdmissionController, metrics: Metrics) -> None:
        self.limits = config.limits
        self.admission = admission
        self.overloaded = PrerenderedError(Overloaded())
        self.request_timeout = PrerenderedError(RequestTimeout())
        self.headers_too_large = PrerenderedError(HeadersTooLarge())
        self.invalid_http = PrerenderedError(InvalidHttp())
        self.open: set[Peer] = set()
        self._routes = {
            f"{prefix}{path}{slash}".encode(): path
            for prefix in ("", config.server.root_path)
            for path in LIMITED_PATHS
            for slash in ("", "/")
        }
        self._buffered = 0
        self._origins = config.server.cors_origins
        self._addresses = client_addresses(config.server.log_client_address, config.server.trusted_proxies)
        self._metrics = metrics

    def route(self, url: bytes) -> str | None:
        """Which of the routes that need a slot a request is for; ``url`` is what its first line names."""
        known = self._routes.get(url)
        if known is None:
            # As uvicorn makes the path of it, which the app looks for.
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
        """Why a request is rejected for its trailer ``name``, the ``count``-th one; None: it is not."""
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
        """Count a request that the app does not see."""
        self._metrics.record_request(route, error.status, error.code)
        address = self._addresses.of(client[0], headers) if self._addresses and client else None
        self.admission.count_rejection(error.status, error.code, address)

    def cors_headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        """What lets a page from elsewhere read an error, where it may; the app does the same for all other answers."""
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
        """Take in a new connection; return whether there is room for it.

        At the limit the longest-idle ones are closed. One that has sent a part of its headers, or does not take its
        answer, counts as idle: so a thousand of them keep nobody out.
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
        """A connection has ended."""
        self.open.discard(peer)
        self._buffered -= peer.buffered
        peer.buffered = 0

    def update(self, peer: Peer) -> None:
        """A connection buffers more than before. Above the budget, those that buffer most for longest are evicted."""
        self._buffered += self._changed(peer)
        if self._buffered <= BUFFERED_BYTES:
            return
        # The others may buffer less meanwhile.
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
        # It takes the event loop a moment to end it; meanwhile it must not be counted any more.
        self.discard(peer)
        peer.evict()

    @staticmethod
    def _changed(peer: Peer) -> int:
        before, peer.buffered = peer.buffered, peer.count_buffered()
        return peer.buffered - before
