"""The checks and what they use: clients of both APIs, and comparisons."""

import gzip
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import requests
from grpc_health.v1 import health_pb2_grpc

from serving_common.tensorflow_protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_server_config_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    tensor_pb2,
    text_format,
)
from tools.conformance import models
from tools.conformance.graphs import tensor

TIMEOUT_S = 60
_CONNECT_S = 10
States = get_model_status_pb2.ModelVersionStatus.State
Code = grpc.StatusCode


class Different(Exception):
    """The server does not behave as TensorFlow Serving does."""


class Skip(Exception):
    """A check needs the models' folder, and it is not known."""


@dataclass(frozen=True)
class Check:
    """One check and its text, which says what is expected."""

    text: str
    run: Callable[["Server"], Any]


CHECKS: list[Check] = []


def check(text: str) -> Callable[[Callable[["Server"], None]], Callable[["Server"], None]]:
    """Add the decorated function to CHECKS."""

    def add(function: Callable[["Server"], None]) -> Callable[["Server"], None]:
        CHECKS.append(Check(text, function))
        return function

    return add


def equal(found: Any, expected: Any) -> None:
    """Raise Different unless both are equal."""
    if found != expected:
        raise Different(f"expected {expected!r}, found {found!r}")


def contains(found: str, expected: str) -> None:
    """Raise Different unless the text contains the other one."""
    if expected not in found:
        raise Different(f"expected a text with {expected!r}, found {found!r}")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    text: str
    content_type: str

    @property
    def json(self) -> Any:
        """The body; NaN and Infinity are allowed in it."""
        return json.loads(self.text)


class Server:
    """The server that is checked. `folder` is the models' folder here, `served_as` where the server sees it."""

    def __init__(self, grpc_address: str, rest_address: str, folder: Path | None = None, served_as: str = "") -> None:
        self.channel = grpc.insecure_channel(grpc_address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self._url = f"http://{rest_address}"
        self._http = requests.Session()
        self._folder = folder
        self._served_as = served_as or str(folder)

    def is_reachable(self) -> bool:
        """Return whether both ports answer."""
        try:
            grpc.channel_ready_future(self.channel).result(_CONNECT_S)
            self._http.get(self._url, timeout=_CONNECT_S)
        except (grpc.FutureTimeoutError, requests.RequestException):
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self.channel.close()

    @property
    def folder(self) -> Path:
        """The models' folder; raises Skip where it is not known."""
        if self._folder is None:
            raise Skip("needs --folder")
        return self._folder

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Call a gRPC method; raises Different if it fails."""
        try:
            return method(request, timeout=TIMEOUT_S)
        except grpc.RpcError as exc:
            raise Different(f"{exc.code().name}: {exc.details()}") from exc

    def refused(self, method: Callable[..., Any], request: Any, code: grpc.StatusCode, text: str = "") -> str:
        """Raise Different unless the gRPC method fails with this code and a text that contains `text`; return it."""
        try:
            method(request, timeout=TIMEOUT_S)
        except grpc.RpcError as exc:
            details = str(exc.details())
            equal(f"{exc.code().name}: {details}" if exc.code() != code else code.name, code.name)
            contains(details, text)
            return details
        raise Different(f"expected {code.name}, but the call succeeded")

    def predict(self, request: Any) -> Any:
        """Return the answer to a PredictRequest."""
        return self.call(self.predictions.Predict, request)

    def rest(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send an HTTP request to this exact path; a body that is not text or bytes is sent as JSON."""
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        if headers.get("content_encoding") == "gzip":
            data = gzip.compress(str(data).encode())
        request = requests.Request(method, self._url, data=data)
        prepared = self._http.prepare_request(request)
        prepared.url = self._url + path
        prepared.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
        response = self._http.send(prepared, timeout=TIMEOUT_S)
        return Answer(response.status_code, response.text, response.headers.get("content-type", ""))

    def rest_predict(self, model: str, body: Any, method: str = "predict") -> Any:
        """Return the JSON of an answer to `MODEL:predict`; raises Different if it fails."""
        answer = self.rest("POST", f"/v1/models/{model}:{method}", body)
        equal((answer.status, answer.text) if answer.status != 200 else 200, 200)
        return answer.json

    def rest_refused(self, method: str, path: str, body: Any, status: int, text: str = "") -> None:
        """Raise Different unless the answer is a JSON error with this status and a text that contains `text`."""
        answer = self.rest(method, path, body)
        equal((answer.status, answer.text) if answer.status != status else status, status)
        equal(list(answer.json), ["error"])
        contains(answer.json["error"], text)

    def states(self, name: str) -> dict[int, str]:
        """Return the states of a model's versions as they are listed; empty for an unknown model."""
        try:
            answer = self.models.GetModelStatus(status_request(name), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return {}
        return {one.version: States.Name(one.state) for one in answer.model_version_status}

    def eventually(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds; raises Different if it never does."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise Different(f"not within {TIMEOUT_S} s: {what}")
            time.sleep(0.05)

    def config(self, *without: str, more: str = "", labels: Mapping[str, int] | None = None) -> Any:
        """Return the ReloadConfigRequest with the models of the start, fewer or more, and labels of `versions`."""
        names = [name for name in (*models.CONFIGURED, *more.split()) if name not in without]
        self.folder  # noqa: B018  # the paths in the config need it
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(models.config_text(self._served_as, names, labels), request.config)
        return request

    def reload(self, request: Any) -> Any:
        """Send a ReloadConfigRequest."""
        return self.call(self.models.HandleReloadConfigRequest, request)


def spec(message: Any, name: str, version: int | None = None, label: str = "", signature: str = "") -> Any:
    """Set the model_spec of a request and return the request."""
    target: model_pb2.ModelSpec = message.model_spec
    target.name, target.signature_name = name, signature
    if version is not None:
        target.version.value = version
    if label:
        target.version_label = label
    return message


def predict_request(name: str, inputs: Mapping[str, Any], outputs: tuple[str, ...] = (), **more: Any) -> Any:
    """Return a PredictRequest; inputs that are no TensorProto are floats."""
    request = spec(predict_pb2.PredictRequest(output_filter=outputs), name, **more)
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(value if isinstance(value, tensor_pb2.TensorProto) else tensor(value))
    return request


def status_request(name: str, **more: Any) -> Any:
    """Return a GetModelStatusRequest."""
    return spec(get_model_status_pb2.GetModelStatusRequest(), name, **more)


def metadata_request(name: str, fields: tuple[str, ...] = ("signature_def",), **more: Any) -> Any:
    """Return a GetModelMetadataRequest."""
    return spec(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields), name, **more)


ModelServerConfig = model_server_config_pb2.ModelServerConfig
