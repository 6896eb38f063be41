"""The objects that both APIs share."""

from dataclasses import dataclass

from model_service.lifecycle.served_models import ServedModels
from model_service.models.servables import Servables
from model_service.observability.metrics import Monitoring
from model_service.observability.readiness import Readiness
from model_service.prediction.executor import InferenceExecutor
from model_service.prediction.message_memory import MessageMemory
from model_service.prediction.request_log import RequestLogger
from model_service.prediction.validation import Options


@dataclass(frozen=True)
class ServerContext:
    """Models, executor, logs, metrics and options of requests."""

    servables: Servables
    models: ServedModels
    executor: InferenceExecutor
    readiness: Readiness
    monitoring: Monitoring
    request_logger: RequestLogger
    messages: MessageMemory
    options: Options
    allows_cors: bool = False

    def metrics(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return self.monitoring.page(self.executor, self.servables, self.readiness)
