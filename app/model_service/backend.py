"""What both faces stand in front of."""

from dataclasses import dataclass

from calls import Calls
from message_memory import MessageMemory
from monitoring import Monitoring
from readiness import Readiness
from servables import Servables
from workers import Workers


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
