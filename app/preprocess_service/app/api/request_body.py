"""Reads the photos of a request: from JSON, from a form, or as a file."""

import json
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request

from preprocess_service.app.api.content_coding import content_codings, too_large, unpack
from preprocess_service.app.api.form_body import read_files
from preprocess_service.app.config import Limits
from preprocess_service.app.errors import InvalidRequest, ServiceError, UnsupportedMediaType
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.translations import Language
from preprocess_service.app.utils import Photo

Model = TypeVar("Model", bound=BaseModel)
MOST_TOP_K = 1_000_000

EXAMPLE: dict[Language, str] = {
    "en": '{"image_b64": "<the picture in base64>"}',
    "pt": '{"image_b64": "<a imagem em base64>"}',
}
BATCH_EXAMPLE: dict[Language, str] = {
    "en": '{"images_b64": ["<a picture in base64>", ...]}',
    "pt": '{"images_b64": ["<uma imagem em base64>", ...]}',
}
# Object stores send the second one.
OCTET_STREAMS = ("application/octet-stream", "binary/octet-stream")
# The values of ``explain`` in the query.
SWITCH = {"true": True, "false": False, "1": True, "0": False}
# The limit of commas in JSON is two per item (one between items, one in each data: URL) and these spare ones. Without
# this limit, a body of 20 MB that is only "[],[],[]" would take 25 s and 5 GB before it is rejected.
_SPARE_COMMAS = 1000


def _whole(value: object) -> object:
    # In JSON, 5.0 is a whole number.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, Field(strict=True, ge=1, le=MOST_TOP_K), BeforeValidator(_whole)]
_TOP_K = Field(None, description="How many labels `probabilities` has, the most probable first.")
_EXPLAIN = Field(None, strict=True, description="Whether the answer has an `explanation`: where the model looked.")


class Options(NamedTuple):
    """What a client asks for beside the prediction.

    Attributes:
        top_k: how many labels an answer has, the most probable first; None: the default number.
        explain: whether an answer says where the model looked.
    """

    top_k: int | None
    explain: bool


class PredictRequest(BaseModel):
    """A photo."""

    model_config = ConfigDict(extra="forbid")

    image_b64: str = Field(strict=True, description="The picture's bytes in base64, or a `data:` URL.")
    top_k: WholeNumber | None = _TOP_K
    explain: bool | None = _EXPLAIN


class PredictBatchRequest(BaseModel):
    """Several photos."""

    model_config = ConfigDict(extra="forbid")

    images_b64: list[JsonValue] = Field(
        description="Several pictures.",
        json_schema_extra={
            "items": {"description": "Text as in `/predict`. For any other value the answer has an error at its place."}
        },
    )
    top_k: WholeNumber | None = _TOP_K
    explain: bool | None = _EXPLAIN


async def read_photo(request: Request, limits: Limits, body: IncomingBody) -> tuple[Photo, Options]:
    """Read one photo from JSON with ``image_b64``, a form with ``file``, or the picture itself; and the options.

    Raises:
        ImageTooLarge: the body is over the limit. It is raised while the body arrives, not at its end.
        UnsupportedMediaType: the body has another type.
        InvalidRequest: the body is not JSON, or a field is missing, unknown or has the wrong type.
    """
    options = _queried(request)
    match _kind(request):
        case "json":
            sent = await _read_json(request, limits, body, PredictRequest, EXAMPLE)
            return sent.image_b64, _merged(sent, options)
        case "form":
            files = await _read_form(request, limits, body, max_files=1)
            if len(files) != 1:
                raise InvalidRequest("form_one_file", sent=len(files))
            return files[0], options
        case "image":
            return await _read(request, limits, body), options
        case _:
            raise _unsupported(request, "media_type", EXAMPLE)


async def read_batch(
    request: Request, limits: Limits, body: IncomingBody
) -> tuple[list[Photo | ServiceError], Options]:
    """Read several photos from JSON with ``images_b64``, or from a form with several ``file``; and the options.

    Returns:
        For each item a photo, or the error for an item that is not text. The other items are answered normally.

    Raises:
        ServiceError: as in ``read_photo``; also if there are no photos or too many.
    """
    options = _queried(request)
    match _kind(request):
        case "json":
            batch = await _read_json(request, limits, body, PredictBatchRequest, BATCH_EXAMPLE)
            photos = [_text(item, number) for number, item in enumerate(batch.images_b64)]
            options = _merged(batch, options)
        case "form":
            photos = [*await _read_form(request, limits, body, max_files=limits.batch_items)]
        case _:
            raise _unsupported(request, "media_type_batch", BATCH_EXAMPLE)
    if not 1 <= len(photos) <= limits.batch_items:
        raise InvalidRequest("batch_items", items=limits.batch_items, sent=len(photos))
    return photos, options


