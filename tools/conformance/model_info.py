"""GetModelMetadata and GetModelStatus over gRPC, health, and metrics."""

import re
from typing import Any

from grpc_health.v1 import health_pb2

from serving_common.tensorflow_protos import get_model_metadata_pb2
from tools.conformance.graphs import FLOAT, PREDICT, REGRESS
from tools.conformance.models import MANUAL_VERSION
from tools.conformance.suite import (
    CHECKS,
    Check,
    Code,
    Server,
    check,
    contains,
    equal,
    metadata_request,
    predict_request,
    status_request,
)

_NAME = "half_plus_three"
_METRICS = "/monitoring/prometheus/metrics"


def _signatures(server: Server, request: Any) -> Any:
    found = get_model_metadata_pb2.SignatureDefMap()
    answer = server.call(server.predictions.GetModelMetadata, request)
    if not answer.metadata["signature_def"].Unpack(found):
        equal(answer.metadata["signature_def"].type_url, "a SignatureDefMap")
    return found.signature_def


@check("GetModelMetadata packs a SignatureDefMap under type.googleapis.com")
def _(server: Server) -> None:
    answer = server.call(server.predictions.GetModelMetadata, metadata_request(_NAME))
    url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    equal({key: value.type_url for key, value in answer.metadata.items()}, {"signature_def": url})


@check("GetModelMetadata has the name and version, and no signature name")
def _(server: Server) -> None:
    spec = server.call(server.predictions.GetModelMetadata, metadata_request(_NAME)).model_spec
    equal((spec.name, spec.version.value, spec.signature_name), (_NAME, MANUAL_VERSION, ""))


@check("GetModelMetadata has all signatures with their methods")
def _(server: Server) -> None:
    found = {name: one.method_name for name, one in _signatures(server, metadata_request(_NAME)).items()}
    equal((len(found), found["serving_default"], found["regress_x_to_y"]), (7, PREDICT, REGRESS))


@check("GetModelMetadata has the tensors' names, dtypes and shapes, -1 for an unknown dimension")
def _(server: Server) -> None:
    info = _signatures(server, metadata_request(_NAME))["serving_default"].inputs["x"]
    equal((info.name, info.dtype, [dim.size for dim in info.tensor_shape.dim]), ("x:0", FLOAT, [-1, 1]))


@check("GetModelMetadata of a version")
def _(server: Server) -> None:
    answer = server.call(server.predictions.GetModelMetadata, metadata_request("versions", version=2))
    equal(answer.model_spec.version.value, 2)


@check("GetModelStatus lists all versions, the newest first")
def _(server: Server) -> None:
    equal(list(server.states("versions").items()), [(3, "AVAILABLE"), (2, "AVAILABLE"), (1, "AVAILABLE")])


@check("GetModelStatus of a version has that one only")
def _(server: Server) -> None:
    answer = server.call(server.models.GetModelStatus, status_request("versions", version=2))
    equal([one.version for one in answer.model_version_status], [2])


@check("GetModelStatus of a healthy version has the status OK without a text")
def _(server: Server) -> None:
    (one,) = server.call(server.models.GetModelStatus, status_request(_NAME)).model_version_status
    equal((one.HasField("status"), one.status.error_code, one.status.error_message), (True, 0, ""))


@check("GetModelStatus ignores a label")
def _(server: Server) -> None:
    answer = server.call(server.models.GetModelStatus, status_request("versions", label="nothing"))
    equal(len(answer.model_version_status), 3)


@check("A version policy `latest` serves the newest n versions only")
def _(server: Server) -> None:
    states = server.states("latest_two")
    equal([version for version, state in states.items() if state == "AVAILABLE"], [3, 2])


@check("A version policy `specific` serves the versions that it names only")
def _(server: Server) -> None:
    states = server.states("chosen")
    equal([version for version, state in states.items() if state == "AVAILABLE"], [2, 1])


@check("Without a version the highest available one answers under a policy, too")
def _(server: Server) -> None:
    answer = server.predict(predict_request("chosen", {"x": [0.0]}))
    equal(answer.model_spec.version.value, 2)


def _no_spec(request: Any) -> Any:
    request.ClearField("model_spec")
    return request


