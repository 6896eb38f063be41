"""The metrics: TensorFlow Serving's, by their names, and a few of our own."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from model_service.errors import StartError, code_of, one_line
from model_service.models.engine import API, Engine
from model_service.models.servables import OTHERS, Servables
from model_service.models.tensors import Array
from model_service.observability.readiness import Readiness
from model_service.prediction.executor import InferenceExecutor
from serving_common.tensorflow_protos import ParseError, config_message, text_format

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# Requests can name any model. Without this limit, invented names could fill the memory.
MAX_SERIES = 1000

_REQUEST_COUNT = ":tensorflow:serving:request_count"

# Upper bounds of TensorFlow Serving's buckets, in microseconds, up to 25 minutes.
_LATENCIES_US = [10 * 1.8**power for power in range(33)]
# Seconds, from no wait to the default deadline.
_QUEUE_S = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_SIZES = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def read_path(config_file: str) -> str | None:
    """Return the path for the metrics that a `--monitoring_config_file` sets; None if it does not enable them.

    Raises StartError if the file can't be read or is no MonitoringConfig.
    """
    if not config_file:
        return None
    try:
        config = text_format.Parse(
            Path(config_file).read_text(encoding="utf-8"),
            config_message("MonitoringConfig", prometheus_config={"enable": bool, "path": str}),
        )
    except (OSError, UnicodeDecodeError, ParseError) as exc:
        raise StartError(f"--monitoring_config_file={config_file} can't be read: {one_line(exc)}.") from exc
    if not config.prometheus_config.enable:
        return None
    path: str = config.prometheus_config.path or DEFAULT_PATH
    if not path.startswith("/"):
        raise StartError(f"--monitoring_config_file={config_file}: the path must begin with a slash, but it is {path}.")
    return path


SomeMetric = TypeVar("SomeMetric", Counter, Histogram)


class LabeledMetric(Generic[SomeMetric]):
    """A metric with at most MAX_SERIES series; further ones count under the model OTHERS. Any thread may use it."""

    def __init__(self, metric: SomeMetric) -> None:
        self.metric: SomeMetric = metric
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], SomeMetric] = {}

    def labels(self, *values: str) -> SomeMetric:
        """Return the series with these label values."""
        # This cache needs no lock for a known series. The library takes a lock and converts each value.
        found = self._series.get(values)
        if found is None:
            with self._lock:
                if values not in self._series and len(self._series) >= MAX_SERIES:
                    values = (OTHERS, *values[1:])
                found = self._series.setdefault(values, self.metric.labels(*values))
        return found


class Monitoring:
    """All metrics; any thread may update them. `path` is the HTTP path where they are read, None if there is none."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        prefix = ":tensorflow:serving:"
        by_api = ("model_name", "API", "entrypoint")
        self._requests = LabeledMetric(
            Counter(_REQUEST_COUNT, "Requests by how they ended.", ("model_name", "status"), registry=None)
        )
        self._latency = _histogram(
            f"{prefix}request_latency", "Microseconds of a request that succeeded.", _LATENCIES_US, by_api
        )
        self._runtime = _histogram(
            f"{prefix}runtime_latency", "Microseconds in the engine.", _LATENCIES_US, ("model_name", "API", "runtime")
        )
        self._warmup = _histogram(
            f"{prefix}model_warmup_latency", "Microseconds of a warm-up.", _LATENCIES_US, ("model_path", "status")
        )
        self._queue = Histogram("model_server_queue_seconds", "Seconds in the queue.", buckets=_QUEUE_S, registry=None)
        self._batch = _histogram("model_server_batch_size", "Rows computed at a time.", _BATCH_SIZES, ("model_name",))

    @contextmanager
    def request(self, model_name: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count the request that the block answers, by its status; measure its time if it succeeds."""
        began = time.perf_counter()
        try:
            yield
        except BaseException as exc:
            self._requests.labels(model_name, code_of(exc).name).inc()
            raise
        self._latency.labels(model_name, api, entrypoint).observe((time.perf_counter() - began) * 1e6)
        self._requests.labels(model_name, StatusCode.OK.name).inc()

    @contextmanager
    def warmup(self, folder: Path) -> Iterator[None]:
        """Measure the time of the warm-up in the block; `folder` is the version's, as the metric shows it."""
        began = time.perf_counter()
        code = StatusCode.OK
        try:
            yield
        except StartError as exc:
            code = exc.code
            raise
        finally:
            self._warmup.labels(str(folder), code.name).observe((time.perf_counter() - began) * 1e6)

    def waited(self, seconds: float) -> None:
        """Record how long a prediction waited before it was computed."""
        self._queue.observe(seconds)

    def timed(self, engine: Engine, model_name: str) -> "TimedEngine":
        """Return an engine that records the time of each call."""
        return TimedEngine(engine, self._runtime, self._batch, model_name)

    def page(self, executor: InferenceExecutor, servables: Servables, readiness: Readiness) -> str:
        """Return all metrics in Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page(self._measured(), executor, servables, readiness))
        page = generate_latest(registry).decode()
        # The library appends _total to a counter's name. Here it is removed in HELP and TYPE, in `_Page` in the
        # samples.
        for word in ("HELP", "TYPE"):
            page = page.replace(f"# {word} {_REQUEST_COUNT}_total ", f"# {word} {_REQUEST_COUNT} ", 1)
        return page

    def _measured(self) -> Sequence[Counter | Histogram]:
        labeled = (self._latency.metric, self._runtime.metric, self._warmup.metric, self._batch.metric)
        return (self._requests.metric, *labeled, self._queue)


class _Page(Collector):
    """All metrics, and the present state of the server."""

    def __init__(
        self,
        measured: Sequence[Counter | Histogram],
        executor: InferenceExecutor,
        servables: Servables,
        readiness: Readiness,
    ) -> None:
        self._measured = measured
        self._executor = executor
        self._servables = servables
        self._readiness = readiness

    def collect(self) -> Iterable[Metric]:
        for measured in self._measured:
            for metric in measured.collect():
                metric.samples = [
                    sample._replace(name=_REQUEST_COUNT) if sample.name == f"{_REQUEST_COUNT}_total" else sample
                    for sample in metric.samples
                    # Prometheus' text format has no _created samples, and TensorFlow Serving has none.
                    if not sample.name.endswith("_created")
                ]
                yield metric
        executor = self._executor
        yield GaugeMetricFamily("model_server_queue_length", "Predictions that wait.", executor.waiting)
        yield GaugeMetricFamily("model_server_computing", "Predictions that are computed.", executor.computing)
        yield GaugeMetricFamily("model_server_longest_call_seconds", "Time of the longest one.", executor.longest())
        yield GaugeMetricFamily("model_server_ready", "1: the server is ready.", int(not self._readiness.failing()))
        yield CounterMetricFamily("model_server_rejected", "Predictions that found the queue full.", executor.rejected)
        yield CounterMetricFamily("model_server_expired", "Predictions past their deadline.", executor.expired)
        yield CounterMetricFamily("model_server_cancelled", "Predictions whose client went away.", executor.cancelled)
        failures = CounterMetricFamily("model_server_load_failures", "Loads that failed.", labels=["model_name"])
        for name in self._servables.names():
            failures.add_metric([name], self._servables.load_failures[name])
        yield failures
        version = GaugeMetricFamily("model_server_loaded_version", "The version that answers.", labels=["model_name"])
        for name, number in self._servables.loaded().items():
            version.add_metric([name], number)
        yield version


def _histogram(name: str, text: str, buckets: Sequence[float], labels: Sequence[str]) -> LabeledMetric[Histogram]:
    # Six digits, as in TensorFlow Serving.
    limits = [float(f"{limit:g}") for limit in buckets]
    return LabeledMetric(Histogram(name, text, labels, buckets=limits, registry=None))


@dataclass(frozen=True)
class TimedEngine:
    """An engine whose calls and batch sizes are measured. Failed calls are not, as in TensorFlow Serving."""

    engine: Engine
    runtime: LabeledMetric[Histogram]
    batch: LabeledMetric[Histogram]
    model_name: str

    @property
    def infer_requests(self) -> int:
        """See Engine."""
        return self.engine.infer_requests

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine."""
        began = time.perf_counter()
        results = self.engine.run(inputs, outputs)
        # TensorFlow Serving labels every SavedModel with TF1, and dashboards select this label.
        self.runtime.labels(self.model_name, API.get(), "TF1").observe((time.perf_counter() - began) * 1e6)
        rows = max((array.shape[0] for array in inputs.values() if array.ndim), default=1)
        self.batch.labels(self.model_name).observe(rows)
        return results
