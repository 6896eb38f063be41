"""Turns traces on where the standard variables of OpenTelemetry name a place to send them to.

Where they don't, OpenTelemetry is not even imported; only `span_export` knows it.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_service.observability.span_export import OtlpExport

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# What is said of traces alone goes before what is said of everything.
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

logger = logging.getLogger(__name__)


def open_export(environment: Mapping[str, str], version: str) -> "OtlpExport | None":
    """Return what sends spans, if they are wanted. What is wrong is told in the log; calls are answered all the same.

    `version` is this program's, for the spans to tell.
    """
    if not is_wanted(environment):
        return None
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        logger.error("no traces: OTEL_EXPORTER_OTLP_PROTOCOL is %s, but only grpc is built in", protocol)
        return None
    try:
        from model_service.observability.span_export import OtlpExport

        return OtlpExport(version)
    except Exception:
        # A missing package, a certificate that can't be read, ...
        logger.exception("no traces: OpenTelemetry can't be set up")
        return None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether there is a place to send traces to, and nothing that switches them off."""
    return (
        any(environment.get(name) for name in ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )
