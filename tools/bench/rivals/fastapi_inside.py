"""One FastAPI process that contains the engine: no second service, no gRPC, no limits.

python fastapi_inside.py PORT

The engine has one stream per core, so several calls are computed in parallel.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import classifier
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Photo(BaseModel):
    """The request: a photo in base64."""

    image_b64: str


def create_app(asked: dict[str, Any]) -> FastAPI:
    """Return the app. It has one thread per stream of the engine, and one more, so that the next photo is ready."""
    predict = classifier.load(asked)
    prepare = classifier.Preparation(asked["picture"])
    threads = ThreadPoolExecutor(asked["streams"] + 1)
    app = FastAPI()

    def classify(image_b64: str) -> dict[str, Any]:
        return classifier.answer(predict(prepare(image_b64)[None])[0], asked["labels"])

    @app.post("/predict")
    async def predict_photo(photo: Photo) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(threads, classify, photo.image_b64)

    return app


if __name__ == "__main__":
    application = create_app(classifier.settings())
    uvicorn.run(application, port=int(sys.argv[1]), log_level="warning", access_log=False)
