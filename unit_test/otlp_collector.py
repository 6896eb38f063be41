"""A collector of traces: it receives what OpenTelemetry sends over gRPC, and keeps the spans for the tests."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

WAIT_S = 30


@dataclass(frozen=True)
class Span:
    """The parts of a span that tests need; times in ns since 1970."""

    service: str
    name: str
    id: str
    parent: str
    trace: str
    kind: str
    is_error: bool
    start: int
    end: int
    attributes: dict[str, Any]
    links: list[str]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # generated without types
    """Keeps every span that it receives."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.url = ""
        self._came = threading.Condition()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._came:
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_span(service, span) for span in scope.spans]
            self._came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, condition: Callable[[list[Span]], bool]) -> list[Span]:
        """Return the spans as soon as ``condition`` holds for them; raises AssertionError if it never does."""
        with self._came:
            if not self._came.wait_for(lambda: condition(self.spans), WAIT_S):
                raise AssertionError(f"it never came to that: {self.spans}")
            return list(self.spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port until the block ends."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        trace=span.trace_id.hex(),
        kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=[link.span_id.hex() for link in span.links],
    )
