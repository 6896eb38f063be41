"""Spans of requests by OpenTelemetry, sent over OTLP. Its standard variables (OTEL_*) set the destination and sampling.

Each request has one span. Its parent is the client's span, if the request's metadata names one. It has two child spans:
the time in the queue and the time of computing. All are made after the request has ended, so that they do not delay it.
"""

from grpc import StatusCode
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace import StatusCode as SpanStatus
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from model_service.prediction.request_log import RequestRecord

# By OpenTelemetry's conventions these are errors of the server; the others are errors of the client.
_ERRORS = {
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.UNIMPLEMENTED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
}
_PROPAGATOR = TraceContextTextMapPropagator()


def export_request(tracer: Tracer, record: RequestRecord) -> str:
    """Make the spans of a request that has ended; return the trace id, 32 hexadecimal digits."""
    parent = _PROPAGATOR.extract(record.metadata, Context())
    span = tracer.start_span(record.api, parent, SpanKind.SERVER, _attributes(record), None, record.arrived_ns)
    below = set_span_in_context(span, Context())
    for name, began, ended in (
        ("queue", record.arrived, record.began or record.ended),
        ("compute", record.began, record.computed),
    ):
        if began is not None and ended is not None:
            start = record.at_ns(began)
            tracer.start_span(name, below, start_time=start).end(record.at_ns(ended))
    if record.code in _ERRORS:
        span.set_status(Status(SpanStatus.ERROR, record.code.name))
    span.end(record.at_ns(record.ended or record.arrived))
    return format_trace_id(span.get_span_context().trace_id)


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc" if record.entrypoint == "GRPC" else "http",
        "rpc.method": record.api,
        "rpc.grpc.status_code": record.code.value[0],
        "request_id": record.request_id,
        "model.name": record.model_name,
    }
    if record.version is not None:
        attributes["model.version"] = record.version
    if record.batch_size is not None:
        attributes["model.batch_size"] = record.batch_size
    if record.code is not StatusCode.OK:
        attributes["error.type"] = record.code.name
    return attributes
