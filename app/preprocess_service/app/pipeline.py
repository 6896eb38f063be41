"""What happens to one photo: bytes -> tensor -> prediction, within one deadline."""

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from budget import PixelBudget
from config import Config
from errors import DeadlineExceeded, ServiceError
from intake import Photo
from model_runner import Prediction, Signature
from numpy.typing import NDArray
from utils import decode_base64, decode_image, to_tensor

# A probe that waits longer than this is of no use to whoever sent it; orchestrators wait 1 to 5 s.
PROBE_SECONDS = 2.0


class Runner(Protocol):
    """What the pipeline needs of a ``ModelRunner``; a test brings its own."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def predict(self, tensor: NDArray[np.float32], timeout: float) -> Prediction: ...
    async def model_version(self, timeout: float) -> int: ...
    async def signature(self, timeout: float) -> Signature: ...


class Steps:
    """Seconds that each step of a request took."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what runs in this block for ``name``."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - start

    def server_timing(self) -> str:
        """The Server-Timing header: every step and the total so far, in milliseconds."""
        seconds = self.seconds | {"total": time.monotonic() - self._start}
        return ", ".join(f"{name};dur={1000 * value:.1f}" for name, value in seconds.items())


class Pipeline:
    """Prepares photos in a bounded thread pool, so that the event loop never waits for Pillow, and asks the model."""

    def __init__(self, config: Config, runner: Runner) -> None:
        self.config = config
        self.runner = runner
        # The biggest photo that is taken, or many small ones, at the same time.
        self._budget = PixelBudget(config.limits.pixels)
        self._threads = ThreadPoolExecutor(config.limits.decode_threads or os.cpu_count(), "decode")

    async def open(self) -> None:
        await self.runner.open()

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.runner.close()

    async def classify(self, photo: Photo, steps: Steps) -> Prediction:
        """Say what is in a photo.

        Raises:
            ServiceError: the one that names the step that failed.
        """
        seconds = self.config.limits.deadline_seconds
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                loop = asyncio.get_running_loop()
                tensor = await loop.run_in_executor(self._threads, self._prepare, photo, steps)
                with steps.step("model"):
                    return await self.runner.predict(tensor, deadline - time.monotonic())
        except TimeoutError as exc:
            raise DeadlineExceeded from exc

    async def check(self) -> dict[str, ServiceError | None]:
        """Try what a request needs: the model is AVAILABLE, and a prediction (of a grey picture) comes back."""
        checks: dict[str, ServiceError | None] = {}
        grey = np.zeros((self.config.picture.height, self.config.picture.width, 3), np.float32)
        try:
            step = "model"
            await self.runner.model_version(PROBE_SECONDS)
            checks[step] = None
            step = "prediction"
            await self.runner.predict(grey, PROBE_SECONDS)
            checks[step] = None
        except ServiceError as exc:
            checks[step] = exc
        return checks

    def _prepare(self, photo: Photo, steps: Steps) -> NDArray[np.float32]:
        picture = self.config.picture
        with steps.step("decode"):
            data = decode_base64(photo) if isinstance(photo, str) else photo
            image = decode_image(data, self.config.limits.pixels, picture, self._budget)
        with steps.step("fit"):
            return to_tensor(image, picture)
