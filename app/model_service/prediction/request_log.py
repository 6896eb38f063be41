"""One prediction on its way through the server, and what is told of it at its end: a line in the log, and spans."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from grpc import StatusCode

from model_service.errors import code_of

Result = TypeVar("Result")

# As much of a client's own words as the log takes: the ids of 32 requests that came as one call, each of 32
# hexadecimal digits and a comma.
_MAX_ID = 32 * 33
_MAX_NAME = 128
# What of the metadata a span is made from; OpenTelemetry reads no more of the longest.
_TRACE_HEADERS = ("traceparent", "tracestate")
_MAX_TRACE = 512

logger = logging.getLogger("call")


class RequestRecord:
    """What is known of one prediction; the times are seconds on the clock of `time.perf_counter`, None: not yet.

    `metadata` is that of the gRPC call, or the HTTP headers, with names in lower case; of it the trace's is kept.
    """

    def __init__(self, entrypoint: str, model_name: str, metadata: Mapping[str, str]) -> None:
        self.entrypoint = entrypoint
        self.model_name = model_name[:_MAX_NAME]
        self.metadata = {name: metadata.get(name, "")[:_MAX_TRACE] for name in _TRACE_HEADERS if name in metadata}
        self.request_id = metadata.get("x-request-id", "")[:_MAX_ID]
        self.version: int | None = None
        self.batch_size: int | None = None
        self.code = StatusCode.INTERNAL
        self.arrived_ns = time.time_ns()
        self.arrived = time.perf_counter()
        self.began: float | None = None
        self.computed: float | None = None
        self.ended: float | None = None

    def compute(self, function: Callable[[], Result]) -> Result:
        """Return what `function` does, and take down when that began and ended: for the thread that computes."""
        self.began = time.perf_counter()
        try:
            return function()
        finally:
            self.computed = time.perf_counter()

    def at_ns(self, seconds: float) -> int:
        """Return the nanoseconds since 1970 of a moment on the clock of `time.perf_counter`."""
        return self.arrived_ns + int((seconds - self.arrived) * 1e9)

    def fields(self) -> dict[str, object]:
        """Return what stands in the log; times are microseconds, and None where it never came to that."""
        return {
            "request_id": self.request_id,
            "model": self.model_name,
            "version": self.version,
            "entrypoint": self.entrypoint,
            "status": self.code.name,
            "batch_size": self.batch_size,
            "waiting_us": _microseconds(self.arrived, self.began or self.ended),
            "computing_us": _microseconds(self.began, self.computed),
            "total_us": _microseconds(self.arrived, self.ended),
        }


class RequestLogger:
    """Logs every request when it ends.

    `export` makes its spans and returns the id of their trace; `waited` is told for how many seconds it waited to be
    computed.
    """

    def __init__(
        self,
        is_logged: bool = False,
        export: Callable[[RequestRecord], str] | None = None,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._is_logged = is_logged
        self._export = export
        self._waited = waited

    @contextmanager
    def record(self, entrypoint: str, model_name: str, metadata: Mapping[str, str]) -> Iterator[RequestRecord]:
        """Follow the request that the block answers."""
        record = RequestRecord(entrypoint, model_name, metadata)
        try:
            yield record
            record.code = StatusCode.OK
        except BaseException as exc:
            record.code = code_of(exc)
            raise
        finally:
            record.ended = time.perf_counter()
            self._end(record)

    def _end(self, record: RequestRecord) -> None:
        if record.began is not None:
            self._waited(record.began - record.arrived)
        trace_id = self._export(record) if self._export else ""
        if self._is_logged:
            fields = record.fields() | ({"trace_id": trace_id} if trace_id else {})
            logger.info("Predict %s", record.code.name, extra=fields)


def _microseconds(began: float | None, ended: float | None) -> int | None:
    return None if began is None or ended is None else round((ended - began) * 1e6)
