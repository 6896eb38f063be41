"""Turns traces on where the standard variables of OpenTelemetry name a place to send them to.

Where they don't, none of what makes and sends spans is even imported: that would take 0.2 s and 5 MB.
"""

import logging
from collections.abc import Mapping

from preprocess_service.app.observability.tracing import Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# What is said of traces alone goes before what is said of everything.
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

logger = logging.getLogger(__name__)


def open_tracing(environment: Mapping[str, str]) -> Tracing:
    """Trace as the environment says. What is wrong there is told in the log; the service works all the same."""
    if not is_wanted(environment):
        return Tracing()
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        logger.error("no traces: OTEL_EXPORTER_OTLP_PROTOCOL is %s, but only grpc is built in", protocol)
        return Tracing()
    try:
        from preprocess_service.app.observability.otlp import Otlp

        return Otlp()
    except Exception:
        # A missing package, a certificate that can't be read, ...: whatever it is, photos are answered.
        logger.exception("no traces: OpenTelemetry can't be set up")
        return Tracing()


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether there is a place to send traces to, and nothing that switches them off."""
    return (
        any(environment.get(name) for name in ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )
