"""The steps of one photo: bytes -> pixels -> prediction, within one deadline, for one version of the model."""

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

# Enough for a model server on a machine of the same size: while it computes a batch, the next one is on its way and the
# one after that is ready. All other photos wait as received, which takes less memory: a JPEG has 40 KB, its pixels
# 0.2 MB, and once or four times as much again in a request.
PREPARED_PER_CORE = 12
# The limits of a JPEG that is decoded in a thread. Nothing can interrupt a thread. Such a JPEG takes a few
# milliseconds, or a few tens if its file is hostile. All other JPEGs, and other formats, are decoded in a process.
SMALL_BYTES = 100_000
_SMALL_PIXELS = 500_000
# A long picture that is only 7 pixels wide takes much memory to resize.
_SMALL_SIDE = 8_000
# Pillow copies each EXIF entry, and entries may overlap. With this many bytes before the pixels, the copies take about
# 20 MB at most.
_SMALL_METADATA_BYTES = 16_000
_JPEG = b"\xff\xd8\xff"
# The first bytes of a JPEG in base64. The prefix of a data: URL may come before them.
_JPEG_BASE64 = "/9j/"
_PREFIX_CHARACTERS = 100
# How many times a photo is sent if the version changes meanwhile.
_ATTEMPTS = 4


class Runner(Source, Protocol):
    """The part of ``ModelRunner`` that the pipeline uses. Tests replace it."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def predict(
        self, pixels: Pixels, model: ModelVersion, timeout: float, request_id: str = ""
    ) -> Prediction: ...


class Pipeline:
    """Prepares photos and sends them to the model.

    Photos are prepared outside the event loop, so that it never waits for Pillow: small JPEGs in a bounded thread
    pool, all other pictures in processes.
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
        # A set: a photo is removed by the thread that starts with it, and a second time at the end of its block.
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
        """Return the prediction for a photo.

        Raises:
            ServiceError: its class and message say what failed.
        """
        # Limits how many photos of one batch are in flight, so that other requests get their share.
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
        """Ask the model version in use. If another version has replaced it, ask that one."""
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
        # Without a slot: photos that hold a slot wait for this check.
        pixels = await self._prepared(golden.photo, context, model.geometry, lambda: None)
        return await self.runner.predict(pixels, model, context.remaining(), context.request_id)

    async def check(self) -> Checks:
        """Check what requests need: the service does not drain, decoders start, the model is AVAILABLE and predicts."""
        decoders, checks = await asyncio.gather(self._decoders.check(PROBE_SECONDS), self._readiness.check())
        return {"process": Overloaded("draining") if self.is_draining else decoders, **checks}

    async def render_metrics(self) -> bytes:
        """Return all metrics, with the current state of the model server."""
        await self._readiness.refresh()
        return self.metrics.render()

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

    async def _prepared(
        self, photo: Photo, context: RequestContext, geometry: Geometry, leave_queue: Callable[[], None]
    ) -> Pixels:
        if _may_be_small_jpeg(photo):
            loop = asyncio.get_running_loop()
            try:
                pixels = await loop.run_in_executor(self._threads, self._prepare, photo, context, geometry, leave_queue)
            except asyncio.CancelledError:
                # A thread that has started can't be stopped. It checks for this before each costly stage.
                context.cancel()
                raise
            if pixels is not None:
                return pixels
        return await self._decoders.decode(photo, context, geometry, leave_queue)

    def _prepare(
        self, photo: Photo, context: RequestContext, geometry: Geometry, leave_queue: Callable[[], None]
    ) -> Pixels | None:
        """Return the pixels of a photo, or None if its header shows that it is not small."""
        leave_queue()
        try:
            return self._pixels(photo, context, geometry)
        except ServiceError as exc:
            # The traceback would keep the picture in memory, and all frames that the exception passes through.
            exc.__context__ = None
            raise exc.with_traceback(None) from None

    def _pixels(self, photo: Photo, context: RequestContext, geometry: Geometry) -> Pixels | None:
        # The deadline may have passed, or the client disconnected, while the photo waited for a thread.
        context.remaining()
        with context.stage("decode"):
            image = self._decoded(decode_base64(photo) if isinstance(photo, str) else photo, context, geometry)
        if image is None:
            return None
        context.remaining()
        with context.stage("resize"):
            return resize(image, geometry)

    def _decoded(self, data: bytes, context: RequestContext, geometry: Geometry) -> Image.Image | None:
        # A separate function, so that the whole picture is freed at its end, before the next step needs memory.
        if not (data.startswith(_JPEG) and 0 < first_scan(data) < _SMALL_METADATA_BYTES):
            return None
        headers: list[Header] = []
        try:
            with open_image(data, self.config.limits.pixels, geometry, headers.append) as opened:
                size = (headers[0].width, headers[0].height)
                if not opened.one_scan or size[0] * size[1] > _SMALL_PIXELS or max(size) > _SMALL_SIDE:
                    headers.clear()
                    return None
                return decode_open(opened, geometry)[0]
        finally:
            context.images += [(header.format, header.width, header.height) for header in headers]


def _may_be_small_jpeg(photo: Photo) -> bool:
    if isinstance(photo, str):
        return len(photo) * 3 <= SMALL_BYTES * 4 and _JPEG_BASE64 in photo[:_PREFIX_CHARACTERS]
    return len(photo) <= SMALL_BYTES and photo.startswith(_JPEG)
