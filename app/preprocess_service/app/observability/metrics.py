"""The service's metrics, in Prometheus' format. ``docs/operations.md`` lists them."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

VERSION = "0.1.0"
# The Content-Type of what ``render`` returns.
CONTENT_TYPE = CONTENT_TYPE_LATEST

# The stages of a request in their order. ``queue`` is the wait for a thread or process that decodes. ``second_look`` is
# all steps of a second look; they do not count as ``queue``, ``decode``, ``resize`` and ``model``.
STAGES = ("read", "queue", "decode", "resize", "model", "second_look", "total")
# What became of each second look that the recipe asks for: the label is the first look's, or another one; not taken, or
# not finished, because the service was busy or there was too little time; it failed.
SecondLookResult = Literal["kept", "changed", "busy", "late", "failed"]
# Histogram buckets: from a small photo on a fast machine to a request that reached its deadline.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Histogram buckets: from a thumbnail to above the largest body.
_BYTES = (10e3, 30e3, 100e3, 300e3, 1e6, 3e6, 10e6, 30e6)


class ModelMetrics:
    """The metrics of one model.

    Args:
        name: the label ``model`` of its series; none if it is the only model.
    """

    def __init__(self, metrics: "Metrics", *name: str) -> None:
        self.ready = metrics.model_ready.labels(*name) if name else metrics.model_ready
        self._version = metrics.model_version.labels(*name) if name else metrics.model_version
        self._canary_ready, self._canary_failures = metrics.canary_ready, metrics.canary_failures
        # Each result is there from the start, so that the rate of the first one is right.
        self.second_looks = {it: metrics.second_looks.labels(*name, it) for it in get_args(SecondLookResult)}
        self._name, self._predictions = name, metrics.predictions
        # The results of labels() are kept: it takes a lock, and several times as long as counting.
        self._of_label: dict[tuple[str, ...], Counter] = {}
        self._has_canary = metrics.canary_ready is not None

    def record_prediction(self, label: str, version: int) -> None:
        """Count a photo by what was seen, and by which version."""
        self._version.set(version)
        key = (label, str(version)) if self._has_canary else (label,)
        seen = self._of_label.get(key)
        if seen is None:
            seen = self._of_label[key] = self._predictions.labels(*self._name, *key)
        seen.inc()

    def watch_canary(self, is_ready: Callable[[], bool]) -> None:
        """Report whether the canary answers its share."""
        if self._canary_ready:
            gauge = self._canary_ready.labels(*self._name) if self._name else self._canary_ready
            gauge.set_function(is_ready)

    def record_canary_failure(self) -> None:
        """Count a photo that the canary did not answer."""
        if self._canary_failures:
            (self._canary_failures.labels(*self._name) if self._name else self._canary_failures).inc()

    def record_second_look(self, result: SecondLookResult) -> None:
        """Count a photo for which the recipe asks for a second look."""
        self.second_looks[result].inc()


class Metrics:
    """The metrics of one app, in their own registry, so that two apps in one process do not share counts.

    Args:
        models: their names. If there are several, the series of each have the label ``model``.
        has_canary: whether a version answers a share of the photos. If so, predictions have the label ``version``.
    """

    def __init__(self, models: Sequence[str] = (), has_canary: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._name = ["model"] if len(models) > 1 else []
        self._version = ["version"] if has_canary else []
        self._add_traffic()
        self._add_load()
        ready = "1: at the last check the model was AVAILABLE and predicted."
        self.model_ready = self._gauge("model_ready", ready, self._name)
        self.model_version = self._gauge("model_version", "The model version of the last prediction.", self._name)
        self.canary_ready: Gauge | None = None
        self.canary_failures: Counter | None = None
        if has_canary:
            self.canary_ready = self._gauge("canary_ready", "1: the canary answers its share.", self._name)
            text = "Photos that the canary failed to answer."
            self.canary_failures = Counter("catdog_canary_failures", text, self._name, registry=self.registry)
        build = Info("catdog_build", "Version of this service, and name of its model.", registry=self.registry)
        build.info({"version": VERSION, "model": ",".join(models)})
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _add_traffic(self) -> None:
        registry = self.registry
        self.requests = Counter("catdog_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.failures = Counter("catdog_failures", "Requests that failed, by code.", ["code"], registry=registry)
        self.stage_duration_seconds = Histogram(
            "catdog_stage_duration_seconds",
            "Duration of each stage of a request, in seconds.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.photo_bytes = Histogram(
            "catdog_photo_bytes", "Size of a request's photos as sent, in bytes.", buckets=_BYTES, registry=registry
        )
        self.predictions = Counter(
            "catdog_predictions",
            "Predicted photos, by label.",
            [*self._name, "label", *self._version],
            registry=registry,
        )
        self.second_looks = Counter(
            "catdog_second_looks",
            "Photos that need a second look, by its result.",
            [*self._name, "result"],
            registry=registry,
        )
        self.rejected = Counter("catdog_rejected", "Requests rejected: too many were in flight.", registry=registry)
        self.expired = Counter("catdog_expired", "Requests whose deadline passed.", registry=registry)
        self.client_disconnects = Counter(
            "catdog_client_disconnects", "Requests whose client disconnected.", registry=registry
        )
        self.decoders_ended = Counter(
            "catdog_decoders_ended", "Decoder processes ended by a picture, by reason.", ["reason"], registry=registry
        )
        # Kept, as in ``ModelMetrics``.
        self._of_stage = {stage: self.stage_duration_seconds.labels(stage) for stage in STAGES}
        self._of_answer: dict[tuple[str, int], Counter] = {}
        self._of_code: dict[str, Counter] = {}

    def _add_load(self) -> None:
        self.in_flight = self._gauge("in_flight", "Photos being prepared or predicted.")
        self.queue_length = self._gauge("queue_length", "Photos that wait to be decoded.")
        self.concurrency_limit = self._gauge("concurrency_limit", "The most photos in flight; others are rejected.")
        self.concurrency = self._gauge("concurrency", "Photos in flight, of admitted requests.")
        self.buffered_bytes = self._gauge("buffered_bytes", "Bytes of the bodies of all requests in work.")
        self.connections = self._gauge("connections", "Open HTTP connections.")

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"catdog_{name}", text, labels, registry=self.registry)

    def of_model(self, name: str) -> ModelMetrics:
        """Return the metrics of one of the models."""
        return ModelMetrics(self, *([name] if self._name else []))

    def record_request(self, route: str, status: int, code: str) -> None:
        """Count one request; ``code`` is ``ok`` or an error code of ``errors.py``."""
        answer = self._of_answer.get((route, status))
        if answer is None:
            answer = self._of_answer[route, status] = self.requests.labels(route, status)
        answer.inc()
        if code != "ok":
            failure = self._of_code.get(code)
            if failure is None:
                failure = self._of_code[code] = self.failures.labels(code)
            failure.inc()

    def record_stages(self, seconds: dict[str, float]) -> None:
        """Record how long each stage of one request took."""
        for stage, value in seconds.items():
            self._of_stage[stage].observe(value)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
