"""What both faces stand in front of."""

from dataclasses import dataclass

from model_service.models.servables import Servables
from model_service.observability.metrics import Monitoring
from model_service.observability.readiness import Readiness
from model_service.prediction.executor import Workers
from model_service.prediction.message_memory import MessageMemory
from model_service.prediction.request_log import Calls


@dataclass(frozen=True)
class Backend:
    """The models, the threads they compute in, and what is told of both; no message may exceed `max_bytes`."""

    servables: Servables
    workers: Workers
    readiness: Readiness
    monitoring: Monitoring
    calls: Calls
    messages: MessageMemory
    max_bytes: int

    def metrics(self) -> str:
        """Return everything that is measured, as Prometheus reads it."""
        return self.monitoring.page(self.workers, self.servables, self.readiness)
