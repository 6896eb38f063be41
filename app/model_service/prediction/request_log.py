"""Records one prediction from its arrival to its end; then writes a log line and exports spans."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from grpc import StatusCode

from model_service.errors import code_of

Result = TypeVar("Result")

# Limits for a client's own text in the log. The id may be a list of 32 ids with 32 hexadecimal digits and a comma each:
# the preprocess service sends them with a batch.
_MAX_ID = 32 * 33
_MAX_NAME = 128
# A span needs these entries of the metadata. OpenTelemetry reads at most 512 characters of the longest one.
_TRACE_HEADERS = ("traceparent", "tracestate")
_MAX_TRACE = 512

logger = logging.getLogger("call")


class RequestRecord:
    """The data of one prediction. Times are seconds on the clock of `time.perf_counter`; None means not yet.

    `api` is the method, such as "Predict". `metadata` are the gRPC metadata or the HTTP headers, with names in lower
    case. Only those of the trace are kept.
    """

    def __init__(self, entrypoint: str, model_name: str, metadata: Mapping[str, str], api: str = "Predict") -> None:
        self.entrypoint = entrypoint
        self.api = api
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
        """Return the result of `function` and record when it began and ended. The computing thread calls this."""
        self.began = time.perf_counter()
        try:
            return function()
        finally:
            self.computed = time.perf_counter()

    def at_ns(self, seconds: float) -> int:
        """Convert a time of `time.perf_counter` to nanoseconds since 1970."""
        return self.arrived_ns + int((seconds - self.arrived) * 1e9)

    def fields(self) -> dict[str, object]:
        """Return the fields of the log line. Times are microseconds; None if the prediction did not get that far."""
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
    """Logs every prediction at its end.

    `export` exports its spans and returns the id of their trace. `waited` gets the seconds before its computation.
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
    def record(
        self, entrypoint: str, model_name: str, metadata: Mapping[str, str], api: str = "Predict"
    ) -> Iterator[RequestRecord]:
        """Yield the record of the prediction that the block answers."""
        record = RequestRecord(entrypoint, model_name, metadata, api)
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
            logger.info("%s %s", record.api, record.code.name, extra=fields)


def _microseconds(began: float | None, ended: float | None) -> int | None:
    return None if began is None or ended is None else round((ended - began) * 1e6)
