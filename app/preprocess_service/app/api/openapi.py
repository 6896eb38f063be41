"""The parts of the OpenAPI document that FastAPI can't derive: request bodies with working examples, and all errors.

The service reads bodies itself, with a limit, while they arrive. So FastAPI does not know their types.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocess_service.app.api.pages import CAT_DOG
from preprocess_service.app.api.request_body import (
    MOST_TOP_K,
    OCTET_STREAMS,
    SWITCH,
    PredictBatchRequest,
    PredictRequest,
)
from preprocess_service.app.api.schemas import Failure, Health
from preprocess_service.app.errors import ServiceError
from preprocess_service.app.middleware.api_key import is_open

# A photo of a cat with 64 pixels: short enough as an example in /docs, and the model answers it.
EXAMPLE_PHOTO = Path(__file__).parents[1] / "static" / "example.jpg"


def title_of(model: str) -> str:
    """Return the document's title, in English."""
    return "CAT or DOG" if model == CAT_DOG else model


def description_of(model: str) -> str:
    """Return the document's description, in English."""
    return f"Classifies a photo: the answer is {'CAT or DOG' if model == CAT_DOG else 'the label of what it shows'}."


_BINARY = {"type": "string", "format": "binary"}
# The octet-stream types are for clients that don't know a file's type.
_IMAGE_TYPES = ("image/*", *OCTET_STREAMS)


_TEXT = {"type": "string"}
_REQUEST_ID = {
    "description": "The request's id in the answer and in the logs: the client's own if it has 1 to 128 letters, "
    "digits, `.`, `_` and `-`; else a new one.",
    "schema": _TEXT,
}
_HEADERS = {"X-Request-ID": _REQUEST_ID | {"required": True}}
_PREDICTION_HEADERS = _HEADERS | {
    "Server-Timing": {
        "description": "Milliseconds that each stage took, and the total.",
        "required": True,
        "schema": _TEXT | {"pattern": "total;dur=[0-9.]+$"},
    }
}
# Of an answer with texts for people.
_TEXT_HEADERS = _HEADERS | {
    "Content-Language": {
        "description": "The language of the texts in the answer.",
        "required": True,
        "schema": _TEXT | {"enum": ["en", "pt"]},
    }
}
_RETRY_AFTER = {
    "description": "Seconds to wait before the next try.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
_PARAMETERS = [
    {"name": "Accept-Language", "in": "header", "description": "Language of `msg`: en or pt.", "schema": _TEXT},
    {"name": "X-Request-ID", "in": "header"} | _REQUEST_ID,
    {
        "name": "top_k",
        "in": "query",
        "description": "How many labels `probabilities` has, the most probable first. A JSON body may set it too.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TOP_K},
    },
    {
        "name": "explain",
        "in": "query",
        "description": "Whether the answer has an `explanation`: where the model looked. A JSON body may set it too.",
        "schema": {"type": "string", "enum": list(SWITCH)},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "Deadline in milliseconds. It can only shorten the service's own deadline.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
]


def _error_responses() -> dict[int | str, dict[str, Any]]:
    codes: dict[int | str, list[str]] = {}
    for error in ServiceError.__subclasses__():
        # These are errors of unknown routes and methods, so no route answers them.
        if error.status not in (404, 405):
            codes.setdefault(error.status, []).append(f"`{error.code}`")
    return {status: _error_response(status, named) for status, named in sorted(codes.items())}


def _error_response(status: int | str, codes: list[str]) -> dict[str, Any]:
    headers = _TEXT_HEADERS | ({"Retry-After": _RETRY_AFTER} if status == 503 else {})
    return {"model": Failure, "description": ", ".join(codes), "headers": headers}


ERROR_RESPONSES = _error_responses()
# The answers of each route besides its own type.
PREDICTION = {200: {"headers": _PREDICTION_HEADERS}} | ERROR_RESPONSES
MODEL = {200: {"headers": _HEADERS}} | {status: ERROR_RESPONSES[status] for status in (401, 500, 502, 503, 504)}
LIVE: dict[int | str, dict[str, Any]] = {200: {"headers": _HEADERS}}
GOLDEN = {200: {"headers": _HEADERS, "description": "The photo.", "content": {"image/*": {"schema": _BINARY}}}} | {
    status: ERROR_RESPONSES[status] for status in (401, 500, 502, 503, 504)
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: _error_response(404, ["`not_found`"])}
GOLDEN |= _NOT_FOUND
MODELS = {200: {"headers": _TEXT_HEADERS}} | {status: ERROR_RESPONSES[status] for status in (401, 500)}
# Of the routes below /models/NAME.
PREDICTION_OF_MODEL, MODEL_OF_SEVERAL = PREDICTION | _NOT_FOUND, MODEL | _NOT_FOUND
READY: dict[int | str, dict[str, Any]] = {
    200: {"headers": _TEXT_HEADERS},
    503: {"model": Health, "description": "Not ready; `failing` says why.", "headers": _TEXT_HEADERS},
}


def with_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Add the API keys, and the routes that need one, to the document."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of this service."},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in this header."},
    }
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["security"] = [] if is_open(path) else [{"bearer": []}, {"key": []}]
    return document


def of_model(models: Sequence[str], route: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the description of a route of one of the models, from that of the route of the first model."""
    model = _part_of_path("model", "One of the models.") | {"schema": _TEXT | {"enum": list(models)}}
    return (route or {}) | {"parameters": [model, *(route or {}).get("parameters", ())]}


def _part_of_path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": _TEXT}


PHOTO_NAME = {"parameters": [_part_of_path("name", "The photo's name: one of `golden` in the answer of `/model`.")]}


def photo_body() -> dict[str, Any]:
    """Return the description of the body of /predict: JSON, the picture itself, or a form."""
    form = {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]}
    return _body(PredictRequest.model_json_schema(), {"image_b64": _example()}, form)


def batch_body(most_items: int) -> dict[str, Any]:
    """Return the description of the body of /predict/batch: JSON or a form, with up to ``most_items`` photos."""
    count = {"minItems": 1, "maxItems": most_items}
    files = {"type": "array", "items": _BINARY} | count
    form = {"type": "object", "properties": {"file": files}, "required": ["file"]}
    schema = PredictBatchRequest.model_json_schema()
    schema["properties"]["images_b64"] |= count
    body = _body(schema, {"images_b64": [_example(), _example()]}, form)
    for media_type in _IMAGE_TYPES:
        del body["requestBody"]["content"][media_type]
    return body


def _body(schema: dict[str, Any], example: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    content = {
        "application/json": {"schema": schema, "example": example},
        **{media_type: {"schema": _BINARY} for media_type in _IMAGE_TYPES},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": _PARAMETERS}


def _example() -> str:
    return base64.b64encode(EXAMPLE_PHOTO.read_bytes()).decode("ascii")
