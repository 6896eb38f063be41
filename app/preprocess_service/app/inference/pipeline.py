"""What happens to one photo: bytes -> pixels -> prediction, within one deadline, for one version of the model."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from PIL import Image

from preprocess_service.app.config import Config
from preprocess_service.app.errors import ModelError, ModelUnavailable, Overloaded, ServiceError
from preprocess_service.app.imaging.decode_cost import first_scan
from preprocess_service.app.imaging.resize import Pixels, resize
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.decoder_pool import DecoderPool
from preprocess_service.app.inference.model_versions import ModelVersions, Source
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.observability.readiness import PROBE_SECONDS, Checks, ReadinessProbe
from preprocess_service.app.recipe import Geometry, Golden
from preprocess_service.app.serving_client.model_version import AnotherVersion, ModelVersion
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.utils import Header, Photo, decode_base64, decode_open, open_image
from serving_common.cpu_quota import usable_cores

# Enough that, while a model server on a machine of the same size computes, the next batch is on its way to it and the
# one after that is ready. What waits beyond that waits as it came: a JPEG of 40 KB, where its pixels take 0.2 MB, and
# as much or four times that again on their way.
PREPARED_PER_CORE = 12
# What a JPEG has at most that is decoded in a thread, which nothing can interrupt: it takes a few milliseconds, a few
# tens if its file is made to take long. All others, and all other formats, are decoded in a process.
SMALL_BYTES = 100_000
_SMALL_PIXELS = 500_000
# What is 7 pixels wide takes much memory to resize.
_SMALL_SIDE = 8_000
# Pillow copies each EXIF entry, and they may overlap: of so many bytes before the pixels, some 20 MB at most.
_SMALL_METADATA_BYTES = 16_000
_JPEG = b"\xff\xd8\xff"
# Its first bytes in base64, perhaps behind the prefix of a data: URL.
_JPEG_BASE64 = "/9j/"
_PREFIX_CHARACTERS = 100
# How often a photo is asked about where the version changes meanwhile.
_ATTEMPTS = 4


class Runner(Source, Protocol):
    """What the pipeline needs of a ``ModelRunner``; a test brings its own."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def predict(
        self, pixels: Pixels, model: ModelVersion, timeout: float, request_id: str = ""
    ) -> Prediction: ...


