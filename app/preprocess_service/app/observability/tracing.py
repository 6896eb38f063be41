"""Traces by OpenTelemetry, sent over OTLP. Where to, which and how many: its standard variables say, OTEL_*.

Names and attributes are those of its semantic conventions. Spans are sent in the background; one that can't be is
dropped in the end, and no request waits for it. Where no traces are wanted, all spans are the API's own no-op.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from preprocess_service.app.observability.metrics import VERSION
from serving_common.otel import SpanExport, open_export

SERVICE = "preprocess_service"
# How long the end of the process waits for the last spans to be sent.
CLOSE_SECONDS = 2.0

Metadata = tuple[tuple[str, str], ...]

_PROPAGATOR = TraceContextTextMapPropagator()


class Trace:
    """One request's part of a trace; ``id`` is empty where there is none."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())
        self.id = "" if span is INVALID_SPAN else format_trace_id(span.get_span_context().trace_id)

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A span for what runs in this block, be it in another thread."""
        # The context is named, since a thread of the pool has none.
        return _running(self._tracer.start_span(name, self._context))

    def record_stage(self, name: str, seconds: float) -> None:
        """A span for what ends now and began ``seconds`` ago."""
        now = time.time_ns()
        self._tracer.start_span(name, self._context, start_time=now - int(seconds * 1e9)).end(now)

    def end(self, name: str, code: str, attributes: Mapping[str, str | int]) -> None:
        """The request is answered; ``code`` is ``ok`` or says what failed."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if code != "ok":
            self._span.set_attribute("error.type", code)
        # A sender's mistake is no error of a server's span.
        if int(attributes["http.response.status_code"]) >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


NO_TRACE = Trace(NoOpTracer(), INVALID_SPAN)


class Tracing:
    """Traces every request that the sampler of OTEL_TRACES_SAMPLER takes: by default all, or as its sender has.

    Args:
        export: where the spans go; None: there are no traces.
    """

    def __init__(self, export: SpanExport | None = None) -> None:
        self._export = export

    def request(self, headers: Mapping[str, str]) -> Trace:
        """Begin with a request, as a part of the trace that its ``traceparent`` names, if any."""
        if self._export is None:
            return NO_TRACE
        tracer = self._export.tracer
        # Its name waits for the route.
        return Trace(tracer, tracer.start_span("HTTP", _PROPAGATOR.extract(headers), SpanKind.SERVER))

    def current_stage(self) -> Span:
        """The stage that runs now, for ``client_call``."""
        return get_current_span()

    @contextmanager
    def client_call(self, name: str, stages: Sequence[Span] = ()) -> Iterator[Metadata]:
        """A span for a gRPC call on behalf of ``stages``, which may be of several requests; gives the metadata that
        tells the server of it."""
        if self._export is None:
            yield ()
            return
        carrier: dict[str, str] = {}
        parents = [parent for stage in stages if (parent := stage.get_span_context()).is_valid]
        if not parents:
            # Not part of a request: a probe, which would fill the traces of the model server with itself.
            _PROPAGATOR.inject(carrier, set_span_in_context(_unsampled()))
            yield tuple(carrier.items())
            return
        # A call has one parent: in the first trace that is kept. The others that share it are links.
        first, *others = sorted(parents, key=lambda parent: not parent.trace_flags.sampled)
        span = self._export.tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(first), Context()),
            SpanKind.CLIENT,
            {"rpc.system": "grpc", "rpc.method": name},
            [Link(other) for other in others if other.trace_flags.sampled],
        )
        with _running(span):
            _PROPAGATOR.inject(carrier)
            yield tuple(carrier.items())

    def close(self) -> None:
        """Send what is left, if that can be done soon."""
        if self._export is not None:
            self._export.close()


def open_tracing(environment: Mapping[str, str]) -> Tracing:
    """Trace as the environment says."""
    return Tracing(open_export(environment, SERVICE, VERSION, CLOSE_SECONDS))


@contextmanager
def _running(span: Span) -> Iterator[None]:
    """Make it the current span in this block, which ends it and tells what failed: our code, or the exception."""
    token = attach(set_span_in_context(span))
    try:
        yield
    except BaseException as exc:
        code = getattr(exc, "code", None)
        span.set_attribute("error.type", code if isinstance(code, str) else type(exc).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        detach(token)
        span.end()


def _unsampled() -> Span:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    ids = RandomIdGenerator()
    return NonRecordingSpan(SpanContext(ids.generate_trace_id(), ids.generate_span_id(), is_remote=False))
