"""What is counted, in Prometheus' words."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From a small photo on a fast machine to a request that waited for its deadline.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One set for each app, in a registry of its own, so that two apps in one process don't mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("catdog_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self.step_seconds = Histogram(
            "catdog_step_seconds", "Seconds by step of a request.", ["step"], buckets=_SECONDS, registry=self.registry
        )
        self.in_flight = Gauge("catdog_in_flight", "Photos being prepared or predicted.", registry=self.registry)
        self.shed = Counter("catdog_shed", "Requests refused since too many were in flight.", registry=self.registry)
        self.expired = Counter("catdog_expired", "Requests whose deadline passed.", registry=self.registry)
        self.gone = Counter("catdog_gone", "Requests whose sender went away.", registry=self.registry)
        self.model_ready = Gauge(
            "catdog_model_ready", "1: the last look found the model AVAILABLE and predicting.", registry=self.registry
        )
        self.model_version = Gauge("catdog_model_version", "The version that answered last.", registry=self.registry)

    def render(self) -> bytes:
        """The text format that Prometheus reads."""
        return generate_latest(self.registry)
