"""Traces by OpenTelemetry, sent over OTLP. Where to, which and how many: its standard variables say, OTEL_*.

Names and attributes are those of its semantic conventions. Spans are sent in the background; one that can't be is
dropped in the end, and no request waits for it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from preprocess_service.app.observability.metrics import VERSION
from preprocess_service.app.observability.tracing import Metadata, Trace, Tracing
from serving_common.otel import SpanExport

SERVICE = "preprocess_service"
# How long the end of the process waits for the last spans to be sent.
CLOSE_SECONDS = 2.0

_PROPAGATOR = TraceContextTextMapPropagator()


class Otlp(Tracing):
    """Traces every request that the sampler of OTEL_TRACES_SAMPLER takes: by default all, or as its sender has."""

    def __init__(self) -> None:
        self._export = SpanExport(SERVICE, VERSION, CLOSE_SECONDS)
        self._tracer = self._export.tracer

    def request(self, headers: Mapping[str, str]) -> Trace:
        context = _PROPAGATOR.extract(headers)
        # Its name waits for the route.
        return OtlpTrace(self, self._tracer.start_span("HTTP", context, SpanKind.SERVER))

    def current_stage(self) -> Span:
        return get_current_span()

    @contextmanager
    def client_call(self, name: str, stages: Sequence[object] = ()) -> Iterator[Metadata]:
        carrier: dict[str, str] = {}
        parents = [stage.get_span_context() for stage in stages if isinstance(stage, Span)]
        parents = [parent for parent in parents if parent.is_valid]
        if not parents:
            # Not part of a request: a probe, which would fill the traces of the model server with itself.
            _PROPAGATOR.inject(carrier, set_span_in_context(_unsampled()))
            yield tuple(carrier.items())
            return
        # A call has one parent: in the first trace that is kept. The others that share it are links.
        first, *others = sorted(parents, key=lambda parent: not parent.trace_flags.sampled)
        attributes = {"rpc.system": "grpc", "rpc.method": name}
        span = self._tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(first), Context()),
            SpanKind.CLIENT,
            attributes,
            [Link(other) for other in others if other.trace_flags.sampled],
        )
        with _ending(span):
            _PROPAGATOR.inject(carrier, set_span_in_context(span))
            yield tuple(carrier.items())

    def span(self, name: str, context: Context, start: int | None = None) -> Span:
        """A span below the one of ``context``; ``start`` is in ns since 1970."""
        return self._tracer.start_span(name, context, start_time=start)

    def close(self) -> None:
        self._export.close()


class OtlpTrace(Trace):
    """One request's part of a trace."""

    def __init__(self, tracing: Otlp, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._context = set_span_in_context(span, Context())
        self.id = format_trace_id(span.get_span_context().trace_id)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        # The context is named, since a thread of the pool has none.
        with _ending(self._tracing.span(name, self._context)) as span:
            token = attach(set_span_in_context(span, self._context))
            try:
                yield
            finally:
                detach(token)

    def record_stage(self, name: str, seconds: float) -> None:
        now = time.time_ns()
        self._tracing.span(name, self._context, now - int(seconds * 1e9)).end(now)

    def end(self, name: str, code: str, attributes: Mapping[str, str | int]) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if code != "ok":
            self._span.set_attribute("error.type", code)
        # A sender's mistake is no error of a server's span.
        if int(attributes["http.response.status_code"]) >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


@contextmanager
def _ending(span: Span) -> Iterator[Span]:
    """End the span with this block, and say what that failed of: by our code, or by the name of the exception."""
    try:
        yield span
    except BaseException as exc:
        code = getattr(exc, "code", None)
        span.set_attribute("error.type", code if isinstance(code, str) else type(exc).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()


def _unsampled() -> Span:
    ids = RandomIdGenerator()
    return NonRecordingSpan(SpanContext(ids.generate_trace_id(), ids.generate_span_id(), is_remote=False))
