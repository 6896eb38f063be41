"""What came in of one HTTP message: bytes of its body, and bytes that belong to no body."""

from preprocess_service.app.config import Limits

# Beyond ``head_bytes``, what may come in for each byte of a body that is none of it: the sizes of chunks and what
# belongs to them. Chunks of 128 bytes in the mean are above it.
FRAMING_RATIO = 1 / 16
# What may come in beyond the largest body, and is thrown away: its sender may read the answer only then.
UNWANTED_BYTES = 20_000_000
# A sender of many small parts is read only so often: each part costs as much as one of full size.
SMALL_PARTS, SMALL_BYTES = 10, 500


class Received:
    """Counts for one connection, whose parts hold the end of one message and the begin of the next as they please."""

    def __init__(self, limits: Limits) -> None:
        self.framing = 0
        # What a head may have beside it that came in one part with the message before it.
        self.uncounted = 0
        self._limits = limits
        # Counts the begins and the ends of messages.
        self._bounds = 0
        self._is_begun = False
        self._parts = self._payload = self._framing_run = 0
        self._before = (0, 0)

    def bound(self, is_begin: bool) -> None:
        """A message begins, or ends."""
        self._bounds += 1
        self._is_begun = is_begin
        self.framing = self.uncounted = self._framing_run = 0
        if is_begin:
            self._parts = self._payload = 0

    def body(self, size: int) -> None:
        """Count bytes of a body."""
        self._payload += size

    def begin_part(self) -> None:
        """A part has come in that is not parsed yet."""
        self._before = self._bounds, self._payload

    def end_part(self, size: int) -> None:
        """It has been parsed."""
        self._parts += 1
        bounds, payload = self._before
        if self._is_begun and self._bounds == bounds + 1:
            payload = 0
        elif self._bounds != bounds:
            # Where in the part the last message begins is not known.
            self.uncounted = min(size, self._limits.head_bytes) if self._is_begun else 0
            return
        payload = self._payload - payload
        self.framing += size - payload
        self._framing_run = 0 if payload else self._framing_run + size

    def has_too_much_framing(self) -> bool:
        """Whether more came in that is no body than a head may have, and what a body in chunks needs."""
        most = self._limits.head_bytes
        return self._framing_run > most or self.framing > most + FRAMING_RATIO * self._payload

    def has_too_much_payload(self) -> bool:
        """Whether the body was refused long ago, and is still being sent."""
        return self._payload > self._limits.body_bytes + UNWANTED_BYTES

    def comes_in_small_parts(self) -> bool:
        return self._parts > SMALL_PARTS and self.framing + self._payload < SMALL_BYTES * self._parts
