"""The REST face: TensorFlow Serving's paths, bodies and texts, and /livez and /readyz beside them."""

import asyncio
import logging
import re
import zlib
from typing import Any
from urllib.parse import unquote

import grpc
import json_requests
import json_responses
import prediction
from failures import ServingError, deadline_exceeded, invalid_argument
from servables import Servables
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send
from tensorflow_messages import MessageToDict, get_model_metadata_pb2, get_model_status_pb2, model_pb2
from workers import Workers

logger = logging.getLogger(__name__)

HTTP_STATUSES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}

_VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.I | re.A)
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<method>metadata))?", re.I | re.A)

_MAX_VERSION = 2**63 - 1


class _TooLarge(Exception):
    """A body is over the limit, as it came or once it is decompressed."""


class RestApi:
    """The ASGI application; each handler parses, makes one call and renders."""

    def __init__(self, servables: Servables, workers: Workers, timeout_s: float, max_bytes: int) -> None:
        self._servables = servables
        self._workers = workers
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self.is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._route(request)
        except ServingError as exc:
            return _error(HTTP_STATUSES[exc.code], exc.message)
        except _TooLarge:
            return _error(413, f"The body is larger than {self._max_bytes} bytes (--max_message_bytes)")
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            return _error(500, "Internal error; the server's log has the details")

    async def _route(self, request: Request) -> Response:
        # As it was sent: %2F in a name is not a slash.
        path = request.scope["raw_path"].decode("ascii", "replace").partition("?")[0]
        if path == "/livez":
            return JSONResponse({"ok": ["process"], "failing": {}})
        if path == "/readyz":
            return self._readyz()
        if not path.lower().startswith("/v1/"):
            return HTMLResponse("<h1>Not Found</h1>", 404)
        if request.method == "OPTIONS":
            origin = request.headers.get("origin", "")
            return Response(status_code=200 if "http://" in origin or "https://" in origin else 400)
        if request.method == "POST" and (match := _POST.fullmatch(path)):
            return await self._post(request, match)
        if request.method == "GET" and (match := _GET.fullmatch(path)):
            return self._get(match)
        raise invalid_argument(f"Malformed request: {request.method} {path}")

    def _readyz(self) -> Response:
        # The port opens when the model is warm, so there is one reason left not to send requests.
        if self.is_stopping:
            return JSONResponse({"ok": [], "failing": {"model": "the server is stopping"}}, 503)
        return JSONResponse({"ok": ["model"], "failing": {}})

    def _get(self, match: re.Match[str]) -> Response:
        if match["name"] is None:
            raise invalid_argument("Missing model name in request.")
        if match["method"] is None:
            status = prediction.status(
                self._servables, get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(match))
            )
            return JSONResponse(_json(status))
        metadata = prediction.metadata(
            self._servables,
            get_model_metadata_pb2.GetModelMetadataRequest(model_spec=_spec(match), metadata_field=["signature_def"]),
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        metadata.metadata["signature_def"].Unpack(signatures)
        answer = {"model_spec": _json(metadata.model_spec), "metadata": {"signature_def": _json(signatures)}}
        return JSONResponse(answer)

    async def _post(self, request: Request, match: re.Match[str]) -> Response:
        if match["method"].lower() != "predict":
            raise ServingError(grpc.StatusCode.UNIMPLEMENTED, "The embedded model server doesn't offer this method")
        spec = _spec(match)
        body = await self._body(request)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._workers.run(self._timeout_s, predict, self._servables, spec, body)
        except TimeoutError as exc:
            raise deadline_exceeded(f"No answer within {self._timeout_s:g} s (--rest_api_timeout_in_ms)") from exc
        return Response(answer, media_type="application/json")

    async def _body(self, request: Request) -> bytes:
        """Return the body, unpacked if it came as gzip; raises _TooLarge without reading on."""
        parts, size = [], 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > self._max_bytes:
                raise _TooLarge
        body = b"".join(parts)
        return _unzipped(body, self._max_bytes) if request.headers.get("content-encoding") == "gzip" else body


def predict(servables: Servables, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
    """Answer a predict request: JSON in, JSON out; raises ServingError. Takes the CPU: not for the event loop."""
    document = json_requests.parse(body)
    name = json_requests.signature_name(document)
    servable = servables.find(spec)
    signature = servable.signature(name)
    if signature is None:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    inputs, is_row_format = json_requests.to_inputs(document, signature)
    results = prediction.run(servable, signature, inputs, list(signature.outputs))
    return json_responses.render(results, is_row_format)


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"] is not None:
        # As text first: Python refuses to read a number of thousands of digits.
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(_MAX_VERSION)) or int(digits) > _MAX_VERSION:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    elif match["label"] is not None:
        spec.version_label = unquote(match["label"])
    return spec


def _unzipped(body: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise invalid_argument(f"The body is not valid gzip ({exc})") from exc
    if len(unpacked) > max_bytes:
        raise _TooLarge
    if not unpacker.eof:
        raise invalid_argument("The body is not valid gzip (it is cut off)")
    return unpacked


def _json(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
