"""All models that the service serves. They share the decoders, the limits and the channel to the model server."""

import asyncio
from collections.abc import Sequence

from preprocess_service.app.config import Config
from preprocess_service.app.errors import ModelUnavailable, NotFound, Overloaded, ServiceError
from preprocess_service.app.inference.pipeline import Pipeline, Preparation, Runner
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.observability.readiness import Checks


class ServedModels:
    """The pipelines of all models by name; ``first`` answers where a request names no model.

    Args:
        runners: one for each of ``config.models``. The first one opens and closes the channel of all.
    """

    def __init__(self, config: Config, runners: Sequence[Runner], metrics: Metrics) -> None:
        self.is_draining = False
        self._runner = runners[0]
        self._metrics = metrics
        self._preparation = Preparation(config, metrics)
        self.pipelines = {
            name: Pipeline(config.of_model(name), runner, metrics, self._preparation)
            for name, runner in zip(config.models, runners, strict=True)
        }
        self.first = self.pipelines[config.experiment_id]
        self._were_all_ready = False

    async def open(self) -> None:
        await self._runner.open()

    async def close(self) -> None:
        await self._preparation.close()
        for pipeline in self.pipelines.values():
            await pipeline.close()
        await self._runner.close()

    def find(self, name: str) -> Pipeline:
        """Return the pipeline of a model.

        Raises:
            NotFound: there is no such model; the message names those that there are.
        """
        if name not in self.pipelines:
            raise NotFound("model_unknown", name=name[:100], found=", ".join(self.pipelines))
        return self.pipelines[name]

    async def check(self) -> tuple[Checks, dict[str, ServiceError]]:
        """Check what requests need: the service does not drain, decoders start, the models are AVAILABLE and predict.

        With several models, the service is not ready before each of them has been. After that, one that is not ready
        is only a warning while another one is: it must not take the others out of a load balancer.

        Returns:
            The checks by name, each with its error or None, and the warnings. If there are several models, the name of
            a model's check begins with the model: ``CAT-DOG/golden``.
        """
        decoders, found = await asyncio.gather(
            self._preparation.check(),
            asyncio.gather(*(pipeline.readiness.check() for pipeline in self.pipelines.values())),
        )
        are_ready = [not any(checks.values()) for checks in found]
        self._were_all_ready = self._were_all_ready or all(are_ready)
        checks: Checks = {"process": Overloaded("draining") if self.is_draining else decoders}
        warnings: dict[str, ServiceError] = {}
        for (name, pipeline), of_model in zip(self.pipelines.items(), found, strict=True):
            start = f"{name}/" if len(self.pipelines) > 1 else ""
            for check, error in of_model.items():
                if error is not None and self._were_all_ready and any(are_ready):
                    warnings[f"{start}{check}"] = error
                else:
                    checks[f"{start}{check}"] = error
            if pipeline.canary and not pipeline.canary.usable():
                error = pipeline.canary.off or pipeline.canary.versions.error
                warnings[f"{start}canary"] = error or ModelUnavailable()
            if pipeline.models.rejected is not None:
                warnings.setdefault(f"{start}model", pipeline.models.rejected)
        return checks, warnings

    async def render_metrics(self) -> bytes:
        """Return all metrics, with the current state of the model server."""
        await asyncio.gather(*(pipeline.readiness.refresh() for pipeline in self.pipelines.values()))
        return self._metrics.render()
