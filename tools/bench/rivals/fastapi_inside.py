"""One FastAPI process with the engine inside: no second service, no wire between them, no bounds.

python fastapi_inside.py PORT

A stream of the engine for each core, since one process can let several calls compute side by side.
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
    """A photo in base64."""

    image_b64: str


def create_app(asked: dict[str, Any]) -> FastAPI:
    """Decodes and computes in as many threads as the engine computes calls, and one that is ready when one ends."""
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
