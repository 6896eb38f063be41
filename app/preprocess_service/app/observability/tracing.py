"""Traces by OpenTelemetry, sent over OTLP. Its standard variables (OTEL_*) set the destination and the sampling.

Names and attributes follow its semantic conventions. Spans are sent in the background. A span that can't be sent is
dropped; no request waits for it. Without a destination, all spans are the API's own no-op spans.
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
# Seconds that the service waits at its end until the last spans are sent.
CLOSE_SECONDS = 2.0

Metadata = tuple[tuple[str, str], ...]

_PROPAGATOR = TraceContextTextMapPropagator()


class Trace:
    """One request's part of a trace. ``id`` is the trace id, or "" without a trace."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())
        self.id = "" if span is INVALID_SPAN else format_trace_id(span.get_span_context().trace_id)

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Make a span for this block, which may run in another thread."""
        # The context is passed explicitly: a thread of the pool has no current context.
        return _running(self._tracer.start_span(name, self._context))

    def record_stage(self, name: str, seconds: float) -> None:
        """Make a span that began ``seconds`` ago and ends now."""
        now = time.time_ns()
        self._tracer.start_span(name, self._context, start_time=now - int(seconds * 1e9)).end(now)

    def end(self, name: str, code: str, attributes: Mapping[str, str | int]) -> None:
        """End the request's span; ``code`` is ``ok`` or an error code of ``errors.py``."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if code != "ok":
            self._span.set_attribute("error.type", code)
        # By OpenTelemetry's conventions a 4xx is not an error of a server's span.
        if int(attributes["http.response.status_code"]) >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


NO_TRACE = Trace(NoOpTracer(), INVALID_SPAN)


class Tracing:
    """Traces each request that the sampler (OTEL_TRACES_SAMPLER) selects.

    The default sampler selects a request if its client does (``traceparent``), and each request without that header.

    Args:
        export: sends the spans; None: there are no traces.
    """

    def __init__(self, export: SpanExport | None = None) -> None:
        self._export = export

    def request(self, headers: Mapping[str, str]) -> Trace:
        """Begin the span of a request, in the trace of its ``traceparent`` header if it has one."""
        if self._export is None:
            return NO_TRACE
        tracer = self._export.tracer
        # ``end`` sets the final name, when the route is known.
        return Trace(tracer, tracer.start_span("HTTP", _PROPAGATOR.extract(headers), SpanKind.SERVER))

    def current_stage(self) -> Span:
        """Return the span of the current stage, for ``client_call``."""
        return get_current_span()

    @contextmanager
    def client_call(self, name: str, stages: Sequence[Span] = ()) -> Iterator[Metadata]:
        """Make a span for a gRPC call for ``stages``, which may belong to several requests.

        It gives the metadata that passes the trace on to the server.
        """
        if self._export is None:
            yield ()
            return
        carrier: dict[str, str] = {}
        parents = [parent for stage in stages if (parent := stage.get_span_context()).is_valid]
        if not parents:
            # The call belongs to no request: it is a probe. It is marked as not sampled, so that the model server
            # does not trace it.
            _PROPAGATOR.inject(carrier, set_span_in_context(_unsampled()))
            yield tuple(carrier.items())
            return
        # A span has one parent. It is the first stage that is sampled; the other sampled stages become links.
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
        """Send the spans that are left, for ``CLOSE_SECONDS`` at most."""
        if self._export is not None:
            self._export.close()


def open_tracing(environment: Mapping[str, str]) -> Tracing:
    """Return the tracing that the variables OTEL_* in ``environment`` ask for."""
    return Tracing(open_export(environment, SERVICE, VERSION, CLOSE_SECONDS))


@contextmanager
def _running(span: Span) -> Iterator[None]:
    """Make ``span`` current in this block, and end it afterwards.

    If the block raises, ``error.type`` is the error's code, or else the exception's class.
    """
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
