"""The microservice of the course: a photo comes in as base64, CAT or DOG goes out.

    python course/app_server.py

It is plain on purpose: it is right on a good day and has no protection against a bad one. Chapter 5 of the course shows
what breaks it. The service to put to work is app/preprocess_service.
"""

from enum import StrEnum

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from model_runner import ModelRunner
from utils import is_image


class Status(StrEnum):
    """Whether there is an answer."""

    SUCCESS = "Success"
    FAILED = "Failed"


class PredictRequest(BaseModel):
    """What a client sends."""

    image_b64: str


class Answer(BaseModel):
    """What a client gets: the label and how sure the model is, in percent; or what is wrong."""

    status: Status
    pet_type: str | None = None
    model_conf: float | None = None
    msg: str | None = None


runner = ModelRunner()
app = FastAPI(title="Cat or dog?")


@app.post("/predict", response_model_exclude_none=True)
async def predict(request: PredictRequest, response: Response) -> Answer:
    """Classify a photo."""
    if not is_image(request.image_b64):
        response.status_code = 400
        return Answer(status=Status.FAILED, msg="Image base64 invalid")
    pet_type, model_conf = runner.predict(request.image_b64)
    return Answer(status=Status.SUCCESS, pet_type=pet_type, model_conf=model_conf)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=runner.config["port"])
