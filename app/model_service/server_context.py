"""What both APIs share."""

from dataclasses import dataclass

from model_service.models.servables import Servables
from model_service.observability.metrics import Monitoring
from model_service.observability.readiness import Readiness
from model_service.prediction.executor import InferenceExecutor
from model_service.prediction.message_memory import MessageMemory
from model_service.prediction.request_log import RequestLogger


@dataclass(frozen=True)
class ServerContext:
    """The models, the threads they compute in, and what is logged and measured. No message may exceed `max_bytes`."""

    servables: Servables
    executor: InferenceExecutor
    readiness: Readiness
    monitoring: Monitoring
    request_logger: RequestLogger
    messages: MessageMemory
    max_bytes: int

    def metrics(self) -> str:
        """Return everything that is measured, as Prometheus reads it."""
        return self.monitoring.page(self.executor, self.servables, self.readiness)