def _queried(request: Request) -> Options:
    """Return the options in the query, for bodies that have no fields for them."""
    if not request.scope["query_string"]:
        return Options(None, False)
    top_k = request.query_params.get("top_k")
    if top_k is not None and not (
        top_k.isascii() and top_k.isdecimal() and len(top_k) < 10 and 1 <= int(top_k) <= MOST_TOP_K
    ):
        raise InvalidRequest("top_k_number", most=MOST_TOP_K)
    explain = request.query_params.get("explain", "false").lower()
    if explain not in SWITCH:
        raise InvalidRequest("explain_switch")
    return Options(None if top_k is None else int(top_k), SWITCH[explain])


def _merged(sent: PredictRequest | PredictBatchRequest, queried: Options) -> Options:
    """Return the options of a JSON body. Those in the query are for what it does not say."""
    return Options(sent.top_k or queried.top_k, queried.explain if sent.explain is None else sent.explain)


def _text(item: JsonValue, number: int) -> Photo | ServiceError:
    if isinstance(item, str):
        return item
    return InvalidRequest("field_type", field=f"images_b64.{number}", example=BATCH_EXAMPLE)


def _media_type(request: Request) -> str:
    return (request.headers.get("content-type") or "application/json").partition(";")[0].strip().lower()


def _kind(request: Request) -> str:
    media_type = _media_type(request)
    if media_type == "application/json" or media_type.endswith("+json"):
        return "json"
    if media_type == "multipart/form-data":
        return "form"
    # Clients that don't know a file's type send octet-stream. The bytes show the format.
    if media_type.startswith("image/") or media_type in OCTET_STREAMS:
        return "image"
    return "other"


def _unsupported(request: Request, message: str, example: dict[Language, str]) -> UnsupportedMediaType:
    return UnsupportedMediaType(message, media_type=_media_type(request), example=example)


async def _read(request: Request, limits: Limits, body: IncomingBody) -> bytes:
    return b"".join([part async for part in _parts(request, limits, body)])


async def _parts(request: Request, limits: Limits, body: IncomingBody) -> AsyncIterator[bytes]:
    """Yield the decompressed parts of the body up to the limit; none if Content-Length is over it."""
    codings = content_codings(request.headers)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large(limits.body_bytes)
    parts = _received(request, limits, body)
    for coding in codings:
        parts = unpack(parts, coding, limits.body_bytes)
    async for part in parts:
        # The size with Python's overhead: a body in tiny parts takes many times its length.
        body.reserve(sys.getsizeof(part))
        yield part


async def _received(request: Request, limits: Limits, body: IncomingBody) -> AsyncIterator[bytes]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limits.body_bytes:
            raise too_large(limits.body_bytes)
        body.receive(len(part))
        yield part


async def _read_form(request: Request, limits: Limits, body: IncomingBody, max_files: int) -> list[bytes]:
    return await read_files(request.headers["content-type"], _parts(request, limits, body), max_files)


async def _read_json(
    request: Request, limits: Limits, body: IncomingBody, model: type[Model], example: dict[Language, str]
) -> Model:
    content = await _read(request, limits, body)
    encoding = json.detect_encoding(content)
    try:
        if encoding != "utf-8":
            body.reserve(2 * len(content))
            content = content.decode(encoding).encode()
        if b"," in content and content.count(b",") > 2 * limits.batch_items + _SPARE_COMMAS:
            raise InvalidRequest("json_parts", example=example)
        return model.model_validate_json(content)
    except UnicodeError as exc:
        raise InvalidRequest("json_invalid", example=example) from exc
    except ValidationError as exc:
        raise _explain(exc.errors(include_input=False)[0], example) from exc


def _explain(error: Any, example: dict[Language, str]) -> InvalidRequest:
    field = ".".join(map(str, error["loc"]))
    message = {
        "json_invalid": "json_invalid",
        "model_type": "json_not_object",
        "missing": "field_missing",
        "extra_forbidden": "field_unknown",
    }.get(error["type"], "field_type")
    if field.startswith("top_k"):
        return InvalidRequest("top_k_number", most=MOST_TOP_K)
    if field.startswith("explain"):
        return InvalidRequest("explain_switch")
    return InvalidRequest(message, field=field, example=example)
