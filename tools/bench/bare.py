"""The same two processes with only the necessary code: no validation, no limits, no logs.

    python -m tools.bench.bare

It reads the settings of the preprocess service, config.yaml and environment. A bare ASGI app expects a valid body. It
decodes the photo in as many threads, calls the same ModelRunner, and answers. It has no framework, rejection, log,
metric or trace. The difference between this and the limit is the cost of two processes, HTTP and gRPC in Python. The
difference between this and the service is the cost of everything else that the service does.
"""

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn

from preprocess_service.app.config import Config, load_config
from preprocess_service.app.imaging.resize import Pixels, resize
from preprocess_service.app.inference.pipeline import PREPARED_PER_CORE
from preprocess_service.app.model_runner import ModelRunner
from preprocess_service.app.serving_client.model_version import ModelVersion
from preprocess_service.app.utils import decode_base64, decode_image
from serving_common.cpu_quota import usable_cores
from serving_common.malloc import configure_malloc
from tools import service  # noqa: F401 - finds the service's modules below

TIMEOUT_S = 10.0


class Bare:
    """An ASGI app with one route, whatever its path."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._runner = ModelRunner(config)
        self._threads = ThreadPoolExecutor(usable_cores())
        self._model: ModelVersion | None = None
        self._slots = asyncio.Semaphore(PREPARED_PER_CORE * usable_cores())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle the lifespan events, and answer every request as if it were valid."""
        if scope["type"] == "lifespan":
            await receive()
            await self._runner.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._runner.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, is_whole = b"", False
        while not is_whole:
            message = await receive()
            body += message["body"]
            is_whole = not message["more_body"]
        async with self._slots:
            model = self._model or await self._find_model()
            pixels = await asyncio.get_running_loop().run_in_executor(self._threads, self._prepare, body, model)
            prediction = await self._runner.predict(pixels, model, TIMEOUT_S)
        confidence = round(100 * prediction.probabilities[prediction.label], 2)
        answer = json.dumps({"pet_type": prediction.label, "model_conf": confidence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _find_model(self) -> ModelVersion:
        (newest, *_) = await self._runner.available(TIMEOUT_S)
        self._model = await self._runner.load(newest, TIMEOUT_S)
        return self._model

    def _prepare(self, body: bytes, model: ModelVersion) -> Pixels:
        photo = decode_base64(json.loads(body)["image_b64"])
        return resize(decode_image(photo, self._config.limits.pixels, model.geometry), model.geometry)


def main() -> int:
    config = load_config(os.environ)
    configure_malloc(mmap_threshold=1 << 20, trim_threshold=16 << 20)
    uvicorn.run(Bare(config), port=config.server.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
