"""The steps of one photo: bytes -> pixels -> prediction, within one deadline, for one version of the model."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from preprocess_service.app.config import Config
from preprocess_service.app.errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded, ServiceError
from preprocess_service.app.imaging.resize import Pixels
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.decoder_pool import DecoderPool
from preprocess_service.app.inference.decoder_threads import DecoderThreads
from preprocess_service.app.inference.model_versions import Canary, ModelVersions, Source
from preprocess_service.app.inference.second_look import combine, find_box, is_wanted
from preprocess_service.app.observability.metrics import Metrics, SecondLookResult
from preprocess_service.app.observability.readiness import PROBE_SECONDS, ReadinessProbe
from preprocess_service.app.recipe import Box, Geometry, Golden
from preprocess_service.app.serving_client.model_version import AnotherVersion, ModelVersion
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.utils import Photo, Prepared
from serving_common.cpu_quota import usable_cores

# Enough for a model server on a machine of the same size: while it computes a batch, the next one is on its way and the
# one after that is ready. All other photos wait as received, which takes less memory: a JPEG has 40 KB, its pixels
# 0.2 MB, and once or four times as much again in a request.
PREPARED_PER_CORE = 12
# How many times a photo is sent if the version changes meanwhile.
_ATTEMPTS = 4
# No second look is taken while more than this share of the photos that may be in flight are, nor for so many seconds
# after the model server rejected a photo because its queue was full.
_BUSY_SHARE = 0.5
_BUSY_SECONDS = 1.0

Looked = TypeVar("Looked")
Prepare = Callable[[Geometry], Awaitable[Prepared]]


class Runner(Source, Protocol):
    """The part of ``ModelRunner`` that the pipeline uses. Tests replace it."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def predict(
        self, pixels: Pixels, model: ModelVersion, timeout: float, request_id: str = ""
    ) -> Prediction: ...


class Preparation:
    """Prepares photos for all models, and limits how many are prepared.

    Photos are prepared outside the event loop, so that it never waits for Pillow: small JPEGs in a bounded thread
    pool, all other pictures in processes.
    """

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._batch_share = config.limits.photos_per_request
        self.in_flight, self._busy_at = 0, _BUSY_SHARE * config.limits.photos_in_flight
        # Until when the model server counts as busy (``time.monotonic``).
        self.busy_until = -float("inf")
        self._prepared_slots = asyncio.Semaphore(config.limits.prepared or PREPARED_PER_CORE * usable_cores())
        # A set: a photo is removed by the thread that starts with it, and a second time at the end of its block.
        self._waiting: set[object] = set()
        self._small_jpegs = DecoderThreads(config)
        self._decoders = DecoderPool(config, metrics)
        metrics.queue_length.set_function(lambda: len(self._waiting))
        metrics.in_flight.set_function(lambda: self.in_flight)

    async def close(self) -> None:
        self._small_jpegs.close()
        await self._decoders.close()

    async def check(self) -> ServiceError | None:
        """Return why pictures can't be decoded, or None if they can."""
        return await self._decoders.check(PROBE_SECONDS)

    def is_busy(self) -> bool:
        return self.in_flight > self._busy_at or time.monotonic() < self.busy_until

    async def in_slot(self, context: RequestContext, look: Callable[[Callable[[], None]], Awaitable[Looked]]) -> Looked:
        """Wait until a photo may be prepared, and count it as in flight while ``look`` runs.

        Args:
            look: called with the function to call when a thread or process begins with the photo.
        """
        # Limits how many photos of one batch are in flight, so that other requests get their share.
        async with context.semaphore("photos", self._batch_share):
            self.in_flight += 1
            try:
                with self._queued(context) as leave_queue:
                    async with self._prepared_slots:
                        return await look(leave_queue)
            finally:
                self.in_flight -= 1

    @contextmanager
    def _queued(self, context: RequestContext) -> Iterator[Callable[[], None]]:
        """Count the photo of this block as waiting until the yielded function is called, or until the block ends."""
        waits, since = object(), time.monotonic()

        def leave() -> None:
            if waits in self._waiting:
                self._waiting.discard(waits)
                context.record_stage("queue", time.monotonic() - since)

        self._waiting.add(waits)
        try:
            yield leave
        finally:
            self._waiting.discard(waits)

    async def prepared(
        self, photo: Photo, context: RequestContext, leave_queue: Callable[[], None], geometry: Geometry
    ) -> Prepared:
        found = await self._small_jpegs.decode(photo, context, geometry, leave_queue)
        if found is not None:
            return found
        return await self._decoders.decode(photo, context, geometry, leave_queue)


