"""Whether requests should be sent here: the one answer behind grpc.health.v1 and /readyz."""

from model_service.models.servables import Servables
from model_service.prediction.executor import InferenceExecutor


class Readiness:
    """Looks at the real state whenever it is asked.

    A call that computes for more than `stuck_s` seconds is a sign of an engine that is stuck; at 0 none is.
    """

    def __init__(self, servables: Servables, executor: InferenceExecutor, model_name: str, stuck_s: float) -> None:
        self._servables = servables
        self._executor = executor
        self._model_name = model_name
        self._stuck_s = stuck_s
        self.is_stopping = False

    @property
    def is_stuck(self) -> bool:
        """Whether a call computes for so long that it will hardly end."""
        return bool(self._stuck_s) and self._executor.longest() > self._stuck_s

    def failing(self) -> str:
        """Return why no requests should be sent here, or nothing where all is well."""
        if self.is_stopping:
            return "the server is stopping"
        if not self._servables.available(self._model_name):
            return f"no version of {self._model_name} is available"
        if self.is_stuck:
            return f"a call computes for more than {self._stuck_s:g} s (--stuck_call_seconds)"
        return ""
