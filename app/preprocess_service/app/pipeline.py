"""What happens to one photo: body -> tensor -> prediction, within one deadline."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from config import Config
from errors import DeadlineExceeded, ServiceError
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


class Pipeline:
    """Prepares photos in a bounded thread pool, so that the event loop never waits for Pillow, and asks the model."""

    def __init__(self, config: Config, runner: Runner) -> None:
        self.config = config
        self.runner = runner
        self._threads = ThreadPoolExecutor(config.limits.decode_threads or os.cpu_count(), "decode")

    async def open(self) -> None:
        await self.runner.open()

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.runner.close()

    async def classify(self, image_b64: str) -> Prediction:
        """Say what is in a photo.

        Raises:
            ServiceError: the one that names the step that failed.
        """
        seconds = self.config.limits.deadline_seconds
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                loop = asyncio.get_running_loop()
                tensor = await loop.run_in_executor(self._threads, self._prepare, image_b64)
                return await self.runner.predict(tensor, deadline - time.monotonic())
        except TimeoutError as exc:
            raise DeadlineExceeded("The answer did not come in time. Try again in a moment.") from exc

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

    def _prepare(self, image_b64: str) -> NDArray[np.float32]:
        image = decode_image(decode_base64(image_b64), self.config.limits.pixels)
        return to_tensor(image, self.config.picture)
