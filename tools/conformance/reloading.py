"""HandleReloadConfigRequest and version labels. Each check ends with the models of the start."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tools.conformance.suite import (
    Code,
    Server,
    check,
    contains,
    equal,
    metadata_request,
    predict_request,
)

_ZERO = {"x": [0.0]}


@contextmanager
def _restored(server: Server) -> Iterator[None]:
    try:
        yield
    finally:
        server.reload(server.config())


def _version(server: Server, label: str) -> int:
    version: int = server.predict(predict_request("versions", _ZERO, label=label)).model_spec.version.value
    return version


def _refused(server: Server, request: object, code: Code, text: str) -> None:
    server.refused(server.models.HandleReloadConfigRequest, request, code, text)


def _gone(server: Server, name: str) -> Callable[[], bool]:
    return lambda: "AVAILABLE" not in server.states(name).values()


@check("A reload with the same models is answered with the status OK")
def _(server: Server) -> None:
    answer = server.reload(server.config())
    equal((answer.HasField("status"), answer.status.error_code, answer.status.error_message), (True, 0, ""))


@check("A reload is answered when the new model serves")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(more="spare"))
        equal(list(server.predict(predict_request("spare", _ZERO)).outputs["y"].float_val), [1.0])


@check("A model that a reload leaves out is unloaded, and its versions stay listed as END with OK")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config("pair"))
        server.eventually(_gone(server, "pair"), "pair is unloaded")
        server.eventually(lambda: server.states("pair") == {1: "END"}, "pair is END")
        request = predict_request("pair", {"a": [1.0], "b": [1.0]})
        server.refused(
            server.predictions.Predict, request, Code.NOT_FOUND, "Servable not found for request: Latest(pair)"
        )
        equal(list(server.predict(predict_request("versions", _ZERO)).outputs["y"].float_val), [3.0])


@check("A model that comes back serves again")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config("pair"))
        server.eventually(_gone(server, "pair"), "pair is unloaded")
    equal(server.states("pair"), {1: "AVAILABLE"})


@check("A version policy can be changed by a reload")
def _(server: Server) -> None:
    request = server.config()
    for model in request.config.model_config_list.config:
        if model.name == "latest_two":
            model.model_version_policy.latest.num_versions = 1
    with _restored(server):
        server.reload(request)
        server.eventually(lambda: server.states("latest_two").get(2) == "END", "version 2 of latest_two is END")
    server.eventually(lambda: server.states("latest_two").get(2) == "AVAILABLE", "version 2 of latest_two is back")


@check("A model that cannot be loaded is UNKNOWN: 1 model(s) did not become available, with the reason")
def _(server: Server) -> None:
    with _restored(server):
        text = "1 model(s) did not become available: {{{name: broken version: 1} due to error: "
        _refused(server, server.config(more="broken"), Code.UNKNOWN, text)
        equal(list(server.predict(predict_request("versions", _ZERO)).outputs["y"].float_val), [3.0])
        equal(server.states("broken"), {1: "END"})


@check("A model with a broken warm-up file is not served")
def _(server: Server) -> None:
    with _restored(server):
        text = "{name: bad_warmup version: 1} due to error: "
        _refused(server, server.config(more="bad_warmup"), Code.UNKNOWN, text)


@check("A model that is listed twice is INVALID_ARGUMENT, and nothing changes")
def _(server: Server) -> None:
    request = server.config("three", more="pair")
    _refused(server, request, Code.INVALID_ARGUMENT, "Illegal to list model pair multiple times in config list")
    equal(server.states("three"), {1: "AVAILABLE"})


@check("A relative base path is INVALID_ARGUMENT")
def _(server: Server) -> None:
    request = server.config(more="spare")
    request.config.model_config_list.config[-1].base_path = "models/spare"
    text = "Expected model spare to have an absolute path or URI; got base_path()=models/spare"
    _refused(server, request, Code.INVALID_ARGUMENT, text)


@check("A model without a platform is INVALID_ARGUMENT")
def _(server: Server) -> None:
    request = server.config()
    request.config.model_config_list.config[0].model_platform = ""
    text = "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform"
    _refused(server, request, Code.INVALID_ARGUMENT, text)


@check("Another platform for a model that is served is INVALID_ARGUMENT")
def _(server: Server) -> None:
    request = server.config()
    request.config.model_config_list.config[0].model_platform = "other"
    text = "Illegal to change a model's platform. For model half_plus_two platform was tensorflow and new platform"
    _refused(server, request, Code.INVALID_ARGUMENT, text)


@check("A reload without a list is INVALID_ARGUMENT")
def _(server: Server) -> None:
    request = server.config()
    request.ClearField("config")
    text = "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently"
    _refused(server, request, Code.INVALID_ARGUMENT, text)


@check("A label names a version in gRPC")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(labels={"stable": 1, "canary": 3}))
        equal((_version(server, "stable"), _version(server, "canary")), (1, 3))


@check("A label is one of its own model")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(labels={"stable": 1}))
        request = predict_request("chosen", _ZERO, label="stable")
        text = "Unrecognized servable version label: stable"
        server.refused(server.predictions.Predict, request, Code.INVALID_ARGUMENT, text)


@check("A label names a version in REST, percent-decoded")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(labels={"stable_1": 1}))
        for path in ("stable_1", "stable%5F1"):
            answer = server.rest("POST", f"/v1/models/versions/labels/{path}:predict", {"instances": [0.0]})
            equal((answer.status, answer.json), (200, {"predictions": [1.0]}))


@check("A label names a version in GetModelMetadata, in gRPC and REST")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(labels={"stable": 2}))
        answer = server.call(server.predictions.GetModelMetadata, metadata_request("versions", label="stable"))
        equal(answer.model_spec.version.value, 2)
        found = server.rest("GET", "/v1/models/versions/labels/stable/metadata").json
        equal(found["model_spec"]["version"], "2")


@check("A label moves to another version that is available")
def _(server: Server) -> None:
    with _restored(server):
        for version in (1, 2):
            server.reload(server.config(labels={"stable": version}))
            equal(_version(server, "stable"), version)


@check("A label that a reload leaves out is gone")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(labels={"stable": 1}))
    request = predict_request("versions", _ZERO, label="stable")
    text = "Unrecognized servable version label: stable"
    server.refused(server.predictions.Predict, request, Code.INVALID_ARGUMENT, text)


@check("A label for a version that is not there is FAILED_PRECONDITION, and the labels stay as they are")
def _(server: Server) -> None:
    with _restored(server):
        server.reload(server.config(labels={"stable": 1}))
        text = "Request to assign label to version 9 of model versions, which is not currently available for inference"
        _refused(server, server.config(labels={"stable": 9}), Code.FAILED_PRECONDITION, text)
        equal(_version(server, "stable"), 1)


@check("Two models are told of when two cannot be loaded")
def _(server: Server) -> None:
    with _restored(server):
        request = server.config(more="broken bad_warmup")
        text = server.refused(server.models.HandleReloadConfigRequest, request, Code.UNKNOWN)
        contains(text, "2 model(s) did not become available: {")
