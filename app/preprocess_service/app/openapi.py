"""What /docs tells beyond the types: the ways to send a photo, with examples that work, and every refusal.

Bodies are read by hand, with a limit, while they stream; so FastAPI can't see what they are.
"""

import base64
from pathlib import Path
from typing import Any

from answers import Failure
from errors import ServiceError
from intake import PredictBatchRequest, PredictRequest

DESCRIPTION = "A photo comes in, CAT or DOG goes out."
# A cat of 64 pixels: small enough to read around in /docs, and an answer comes back.
EXAMPLE_PHOTO = Path(__file__).with_name("static") / "example.jpg"

_BINARY = {"type": "string", "format": "binary"}


def _refusals() -> dict[int | str, dict[str, Any]]:
    codes: dict[int | str, list[str]] = {}
    for error in ServiceError.__subclasses__():
        if error.status not in (404, 405):
            codes.setdefault(error.status, []).append(f"`{error.code}`")
    return {status: {"model": Failure, "description": ", ".join(named)} for status, named in sorted(codes.items())}


REFUSALS = _refusals()


def photo_body() -> dict[str, Any]:
    """The body of /predict: JSON, the picture itself, or a form."""
    form = {"type": "object", "properties": {"file": _BINARY}, "required": ["file"], "additionalProperties": False}
    return _body(PredictRequest.model_json_schema(), {"image_b64": _example()}, form)


def batch_body() -> dict[str, Any]:
    """The body of /predict/batch: JSON or a form."""
    files = {"type": "array", "items": _BINARY, "minItems": 1}
    form = {"type": "object", "properties": {"file": files}, "required": ["file"], "additionalProperties": False}
    body = _body(PredictBatchRequest.model_json_schema(), {"images_b64": [_example(), _example()]}, form)
    del body["requestBody"]["content"]["image/*"]
    return body


def _body(schema: dict[str, Any], example: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    content = {
        "application/json": {"schema": schema, "example": example},
        "image/*": {"schema": _BINARY},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def _example() -> str:
    return base64.b64encode(EXAMPLE_PHOTO.read_bytes()).decode("ascii")
