"""What a trace of a request is made of; here it is made of nothing, and costs nothing.

``otlp`` makes real ones, where the environment asks for them.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from serving_common.otel import open_export

Metadata = tuple[tuple[str, str], ...]

_NOTHING = nullcontext()
_NO_METADATA: AbstractContextManager[Metadata] = nullcontext(())


class Trace:
    """One request's part of a trace: this one is not recorded, and has no id."""

    id = ""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A span for what runs in this block, be it in another thread."""
        return _NOTHING

    def record_stage(self, name: str, seconds: float) -> None:
        """A span for what ends now and began ``seconds`` ago."""

    def end(self, name: str, code: str, attributes: Mapping[str, str | int]) -> None:
        """The request is answered; ``code`` is ``ok`` or says what failed."""


class Tracing:
    """Makes traces that are not recorded."""

    def request(self, headers: Mapping[str, str]) -> Trace:
        """Begin with a request, as a part of the trace that its ``traceparent`` names, if any."""
        return NO_TRACE

    def current_stage(self) -> object:
        """The stage that runs now, for ``client_call``."""
        return None

    def client_call(self, name: str, stages: Sequence[object] = ()) -> AbstractContextManager[Metadata]:
        """A span for a gRPC call on behalf of ``stages``, which may be of several requests; gives the metadata that
        tells the server of it."""
        return _NO_METADATA

    def close(self) -> None:
        """Send what is left, if that can be done soon."""


NO_TRACE = Trace()


def open_tracing(environment: Mapping[str, str]) -> Tracing:
    """Trace as the environment says."""

    def make() -> Tracing:
        from preprocess_service.app.observability.otlp import Otlp

        return Otlp()

    return open_export(environment, make) or Tracing()