_INVALID, _MISSING = Code.INVALID_ARGUMENT, Code.NOT_FOUND
_UNKNOWN_FIELD = metadata_request(_NAME, ("signature_def", "other"))
_REFUSED = {
    "GetModelMetadata without a model_spec": (_no_spec(metadata_request("")), _INVALID, "Missing ModelSpec"),
    "GetModelMetadata without a field": (
        metadata_request(_NAME, ()),
        _INVALID,
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "GetModelMetadata of an unknown field": (_UNKNOWN_FIELD, _INVALID, "Metadata field other is not supported"),
    "GetModelMetadata of an unknown field, whatever the model is": (
        metadata_request("nothing", ("other",)),
        _INVALID,
        "Metadata field other is not supported",
    ),
    "GetModelMetadata of an unknown model": (
        metadata_request("nothing"),
        _MISSING,
        "Servable not found for request: Latest(nothing)",
    ),
    "GetModelMetadata of an unknown version": (
        metadata_request(_NAME, version=7),
        _MISSING,
        "Servable not found for request: Specific(half_plus_three, 7)",
    ),
    "GetModelMetadata of an unknown label": (
        metadata_request(_NAME, label="canary"),
        _INVALID,
        "Unrecognized servable version label: canary",
    ),
    "GetModelStatus without a model_spec": (_no_spec(status_request("")), _INVALID, "Missing ModelSpec"),
    "GetModelStatus of an unknown model": (
        status_request("nothing"),
        _MISSING,
        "Could not find any versions of model nothing",
    ),
    "GetModelStatus of an empty name": (status_request(""), _MISSING, "Could not find any versions of model "),
    "GetModelStatus of an unknown version": (
        status_request(_NAME, version=7),
        _MISSING,
        "Could not find version 7 of model half_plus_three",
    ),
}


def _refused(case: str, request: Any, code: Any, text: str) -> None:
    def run(server: Server) -> None:
        is_status = case.startswith("GetModelStatus")
        method = server.models.GetModelStatus if is_status else server.predictions.GetModelMetadata
        server.refused(method, request, code, text)

    CHECKS.append(Check(f"{case} is {code.name}: {text}", run))


for _case, _expected in _REFUSED.items():
    _refused(_case, *_expected)


@check("grpc.health.v1 says SERVING for the whole server")
def _(server: Server) -> None:
    answer = server.call(server.health.Check, health_pb2.HealthCheckRequest())
    equal(answer.status, health_pb2.HealthCheckResponse.SERVING)


@check("grpc.health.v1 says SERVING for ModelService and PredictionService")
def _(server: Server) -> None:
    for service in ("ModelService", "PredictionService"):
        answer = server.call(server.health.Check, health_pb2.HealthCheckRequest(service=service))
        equal((service, answer.status), (service, health_pb2.HealthCheckResponse.SERVING))


@check("grpc.health.v1 of an unknown service is NOT_FOUND")
def _(server: Server) -> None:
    server.refused(server.health.Check, health_pb2.HealthCheckRequest(service="other"), Code.NOT_FOUND)


def _samples(server: Server, start: str) -> dict[str, float]:
    text = server.rest("GET", _METRICS).text
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(start)]
    return {name: float(value) for name, _, value in lines}


@check("The metrics are plain text on the REST port")
def _(server: Server) -> None:
    answer = server.rest("GET", _METRICS)
    equal(answer.status, 200)
    contains(answer.content_type, "text/plain")


@check("request_count counts by model and status")
def _(server: Server) -> None:
    count = ":tensorflow:serving:request_count"
    before = sum(_samples(server, f'{count}{{model_name="matrices",status="OK"}}').values())
    server.predict(predict_request("matrices", {"m": [[[1.0, 2.0]]]}))
    found = _samples(server, f"{count}{{")
    equal(found[f'{count}{{model_name="matrices",status="OK"}}'], before + 1)


@check("request_count has the statuses of refusals")
def _(server: Server) -> None:
    server.refused(server.predictions.Predict, predict_request("pair", {}), Code.INVALID_ARGUMENT)
    sample = ':tensorflow:serving:request_count{model_name="pair",status="INVALID_ARGUMENT"}'
    equal(_samples(server, sample)[sample] >= 1, True)


@check("request_latency is a histogram in microseconds by model, API and entrypoint")
def _(server: Server) -> None:
    server.predict(predict_request("matrices", {"m": [[[1.0, 2.0]]]}))
    found = _samples(server, ":tensorflow:serving:request_latency_count")
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', sample)) for sample in found]
    equal({"model_name": "matrices", "API": "Predict", "entrypoint": "GRPC"} in labels, True)


@check("runtime_latency is there by model")
def _(server: Server) -> None:
    server.predict(predict_request("matrices", {"m": [[[1.0, 2.0]]]}))
    found = _samples(server, ":tensorflow:serving:runtime_latency_count")
    equal(any('model_name="matrices"' in sample for sample in found), True)
