"""Whether the server is ready, for grpc.health.v1 and /readyz."""

from model_service.models.servables import Servables
from model_service.prediction.executor import InferenceExecutor


class Readiness:
    """Computes the state at each question.

    An engine is stuck if a call computes for more than `stuck_s` seconds; with 0 it never is.
    """

    def __init__(self, servables: Servables, executor: InferenceExecutor, stuck_s: float) -> None:
        self._servables = servables
        self._executor = executor
        self._stuck_s = stuck_s
        self.is_stopping = False

    @property
    def is_stuck(self) -> bool:
        """Whether an engine is stuck: its call will probably never end."""
        return bool(self._stuck_s) and self._executor.longest() > self._stuck_s

    def failing(self) -> str:
        """Return why the server is not ready, or "" if it is."""
        if self.is_stopping:
            return "the server is stopping"
        missing = self._servables.missing()
        if missing is None:
            return "no model is available"
        if missing:
            return f"no version of {', '.join(missing)} is available"
        if self.is_stuck:
            return f"a call computes for more than {self._stuck_s:g} s (--stuck_call_seconds)"
        return ""