class Pipeline:
    """Prepares photos outside of the event loop, which so never waits for Pillow, and asks the model.

    Small JPEGs are prepared in a bounded thread pool, all other pictures in processes.
    """

    def __init__(self, config: Config, runner: Runner, metrics: Metrics) -> None:
        self.config = config
        self.runner = runner
        self.metrics = metrics
        self.is_draining = False
        self.models = ModelVersions(runner, self._classify_golden)
        self._readiness = ReadinessProbe(self.models, self._predict_grey, metrics)
        self._batch_share = config.limits.photos_per_request
        self._prepared_slots = asyncio.Semaphore(config.limits.prepared or PREPARED_PER_CORE * usable_cores())
        # A set, since a photo leaves it in whichever thread begins with it, and once more if it never came to that.
        self._waiting: set[object] = set()
        self._threads = ThreadPoolExecutor(config.limits.decode_threads or usable_cores(), "decode")
        self._decoders = DecoderPool(config, metrics)
        metrics.queue_length.set_function(lambda: len(self._waiting))

    async def open(self) -> None:
        await self.runner.open()

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._decoders.close()
        await self._readiness.close()
        await self.models.close()
        await self.runner.close()

    async def classify(self, photo: Photo, context: RequestContext) -> Prediction:
        """Say what is in a photo.

        Raises:
            ServiceError: the one that names what failed.
        """
        # Of a batch only so many photos are in flight at a time, so that photos of others are too.
        async with context.semaphore("photos", self._batch_share):
            with self.metrics.in_flight.track_inprogress(), self._queued(context) as leave_queue:
                async with self._prepared_slots:
                    prediction = await self._predict(photo, context, leave_queue)
        self._readiness.record_prediction()
        self.metrics.record_prediction(prediction.label, prediction.model_version)
        return prediction

    async def _predict(self, photo: Photo, context: RequestContext, leave_queue: Callable[[], None]) -> Prediction:
        def prepare(geometry: Geometry) -> Awaitable[Pixels]:
            return self._prepared(photo, context, geometry, leave_queue)

        return await self._ask(prepare, context)

    async def _predict_grey(self, timeout: float, request_id: str) -> None:
        async def prepare(geometry: Geometry) -> Pixels:
            return np.full((geometry.height, geometry.width, 3), 127, geometry.dtype)

        await self._ask(prepare, RequestContext(request_id, timeout))

    async def _ask(self, prepare: Callable[[Geometry], Awaitable[Pixels]], context: RequestContext) -> Prediction:
        """Ask the model in use, and once more where another version has taken its place."""
        model = await self.models.current(context.remaining())
        pixels = await prepare(model.geometry)
        for _ in range(_ATTEMPTS):
            try:
                with context.stage("model"):
                    return await self.runner.predict(pixels, model, context.remaining(), context.request_id)
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
            if other.geometry != model.geometry:
                pixels = await prepare(other.geometry)
            model = other
        raise ModelUnavailable("model_changes")

    async def _classify_golden(self, golden: Golden, model: ModelVersion, timeout: float) -> Prediction:
        context = RequestContext("golden", timeout)
        # Without a slot: photos that have one wait for this.
        pixels = await self._prepared(golden.photo, context, model.geometry, lambda: None)
        return await self.runner.predict(pixels, model, context.remaining(), context.request_id)

    async def check(self) -> Checks:
        """Try what a request needs: this process stays, its decoders start, the model is AVAILABLE and predicts."""
        decoders, checks = await asyncio.gather(self._decoders.check(PROBE_SECONDS), self._readiness.check())
        return {"process": Overloaded("draining") if self.is_draining else decoders, **checks}

    async def render_metrics(self) -> bytes:
        """Everything that is counted, with the state of the model server as it is now."""
        await self._readiness.refresh()
        return self.metrics.render()

    @contextmanager
    def _queued(self, context: RequestContext) -> Iterator[Callable[[], None]]:
        """The photo of this block waits until the function that this gives is called."""
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

    async def _prepared(
        self, photo: Photo, context: RequestContext, geometry: Geometry, leave_queue: Callable[[], None]
    ) -> Pixels:
        if _may_be_small_jpeg(photo):
            loop = asyncio.get_running_loop()
            try:
                pixels = await loop.run_in_executor(self._threads, self._prepare, photo, context, geometry, leave_queue)
            except asyncio.CancelledError:
                # A thread that has begun can't be stopped from here; it looks before each costly stage.
                context.cancel()
                raise
            if pixels is not None:
                return pixels
        return await self._decoders.decode(photo, context, geometry, leave_queue)

    def _prepare(
        self, photo: Photo, context: RequestContext, geometry: Geometry, leave_queue: Callable[[], None]
    ) -> Pixels | None:
        """The pixels of a photo, or None where it is not small after all."""
        leave_queue()
        try:
            return self._pixels(photo, context, geometry)
        except ServiceError as exc:
            # The traceback has the picture, and everything that the exception passes through on its way out.
            exc.__context__ = None
            raise exc.with_traceback(None) from None

    def _pixels(self, photo: Photo, context: RequestContext, geometry: Geometry) -> Pixels | None:
        # It may have waited for a thread until nobody wants the answer any more.
        context.remaining()
        with context.stage("decode"):
            image = self._decoded(decode_base64(photo) if isinstance(photo, str) else photo, context, geometry)
        if image is None:
            return None
        context.remaining()
        with context.stage("resize"):
            return resize(image, geometry)

    def _decoded(self, data: bytes, context: RequestContext, geometry: Geometry) -> Image.Image | None:
        # A function of its own: the whole picture is freed at its end, and its memory is there for the next step.
        if not (data.startswith(_JPEG) and 0 < first_scan(data) < _SMALL_METADATA_BYTES):
            return None
        headers: list[Header] = []
        try:
            with open_image(data, self.config.limits.pixels, geometry, headers.append) as opened:
                size = (headers[0].width, headers[0].height)
                if not opened.one_scan or size[0] * size[1] > _SMALL_PIXELS or max(size) > _SMALL_SIDE:
                    headers.clear()
                    return None
                return decode_open(opened, geometry)
        finally:
            context.images += [(header.format, header.width, header.height) for header in headers]


def _may_be_small_jpeg(photo: Photo) -> bool:
    if isinstance(photo, str):
        return len(photo) * 3 <= SMALL_BYTES * 4 and _JPEG_BASE64 in photo[:_PREFIX_CHARACTERS]
    return len(photo) <= SMALL_BYTES and photo.startswith(_JPEG)
