"""What is counted and timed while the server runs: TensorFlow Serving's metrics by its names, and a few of ours."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc import StatusCode

from model_service.config_files import parse_monitoring_config, read_config_file
from model_service.errors import StartError, code_of
from model_service.models.engine import Engine
from model_service.models.servables import Servables
from model_service.models.tensors import Array
from model_service.observability.prometheus_text import Counter, Histogram, sample
from model_service.observability.readiness import Readiness
from model_service.prediction.executor import Workers

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# Microseconds, up to 25 minutes: TensorFlow Serving's own.
_LATENCIES_US = [10 * 1.8**power for power in range(33)]
# Seconds, from a thread that is free to a deadline that has passed.
_QUEUE_S = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_SIZES = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def read_path(config_file: str) -> str | None:
    """Return the path that a `--monitoring_config_file` asks for the metrics at; None where it asks for none.

    Raises StartError where the file can't be read or is no MonitoringConfig.
    """
    if not config_file:
        return None
    config = read_config_file("monitoring_config_file", config_file, parse_monitoring_config)
    if not config.prometheus_config.enable:
        return None
    path: str = config.prometheus_config.path or DEFAULT_PATH
    if not path.startswith("/"):
        raise StartError(f"--monitoring_config_file={config_file}: the path must begin with a slash, not be {path}.")
    return path


class Monitoring:
    """Everything that is measured, from all threads; `path` is where it can be read, if anywhere."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        prefix = ":tensorflow:serving:"
        self._requests = Counter(f"{prefix}request_count", "model_name", "status")
        self._latency = Histogram(f"{prefix}request_latency", _LATENCIES_US, "model_name", "API", "entrypoint")
        self._runtime = Histogram(f"{prefix}runtime_latency", _LATENCIES_US, "model_name", "API", "runtime")
        self._warmup = Histogram(f"{prefix}model_warmup_latency", _LATENCIES_US, "model_path", "status")
        self._queue = Histogram("model_server_queue_seconds", _QUEUE_S)
        self._batch = Histogram("model_server_batch_size", _BATCH_SIZES, "model_name")

    @contextmanager
    def request(self, model_name: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count the request that the block answers, by how it ends, and time it if it is answered well."""
        began = time.perf_counter()
        try:
            yield
        except BaseException as exc:
            self._requests.count(model_name, code_of(exc).name)
            raise
        self._latency.observe((time.perf_counter() - began) * 1e6, model_name, api, entrypoint)
        self._requests.count(model_name, StatusCode.OK.name)

    @contextmanager
    def warmup(self, folder: Path) -> Iterator[None]:
        """Time the warm-up of the version in `folder`, which the block does."""
        began = time.perf_counter()
        code = StatusCode.OK
        try:
            yield
        except StartError as exc:
            code = exc.code
            raise
        finally:
            self._warmup.observe((time.perf_counter() - began) * 1e6, str(folder), code.name)

    def waited(self, seconds: float) -> None:
        """Take down for how long a prediction waited until it was computed."""
        self._queue.observe(seconds)

    def timed(self, engine: Engine, model_name: str) -> "TimedEngine":
        """Return an engine that reports how long each of its calls computes."""
        return TimedEngine(engine, self._runtime, self._batch, model_name)

    def page(self, workers: Workers, servables: Servables, readiness: Readiness) -> str:
        """Return everything as Prometheus reads it."""
        measured = (self._requests, self._latency, self._runtime, self._warmup, self._queue, self._batch)
        lines = [line for one in measured for line in one.lines()]
        gauges = {
            "queue_length": workers.waiting,
            "computing": workers.computing,
            "longest_call_seconds": workers.longest(),
            "ready": int(not readiness.failing()),
        }
        counters = {"shed": workers.shed, "expired": workers.expired, "abandoned": workers.abandoned}
        for name, value in gauges.items():
            lines += [f"# TYPE model_server_{name} gauge", sample(f"model_server_{name}", value)]
        for name, value in counters.items():
            lines += [f"# TYPE model_server_{name}_total counter", sample(f"model_server_{name}_total", value)]
        lines.append("# TYPE model_server_load_failures_total counter")
        for model_name in servables.names():
            failures = servables.load_failures[model_name]
            lines.append(sample("model_server_load_failures_total", failures, {"model_name": model_name}))
        lines.append("# TYPE model_server_loaded_version gauge")
        for model_name, version in servables.loaded().items():
            lines.append(sample("model_server_loaded_version", version, {"model_name": model_name}))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class TimedEngine:
    """An engine that is timed, and whose batches are counted; not where they fail, as in TensorFlow Serving."""

    engine: Engine
    runtime: Histogram
    batch: Histogram
    model_name: str

    @property
    def slots(self) -> int:
        """See engines.Engine."""
        return self.engine.slots

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See engines.Engine."""
        began = time.perf_counter()
        results = self.engine.run(inputs, outputs)
        # TensorFlow Serving calls whatever runs a SavedModel TF1, and dashboards ask for that.
        self.runtime.observe((time.perf_counter() - began) * 1e6, self.model_name, "Predict", "TF1")
        self.batch.observe(max((array.shape[0] for array in inputs.values() if array.ndim), default=1), self.model_name)
        return results
