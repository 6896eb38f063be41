"""The REST API: TensorFlow Serving's paths, bodies and error texts, and /livez and /readyz."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from model_service.api import json_limits, json_requests, json_responses
from model_service.api.grpc_messages import cut
from model_service.api.http_bodies import HttpError, client_gone, read_body
from model_service.errors import ServingError, deadline_exceeded, forget_frames, invalid_argument
from model_service.models.servables import Servables
from model_service.models.tensors import Array
from model_service.prediction import examples
from model_service.prediction import predict as prediction
from model_service.prediction.request_log import RequestRecord
from model_service.prediction.validation import Options, check_method
from model_service.server_context import ServerContext
from serving_common import tensorflow_protos as protos

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
_PATTERNS = {"POST": _POST, "GET": _GET}

# TensorFlow Serving's, with --rest_api_enable_cors_support.
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

_MAX_VERSION = 2**63 - 1


class RestApi:
    """The ASGI application. `timeout_s` is the time limit of a POST, in seconds."""

    def __init__(self, server_context: ServerContext, timeout_s: float) -> None:
        self._server_context = server_context
        self._servables = server_context.servables
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        response = await self._respond(request)
        if self._server_context.allows_cors and _path(request).lower().startswith("/v1/"):
            response.headers.update(_CORS_HEADERS)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._route(request)
        except ServingError as exc:
            forget_frames(exc)
            return _error(exc.status if isinstance(exc, HttpError) else HTTP_STATUSES[exc.code], exc.message)
        except Exception as exc:
            logger.exception("%s %s failed", request.method, cut(_path(request)))
            forget_frames(exc)
            return _error(500, "Internal error; the server's log has the details")

    async def _route(self, request: Request) -> Response:
        path = _path(request)
        if path == "/livez":
            return JSONResponse({"ok": ["process"], "failing": {}})
        if path == "/readyz":
            return self._readyz()
        if path == self._server_context.monitoring.path:
            return PlainTextResponse(self._server_context.metrics())
        if not path.lower().startswith("/v1/"):
            return HTMLResponse("<h1>Not Found</h1>", 404)
        if request.method == "OPTIONS":
            origin = request.headers.get("origin", "")
            return Response(status_code=200 if "http://" in origin or "https://" in origin else 400)
        pattern = _PATTERNS.get(request.method)
        match = pattern.fullmatch(path) if pattern else None
        name, api = _counted_as(match)
        with self._server_context.monitoring.request(self._servables.label(name), api, "REST"):
            return await self._call(request, match)

    async def _call(self, request: Request, match: re.Match[str] | None) -> Response:
        if match is None:
            raise invalid_argument(f"Malformed request: {request.method} {_path(request)}")
        if request.method == "POST":
            return await self._post(request, match)
        return self._get(match)

    def _readyz(self) -> Response:
        if reason := self._server_context.readiness.failing():
            return JSONResponse({"ok": [], "failing": {"model": reason}}, 503)
        return JSONResponse({"ok": ["model"], "failing": {}})

    def _get(self, match: re.Match[str]) -> Response:
        if match["name"] is None:
            raise invalid_argument("Missing model name in request.")
        spec = _spec(match)
        if match["method"] is None:
            request = protos.get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
            return JSONResponse(_json(prediction.status(self._servables, request)))
        request = protos.get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        metadata = prediction.metadata(self._servables, request)
        signatures = protos.get_model_metadata_pb2.SignatureDefMap()
        metadata.metadata["signature_def"].Unpack(signatures)
        answer = {"model_spec": _json(metadata.model_spec), "metadata": {"signature_def": _json(signatures)}}
        return JSONResponse(answer)

    async def _post(self, request: Request, match: re.Match[str]) -> Response:
        answer_method, options = _METHODS[match["method"].lower()], self._server_context.options
        with self._server_context.request_logger.record(
            "REST", unquote(match["name"]), request.headers, match["method"].capitalize()
        ) as record:
            spec = _spec(match)
            try:
                async with asyncio.timeout(self._timeout_s):
                    body, reservation = await read_body(request, self._server_context.messages, options.max_bytes)
                    call = partial(answer_method, self._servables, spec, body, record, options)
                    compute = partial(record.compute, call)
                    # From here on the executor's thread releases it: it may compute longer than the client waits.
                    computation = self._server_context.executor.submit(
                        self._timeout_s, compute, reservation.client, reservation.release, not reservation.is_small
                    )
                    answer = await _while_client_waits(request, computation)
            except TimeoutError as exc:
                raise deadline_exceeded(f"No answer within {self._timeout_s:g} s (--rest_api_timeout_in_ms)") from exc
        return Response(answer, media_type="application/json")


async def _while_client_waits(request: Request, call: Coroutine[Any, Any, bytes]) -> bytes:
    """Return the result of `call`; if the client disconnects, cancel it and raise ServingError CANCELLED."""
    answer = asyncio.create_task(call)
    gone = asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise client_gone()
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _client_leaves(request: Request) -> None:
    """Return when the connection ends. The body has been read, so no other message is expected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def predict(
    servables: Servables, spec: protos.model_pb2.ModelSpec, body: bytes, record: RequestRecord, options: Options
) -> bytes:
    """Answer a predict request: JSON in, JSON out; raises ServingError. It uses the CPU: run it in a thread."""
    document = json_limits.parse(body)
    name = json_requests.signature_name(document)
    with servables.use(spec) as servable:
        signature = servable.signature(name)
        if signature is None:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        check_method(servable.model, signature, options)
        inputs, is_row_format = json_requests.to_inputs(document, signature)
        record.version, record.batch_size = servable.version, _batch_size(inputs)
        del document
        results = prediction.run(servable, signature, inputs, list(signature.outputs))
    prediction.check_size(results, options.max_bytes)
    return json_responses.render(results, is_row_format)


