"""What all connections share: the limits, the refusals, and room for what each of them holds."""

import time
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Protocol

import httptools

from preprocess_service.app.config import Config
from preprocess_service.app.errors import HeadersTooLarge, InvalidHttp, Overloaded, RequestTimeout
from preprocess_service.app.middleware.client_address import client_addresses
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.server.admission import PATHS, Gate
from preprocess_service.app.server.prerendered_errors import Refusal

# Of all connections, how many make room at a time when there is none: looking for them takes longer than closing them.
EVICTED = 1 / 20
# What all connections hold together of heads, of requests that wait behind others, and of answers that are not taken.
HELD_BYTES = 32_000_000
# How much of it is in use after connections were closed to make room, and what one has to hold to be closed for that.
HELD_AFTERWARDS = 0.8
WORTH_CLOSING = 4096


class Peer(Protocol):
    """One connection, as the others see it."""

    held: int

    def count_held(self) -> int:
        """The bytes that it holds; ``held`` is what it held when that was last asked."""

    def waiting_since(self) -> float | None:
        """Since when it is its sender that is waited for, on the event loop's clock; None: it is not."""

    def give_up(self) -> None:
        """Close it at once."""

    def end_if_late(self, now: float) -> None:
        """Close it if its sender has been silent for too long."""


class Connections:
    """The open ones."""

    def __init__(self, config: Config, gate: Gate, metrics: Metrics) -> None:
        self.limits = config.limits
        self.gate = gate
        self.overloaded = Refusal(Overloaded())
        self.request_timeout = Refusal(RequestTimeout())
        self.headers_too_large = Refusal(HeadersTooLarge())
        self.invalid_http = Refusal(InvalidHttp())
        self.open: set[Peer] = set()
        self._routes = {path.encode(): path for path in PATHS}
        self._held = 0
        self._origins = {origin.encode() for origin in config.server.cors_origins}
        self._addresses = client_addresses(config.server.log_client_address, config.server.trusted_proxies)
        self._metrics = metrics

    def route(self, url: bytes) -> str | None:
        """Which of the routes that need a place a request is for; ``url`` is what its first line names."""
        known = self._routes.get(url)
        if known is None:
            # As uvicorn makes the path of it, which the app looks for.
            known = self._routes.get(urllib.parse.unquote(httptools.parse_url(url).path.decode("ascii")).encode())
        return known

    def refused(
        self, refusal: Refusal, route: str, client: tuple[str, int] | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Count a request that the app does not see."""
        self._metrics.answered(route, refusal.status, refusal.code)
        address = self._addresses.of(client[0], headers) if self._addresses and client else None
        self.gate.note_refusal(refusal.status, refusal.code, address)

    def lines_for(self, headers: Mapping[bytes, bytes]) -> bytes:
        """What lets a page from elsewhere read a refusal, where it may; the app does the same for all other answers."""
        origin = headers.get(b"origin")
        if origin is None or not self._origins & {origin, b"*"}:
            return b""
        return (
            b"access-control-allow-origin: %b\r\naccess-control-expose-headers: retry-after\r\nvary: origin\r\n"
            % origin
        )

    def add(self, peer: Peer) -> bool:
        """Take in a new connection; whether there is room for it.

        Those that have been waited for the longest are closed for it. One that has sent a part of a head, or does not
        take its answer, is no better than one that is idle: so a thousand of them keep nobody out.
        """
        self.open.add(peer)
        if len(self.open) <= self.limits.connections:
            return True
        waiting = [(since, other) for other in self.open if (since := other.waiting_since()) and other is not peer]
        waiting.sort(key=lambda one: one[0])
        for _, other in waiting[: 1 + int(EVICTED * self.limits.connections)]:
            self._give_up(other)
        return bool(waiting)

    def discard(self, peer: Peer) -> None:
        """A connection has ended."""
        self.open.discard(peer)
        self._held -= peer.held
        peer.held = 0

    def note(self, peer: Peer) -> None:
        """A connection holds more than before. Where all hold too much, those that hold most for longest are closed."""
        self._held += self._changed(peer)
        if self._held <= HELD_BYTES:
            return
        # What others hold may have become less meanwhile.
        self._held += sum(map(self._changed, self.open))
        if self._held <= HELD_BYTES:
            return
        now = time.monotonic()
        waiting = [
            ((now - since) * other.held, other)
            for other in self.open
            if other.held > WORTH_CLOSING and (since := other.waiting_since()) is not None
        ]
        waiting.sort(key=lambda one: one[0])
        while waiting and self._held > HELD_AFTERWARDS * HELD_BYTES:
            self._give_up(waiting.pop()[1])

    def _give_up(self, peer: Peer) -> None:
        # It takes the event loop a moment to end it; nobody else shall look for room in it meanwhile.
        self.discard(peer)
        peer.give_up()

    @staticmethod
    def _changed(peer: Peer) -> int:
        before, peer.held = peer.held, peer.count_held()
        return peer.held - before