class Pipeline:
    """Prepares photos and sends them to one model.

    Args:
        config: its first model is the pipeline's.
        preparation: shared by the pipelines of all models.
    """

    def __init__(self, config: Config, runner: Runner, metrics: Metrics, preparation: Preparation) -> None:
        self.config = config
        self.runner = runner
        self.metrics = metrics.of_model(config.experiment_id)
        name, canary = config.experiment_id, config.canary_of(config.experiment_id)
        self.canary: Canary | None = None
        if canary is None:
            self.models = ModelVersions(runner, self._classify_golden, name)
        else:
            self.models = ModelVersions(runner, self._classify_golden, name, lambda it: it != canary.version)
            only = ModelVersions(runner, self._classify_golden, name, lambda it: it == canary.version)
            self.canary = made = Canary(only, canary.share)
            self.metrics.watch_canary(lambda: made.usable() is not None)
        self.readiness = ReadinessProbe(self.models, self._predict_grey, self.metrics, config.experiment_id)
        self.preparation = preparation

    async def close(self) -> None:
        await self.readiness.close()
        await self.models.close()
        if self.canary:
            await self.canary.versions.close()

    async def classify(self, photo: Photo, context: RequestContext) -> Prediction:
        """Return the prediction for a photo.

        Raises:
            ServiceError: its class and message say what failed.
        """
        with context.first_look():
            model, first = await self.preparation.in_slot(
                context,
                lambda leave: self._first_look(partial(self.preparation.prepared, photo, context, leave), context),
            )
        self.readiness.record_prediction()
        prediction = await self._look_again(photo, context, model, first)
        self.metrics.record_prediction(prediction.label, prediction.model_version)
        return prediction

    async def _first_look(self, prepare: Prepare, context: RequestContext) -> tuple[ModelVersion, Prediction]:
        """Ask the canary if the photo is for it, and the version in use for all others and if the canary fails."""
        model = self.canary and self.canary.draw()
        if self.canary and model:
            try:
                pixels, size = await prepare(model.geometry)
                with context.stage("model"):
                    found = await self.runner.predict(pixels, model, context.remaining(), context.request_id)
                return model, replace(found, size=size, geometry=model.geometry)
            except (ModelError, AnotherVersion):
                self.metrics.record_canary_failure()
                # It is read and checked again before it gets another photo.
                self.canary.versions.doubt(model)
        return await self._ask(prepare, context)

    async def _look_again(
        self, photo: Photo, context: RequestContext, model: ModelVersion, first: Prediction
    ) -> Prediction:
        """Return the prediction of two looks if the recipe asks for a second one, else the first one.

        A second look never causes an error or a late answer. If it can't be taken, the first look is the answer.
        """
        # The recipe of another version may ask for something else.
        settings = model.second_look if self.config.second_look and first.model_version == model.version else None
        if settings is None or first.attention is None or not is_wanted(first, settings):
            return first
        result: SecondLookResult = "failed"
        prediction, box = first, find_box(first.attention, settings)
        try:
            again = await context.second_looks()
            if self.preparation.is_busy():
                result = "busy"
            else:
                with context.stage("second_look"):
                    second = await self._look_at(photo, again, model, box)
                if second.model_version == first.model_version:
                    prediction = replace(combine(first, second, settings), box=box)
                    result = "kept" if prediction.label == first.label else "changed"
        except DeadlineExceeded:
            result = "late"
        except (ServiceError, AnotherVersion):
            pass
        self.metrics.record_second_look(result)
        return prediction

    async def _look_at(self, photo: Photo, context: RequestContext, model: ModelVersion, box: Box) -> Prediction:
        """Return the prediction for a part of a photo, which is decoded again: until now its pixels were not needed."""
        geometry = model.geometry.model_copy(update={"box": box})

        async def look(leave_queue: Callable[[], None]) -> Prediction:
            pixels, _ = await self.preparation.prepared(photo, context, leave_queue, geometry)
            with context.stage("model"):
                return await self.runner.predict(pixels, model, context.remaining(), context.request_id)

        async with context.deadline():
            return await self.preparation.in_slot(context, look)

    async def _predict_grey(self, timeout: float, request_id: str) -> None:
        async def prepare(geometry: Geometry) -> Prepared:
            pixels = np.full((geometry.height, geometry.width, 3), 127, geometry.dtype)
            return Prepared(pixels, (geometry.width, geometry.height))

        await self._ask(prepare, RequestContext(request_id, timeout))

    async def _ask(self, prepare: Prepare, context: RequestContext) -> tuple[ModelVersion, Prediction]:
        """Ask the model version in use. If another version has replaced it, ask that one."""
        model = await self.models.current(context.remaining())
        pixels, size = await prepare(model.geometry)
        for _ in range(_ATTEMPTS):
            try:
                with context.stage("model"):
                    found = await self.runner.predict(pixels, model, context.remaining(), context.request_id)
                return model, replace(found, size=size, geometry=model.geometry)
            except AnotherVersion as exc:
                other = await self.models.replacement(model, context.remaining(), exc.version)
            except ModelError:
                self.models.doubt(model)
                other = await self.models.replacement(model, context.remaining(), None)
                if other.recipe == model.recipe and other.takes_the_same(model):
                    raise
            except ModelUnavailable:
                self.models.suspect()
                raise
            except Overloaded:
                self.preparation.busy_until = time.monotonic() + _BUSY_SECONDS
                raise
            if other.geometry != model.geometry:
                pixels, size = await prepare(other.geometry)
            model = other
        raise ModelUnavailable("model_changes")

    async def _classify_golden(self, golden: Golden, model: ModelVersion, timeout: float) -> Prediction:
        context = RequestContext("golden", timeout)
        # Without a slot: photos that hold a slot wait for this check.
        pixels, _ = await self.preparation.prepared(golden.photo, context, lambda: None, model.geometry)
        return await self.runner.predict(pixels, model, context.remaining(), context.request_id)