def infer(
    api: str,
    servables: Servables,
    spec: protos.model_pb2.ModelSpec,
    body: bytes,
    record: RequestRecord,
    options: Options,
) -> bytes:
    """Answer a classify or regress request, as `predict` does."""
    document = json_limits.parse(body)
    request_class, _ = examples.METHODS[api]
    request = request_class(model_spec=spec)
    request.model_spec.signature_name = json_requests.signature_name(document)
    sent = json_requests.to_examples(document)
    del document
    response = examples.answer(api, servables, request, sent, options)
    record.version, record.batch_size = response.model_spec.version.value, len(sent.parts)
    return json_responses.render_result(response.result)


_METHODS: dict[str, Callable[..., bytes]] = {
    "predict": predict,
    "classify": partial(infer, "Classify"),
    "regress": partial(infer, "Regress"),
}


def _batch_size(inputs: Mapping[str, Array]) -> int | None:
    return next((array.shape[0] for array in inputs.values() if array.ndim), None)


def _path(request: Request) -> str:
    # Not decoded: %2F in a name is not a slash.
    raw: bytes = request.scope["raw_path"]
    return raw.decode("ascii", "replace").partition("?")[0]


def _counted_as(match: re.Match[str] | None) -> tuple[str, str]:
    """Return the labels for the metrics: the model, and the API, which only a POST has."""
    if match is None:
        return "", ""
    is_post = match.re is _POST
    return unquote(match["name"] or ""), match["method"].lower() if is_post else ""


def _spec(match: re.Match[str]) -> protos.model_pb2.ModelSpec:
    spec = protos.model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"] is not None:
        # Check the length first: Python refuses to convert thousands of digits.
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(_MAX_VERSION)) or int(digits) > _MAX_VERSION:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    elif match["label"] is not None:
        spec.version_label = unquote(match["label"])
    return spec


def _json(message: Any) -> Any:
    return protos.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": cut(text)}, status)
