"""What came in of one HTTP message: bytes of its body, and bytes that belong to no body."""

from preprocess_service.app.config import Limits

# Beyond ``header_bytes``, what may come in for each byte of a body that is none of it: the sizes of chunks and what
# belongs to them. Chunks of 128 bytes in the mean are above it.
FRAMING_RATIO = 1 / 16
# What may come in beyond the largest body, and is thrown away: its sender may read the answer only then.
UNWANTED_BYTES = 20_000_000
# A client that sends many small parts is read less often: each read costs as much as one of full size.
SMALL_READS, SMALL_BYTES = 10, 500


class ReceivedBytes:
    """Counts for one connection, in whose reads one message may end and the next one begin."""

    def __init__(self, limits: Limits) -> None:
        self.framing = 0
        # What headers may have beside them that came in one read with the message before them.
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
        """Bytes that the parser may hold."""
        return self.framing + self.uncounted

    def mark_boundary(self, is_begin: bool) -> None:
        """A message begins, or ends."""
        self._boundaries += 1
        self.is_begun = is_begin
        self.framing = self.uncounted = self._framing_run = 0
        if is_begin:
            self._reads = self._payload = 0

    def add_body(self, size: int) -> None:
        """Count bytes of a body."""
        self._payload += size

    def begin_read(self) -> None:
        """A read has come in that is not parsed yet."""
        self._before = self._boundaries, self._payload

    def end_read(self, size: int) -> None:
        """It has been parsed."""
        self._reads += 1
        boundaries, payload = self._before
        if self.is_begun and self._boundaries == boundaries + 1:
            payload = 0
        elif self._boundaries != boundaries:
            # Where in the read the last message begins is not known.
            self.uncounted = min(size, self._limits.header_bytes) if self.is_begun else 0
            return
        payload = self._payload - payload
        self.framing += size - payload
        self._framing_run = 0 if payload else self._framing_run + size

    def has_too_much_framing(self) -> bool:
        """Whether more bytes outside of bodies came in than headers may have and chunks need."""
        most = self._limits.header_bytes
        return self._framing_run > most or self.framing > most + FRAMING_RATIO * self._payload

    def has_too_much_payload(self) -> bool:
        """Whether the body was rejected long ago, and is still being sent."""
        return self._payload > self._limits.body_bytes + UNWANTED_BYTES

    def comes_in_small_reads(self) -> bool:
        return self._reads > SMALL_READS and self.framing + self._payload < SMALL_BYTES * self._reads
