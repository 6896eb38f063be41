"""What happens to one photo: bytes -> pixels -> prediction, within one deadline."""

import asyncio
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from batcher import Batcher
from budget import PixelBudget, Room
from config import Config
from errors import Overloaded
from intake import Photo
from job import Job
from metrics import Metrics
from numpy.typing import NDArray
from predictions import Prediction
from probe import Checks, Probe
from processors import usable_cores
from signature import Signature
from utils import QUICK_BYTES, decode_base64, decode_image, is_quick, to_pixels

# Enough that, while a model server on a machine of the same size computes, the next batch is on its way to it and the
# one after that is ready. What waits beyond that waits as it came: a JPEG of 40 KB, where its pixels take 0.2 MB, and
# as much or four times that again on their way.
PREPARED_PER_CORE = 12
# Photos that wait for a thread are prepared together, up to four of them: each time that a thread has something for the
# event loop, both wait for the interpreter's lock in turn. Fewer where they are large, since each waits for the last.
_TOGETHER_BYTES = 400_000
_LEAST_BYTES = _TOGETHER_BYTES // 4


class Runner(Protocol):
    """What the pipeline needs of a ``ModelRunner``; a test brings its own."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def predict(self, pixels: NDArray[np.uint8], timeout: float, request_id: str = "") -> Prediction: ...
    async def model_version(self, timeout: float) -> int: ...
    async def signature(self, timeout: float) -> Signature: ...


@dataclass(frozen=True, eq=False)
class _Raw:
    """A photo as it came, which waits for a thread; ``leave_queue`` is called when one begins with it."""

    photo: Photo
    job: Job
    leave_queue: Callable[[], None]


class Pipeline:
    """Prepares photos in a bounded thread pool, so that the event loop never waits long for Pillow, and asks the model.

    A photo that is alone here, and quick to prepare, is not handed to a thread: to wake that, and the loop again
    afterwards, would only add to its time.
    """

    def __init__(self, config: Config, runner: Runner, metrics: Metrics) -> None:
        self.config = config
        self.runner = runner
        self.metrics = metrics
        self.is_draining = False
        # The biggest photo that is taken, or many small ones, at the same time.
        self._budget = PixelBudget(config.limits.pixels)
        self._probe = Probe(runner, config.picture, metrics)
        self._places = asyncio.Semaphore(config.limits.prepared or PREPARED_PER_CORE * usable_cores())
        # A set, since a photo leaves it in whichever thread begins with it, and once more if it never came to that.
        self._waiting: set[object] = set()
        self._under_way = 0
        threads = config.limits.decode_threads or usable_cores()
        self._threads = ThreadPoolExecutor(threads, "decode")
        self._decoder = Batcher(
            self._prepare_together, threads, _TOGETHER_BYTES, lambda raw: max(_LEAST_BYTES, len(raw.photo))
        )
        metrics.queue_length.set_function(lambda: len(self._waiting))
        self._of_label = {label: metrics.predictions.labels(label) for label in config.labels}

    async def open(self) -> None:
        await self.runner.open()

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._probe.close()
        await self.runner.close()

    async def classify(self, photo: Photo, job: Job) -> Prediction:
        """Say what is in a photo.

        Raises:
            ServiceError: the one that names the step that failed.
        """
        with self.metrics.in_flight.track_inprogress(), self._queued(job) as leave_queue:
            async with self._places:
                pixels = await self._prepared(_Raw(photo, job, leave_queue))
                with job.step("model"):
                    prediction = await self.runner.predict(pixels, job.remaining(), job.request_id)
        self._probe.answered()
        self.metrics.model_version.set(prediction.model_version)
        self._of_label[prediction.label].inc()
        return prediction

    async def check(self) -> Checks:
        """Try what a request needs: this process stays, the model is AVAILABLE, a prediction (of grey) comes back."""
        checks = await self._probe.check()
        return {"process": Overloaded("draining") if self.is_draining else None, **checks}

    async def render_metrics(self) -> bytes:
        """Everything that is counted, with the state of the model server as it is now."""
        await self._probe.refresh()
        return self.metrics.render()

    @contextmanager
    def _queued(self, job: Job) -> Iterator[Callable[[], None]]:
        """The photo of this block is under way, and waits until what is given is called by whoever begins with it."""
        waits, since = object(), time.monotonic()

        def leave() -> None:
            self._waiting.discard(waits)
            job.took("queue", time.monotonic() - since)

        self._waiting.add(waits)
        self._under_way += 1
        try:
            yield leave
        finally:
            self._under_way -= 1
            self._waiting.discard(waits)

    async def _prepared(self, raw: _Raw) -> NDArray[np.uint8]:
        if self._under_way == 1 and len(raw.photo) <= QUICK_BYTES:
            data = _bytes_of(raw.photo)
            if is_quick(data):
                raw.leave_queue()
                # No room is asked for: a thread may hold it still for a sender who has left.
                return self._pixels(data, raw.job)
        try:
            return await self._decoder.submit(raw)
        except asyncio.CancelledError:
            # A thread that has begun can't be stopped from here; it looks before each costly step.
            raw.job.drop()
            raise

    async def _prepare_together(self, raws: Sequence[_Raw]) -> Sequence[NDArray[np.uint8] | Exception]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: [self._prepare(raw) for raw in raws])

    def _prepare(self, raw: _Raw) -> NDArray[np.uint8] | Exception:
        raw.leave_queue()
        try:
            return self._pixels(raw.photo, raw.job, functools.partial(self._budget.take, check=raw.job.remaining))
        except Exception as exc:
            return exc

    def _pixels(self, photo: Photo, job: Job, room: Room | None = None) -> NDArray[np.uint8]:
        picture = self.config.picture
        # It may have waited for a thread until nobody wants the answer any more.
        job.remaining()
        with job.step("decode"):
            data = _bytes_of(photo)
            image = decode_image(data, self.config.limits.pixels, picture, room, job.pictures.append)
        job.remaining()
        with job.step("fit"):
            return to_pixels(image, picture)


def _bytes_of(photo: Photo) -> bytes:
    return decode_base64(photo) if isinstance(photo, str) else photo
