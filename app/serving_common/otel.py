"""Sends spans over OTLP, if the standard variables of OpenTelemetry (OTEL_*) name a destination.

Without a destination OpenTelemetry's SDK is not imported. The import takes 0.2 s and 5 MB.
"""

import logging
import threading
from collections.abc import Mapping

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# The variables for traces alone take precedence over those for all signals.
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

logger = logging.getLogger(__name__)


def open_export(
    environment: Mapping[str, str], service: str, version: str, close_seconds: float
) -> "SpanExport | None":
    """Return a ``SpanExport`` if spans are wanted, else None.

    If OpenTelemetry can't be set up, the reason is logged and the result is None. The service works without traces.
    """
    if not is_wanted(environment):
        return None
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        logger.error("no traces: OTEL_EXPORTER_OTLP_PROTOCOL is %s, but only grpc is supported", protocol)
        return None
    try:
        return SpanExport(service, version, close_seconds)
    except Exception:
        # For example a missing package, or a certificate that can't be read.
        logger.exception("no traces: OpenTelemetry can't be set up")
        return None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether ``environment`` names a destination for traces and does not disable them."""
    return (
        any(environment.get(name) for name in ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )


class SpanExport:
    """A tracer whose spans are sent in the background.

    Args:
        service, version: sent with each span; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override them.
        close_seconds: how long ``close`` waits for the last spans. The SDK's default is 30 s.
    """

    def __init__(self, service: str, version: str, close_seconds: float) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource({"service.name": service, "service.version": version})
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(
            resource=Resource.create().merge(resource).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._close_seconds = close_seconds
        self.tracer = self._provider.get_tracer(service, version)

    def close(self) -> None:
        """Send the spans that are left, for at most ``close_seconds``."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(self._close_seconds)
        if closing.is_alive():
            self._exporter.shutdown()
