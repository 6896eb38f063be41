"""Counts the bytes that arrive on one connection: payload (of a body) and framing (all others)."""

from preprocess_service.app.config import Limits

# Framing bytes that are allowed per byte of a body, beyond ``header_bytes``: chunk sizes, line ends and extensions.
# Chunks of 128 bytes on average stay below this limit.
FRAMING_RATIO = 1 / 16
# Bytes beyond the largest body that are read and dropped. Some clients read the answer only after they have sent all.
UNWANTED_BYTES = 20_000_000
# If a client sends many small parts, its connection is read less often: a small read costs as much as a full one.
SMALL_READS, SMALL_BYTES = 10, 500


class ReceivedBytes:
    """The counts of one connection. One read may hold the end of a message and the start of the next."""

    def __init__(self, limits: Limits) -> None:
        self.framing = 0
        # Bytes that could not be assigned to a message: the read also held the end of the message before.
        self.uncounted = 0
        self._limits = limits
        # Counts the begins and the ends of messages.
        self._boundaries = 0
        # Whether the last of these was a begin.
        self.is_begun = False
        self._reads = self._payload = self._framing_run = 0
        self._before = (0, 0)

    @property
    def buffered(self) -> int:
        """The most bytes that the parser can hold."""
        return self.framing + self.uncounted

    def mark_boundary(self, is_begin: bool) -> None:
        """Start the counts again, because a message begins (``is_begin``) or ends."""
        self._boundaries += 1
        self.is_begun = is_begin
        self.framing = self.uncounted = self._framing_run = 0
        if is_begin:
            self._reads = self._payload = 0

    def add_body(self, size: int) -> None:
        """Count bytes of a body."""
        self._payload += size

    def begin_read(self) -> None:
        """Note the counts before a read is parsed."""
        self._before = self._boundaries, self._payload

    def end_read(self, size: int) -> None:
        """Count the ``size`` bytes of the read that has been parsed."""
        self._reads += 1
        boundaries, payload = self._before
        if self.is_begun and self._boundaries == boundaries + 1:
            payload = 0
        elif self._boundaries != boundaries:
            # It is not known where in the read the last message begins.
            self.uncounted = min(size, self._limits.header_bytes) if self.is_begun else 0
            return
        payload = self._payload - payload
        self.framing += size - payload
        self._framing_run = 0 if payload else self._framing_run + size

    def has_too_much_framing(self) -> bool:
        """Return whether more framing bytes arrived than headers and chunks are allowed to have."""
        most = self._limits.header_bytes
        return self._framing_run > most or self.framing > most + FRAMING_RATIO * self._payload

    def has_too_much_payload(self) -> bool:
        """Return whether the client goes on sending a body long after its rejection."""
        return self._payload > self._limits.body_bytes + UNWANTED_BYTES

    def comes_in_small_reads(self) -> bool:
        return self._reads > SMALL_READS and self.framing + self._payload < SMALL_BYTES * self._reads
