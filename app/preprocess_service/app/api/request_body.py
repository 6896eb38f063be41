"""What came in: the photos of a request, whichever way they were sent."""

import sys
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from preprocess_service.app.config import Limits
from preprocess_service.app.errors import ImageTooLarge, InvalidRequest, ServiceError, UnsupportedMediaType
from preprocess_service.app.utils import Photo

# Called with the bytes of every part of a body that comes in; raises Overloaded when there is no memory for it.
ReserveBytes = Callable[[int], None]
Model = TypeVar("Model", bound=BaseModel)
# How many labels an answer has, the most probable first; None: as many as by default.
TopK = int | None
MOST_TOP_K = 1_000_000

EXAMPLE = '{"image_b64": "<the picture in base64>"}'
BATCH_EXAMPLE = '{"images_b64": ["<a picture in base64>", ...]}'
# What JSON of the right form has at most, whatever its keys: a comma between two items, and one in each data: URL.
# A body of 20 MB that is all "[],[],[]" would else take 25 s and 5 GB before it is refused for having too many.
_SPARE_COMMAS = 1000

FORM_EXAMPLE = "multipart/form-data with the picture in the field 'file'"


def _whole(value: object) -> object:
    # For JSON 5.0 is a whole number.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, Field(strict=True, ge=1, le=MOST_TOP_K), BeforeValidator(_whole)]
_TOP_K = Field(None, description="How many labels `probabilities` has, the most probable first.")


class PredictRequest(BaseModel):
    """A photo."""

    model_config = ConfigDict(extra="forbid")

    image_b64: str = Field(strict=True, description="The picture's bytes in base64; a `data:` URL is taken too.")
    top_k: WholeNumber | None = _TOP_K


class PredictBatchRequest(BaseModel):
    """Several photos."""

    model_config = ConfigDict(extra="forbid")

    images_b64: list[JsonValue] = Field(
        description="Several pictures.",
        json_schema_extra={
            "items": {"description": "Text as in `/predict`; anything else is refused in its own place in the answer."}
        },
    )
    top_k: WholeNumber | None = _TOP_K


async def read_photo(request: Request, limits: Limits, reserve: ReserveBytes) -> tuple[Photo, TopK]:
    """Take in one photo: JSON with ``image_b64``, a form with ``file``, or the picture itself; and ``top_k``.

    Raises:
        ImageTooLarge: the body is over the limit; told while it streams, not after it was read.
        UnsupportedMediaType: a body of another type.
        InvalidRequest: not JSON, or a field is missing, unknown or of the wrong type.
    """
    top_k = _queried_top_k(request)
    match _kind(request):
        case "json":
            body = _parse(PredictRequest, await _read(request, limits, reserve), limits, EXAMPLE)
            return body.image_b64, body.top_k or top_k
        case "form":
            files = await _read_form(request, limits, reserve, max_files=1)
            if len(files) != 1:
                raise InvalidRequest("form_one_file")
            return files[0], top_k
        case _:
            return await _read(request, limits, reserve), top_k


async def read_batch(
    request: Request, limits: Limits, reserve: ReserveBytes
) -> tuple[list[Photo | ServiceError], TopK]:
    """Take in several photos: JSON with ``images_b64``, or a form with several ``file``; and ``top_k``.

    Returns:
        For each a photo, or why it is none: the others are answered all the same.

    Raises:
        ServiceError: as in ``read_photo``; also where there are none, or too many.
    """
    top_k = _queried_top_k(request)
    match _kind(request):
        case "json":
            body = _parse(PredictBatchRequest, await _read(request, limits, reserve), limits, BATCH_EXAMPLE)
            photos = [_text(item, number) for number, item in enumerate(body.images_b64)]
            top_k = body.top_k or top_k
        case "form":
            photos = [*await _read_form(request, limits, reserve, max_files=limits.batch_items + 1)]
        case _:
            raise _unsupported(request, BATCH_EXAMPLE)
    if not 1 <= len(photos) <= limits.batch_items:
        raise InvalidRequest("batch_items", items=limits.batch_items, sent=len(photos))
    return photos, top_k


def _queried_top_k(request: Request) -> TopK:
    """``top_k`` of the address, for bodies that have no place for it."""
    if not request.scope["query_string"]:
        return None
    text = request.query_params.get("top_k")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST_TOP_K):
        raise InvalidRequest("top_k_number", most=MOST_TOP_K)
    return int(text)


def _text(item: JsonValue, number: int) -> Photo | ServiceError:
    if isinstance(item, str):
        return item
    return InvalidRequest("field_type", field=f"images_b64.{number}", example=BATCH_EXAMPLE)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def _kind(request: Request) -> str:
    media_type = _media_type(request)
    if media_type == "application/json" or media_type.endswith("+json"):
        return "json"
    if media_type == "multipart/form-data":
        return "form"
    # Programs that don't know a file's type say octet-stream; what it is, its bytes tell.
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return "image"
    raise _unsupported(request, EXAMPLE)


def _unsupported(request: Request, example: str) -> UnsupportedMediaType:
    return UnsupportedMediaType("media_type", media_type=_media_type(request), example=example)


async def _read(request: Request, limits: Limits, reserve: ReserveBytes) -> bytes:
    return b"".join([chunk async for chunk in _stream(request, limits, reserve)])


async def _stream(request: Request, limits: Limits, reserve: ReserveBytes) -> AsyncGenerator[bytes, None]:
    """The body's parts, as long as they are within the limit; at once none where Content-Length is already over it."""
    too_large = ImageTooLarge("body_bytes", megabytes=f"{limits.body_bytes / 1e6:.3g}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.body_bytes:
            raise too_large
        # With what Python adds: a body in tiny parts takes many times its length.
        reserve(sys.getsizeof(chunk))
        yield chunk


async def _read_form(request: Request, limits: Limits, reserve: ReserveBytes, max_files: int) -> list[bytes]:
    parser = MultiPartParser(
        request.headers,
        _stream(request, limits, reserve),
        max_files=max_files,
        max_fields=0,
        max_part_size=limits.body_bytes,
    )
    # Bounded already, and a container may have no folder for temporary files.
    parser.spool_max_size = limits.body_bytes
    try:
        form = await parser.parse()
    # ValueError: the sender's charset may be one that Python can't look up, or that can't decode the names.
    except (MultiPartException, KeyError, ValueError) as exc:
        raise InvalidRequest("form_invalid") from exc
    try:
        unknown = [name for name in form if name != "file"]
        if unknown:
            # The same charset may have made half a surrogate pair of it, which no answer can hold.
            name = unknown[0].encode("utf-8", "replace").decode("utf-8")
            raise InvalidRequest("field_unknown", field=name, example=FORM_EXAMPLE)
        return [await file.read() for file in form.getlist("file") if isinstance(file, UploadFile)]
    finally:
        await form.close()


def _parse(model: type[Model], body: bytes, limits: Limits, example: str) -> Model:
    if b"," in body and body.count(b",") > 2 * limits.batch_items + _SPARE_COMMAS:
        raise InvalidRequest("json_parts", example=example)
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        raise _explain(exc.errors(include_input=False)[0], example) from exc


def _explain(error: Any, example: str) -> InvalidRequest:
    field = ".".join(map(str, error["loc"]))
    message = {
        "json_invalid": "json_invalid",
        "model_type": "json_not_object",
        "missing": "field_missing",
        "extra_forbidden": "field_unknown",
    }.get(error["type"], "field_type")
    if field.startswith("top_k"):
        return InvalidRequest("top_k_number", most=MOST_TOP_K)
    return InvalidRequest(message, field=field, example=example)
