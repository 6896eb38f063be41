"""Classify, Regress and MultiInference, with tf.Examples."""

import importlib
from collections.abc import Mapping
from typing import Any

from tools.conformance.graphs import CLASSIFY, REGRESS
from tools.conformance.models import MANUAL_VERSION
from tools.conformance.suite import CHECKS, Check, Code, Server, check, equal, spec

_NAME = "half_plus_three"
_PATH = f"/v1/models/{_NAME}"


def _message(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"tensorflow_serving.apis.{module}_pb2"), name)()


def _fill(request: Any, *xs: float, context: float | None = None) -> Any:
    examples = request.input.example_list if context is None else request.input.example_list_with_context
    for x in xs:
        examples.examples.add().features.feature["x"].float_list.value.append(x)
    if context is not None:
        examples.context.features.feature["x2"].float_list.value.append(context)
    return request


def _classify(*xs: float, signature: str = "classify_x_to_y", name: str = _NAME, **more: Any) -> Any:
    return spec(_fill(_message("classification", "ClassificationRequest"), *xs), name, signature=signature, **more)


def _regress(
    *xs: float, signature: str = "regress_x_to_y", name: str = _NAME, context: float | None = None, **more: Any
) -> Any:
    request = _fill(_message("regression", "RegressionRequest"), *xs, context=context)
    return spec(request, name, signature=signature, **more)


def _multi(tasks: Mapping[str, str], *xs: float, names: Mapping[str, str] | None = None) -> Any:
    request = _fill(_message("inference", "MultiInferenceRequest"), *xs)
    for signature, method in tasks.items():
        task = spec(request.tasks.add(), (names or {}).get(signature, _NAME), signature=signature)
        task.method_name = method
    return request


@check("Classify answers the scores of each example")
def _(server: Server) -> None:
    answer = server.call(server.predictions.Classify, _classify(2.0, 4.0))
    found = [[(one.label, one.score) for one in result.classes] for result in answer.result.classifications]
    equal(found, [[("", 4.0)], [("", 5.0)]])
    equal((answer.model_spec.name, answer.model_spec.version.value), (_NAME, MANUAL_VERSION))


@check("Regress answers one value for each example")
def _(server: Server) -> None:
    answer = server.call(server.predictions.Regress, _regress(2.0, 4.0))
    equal([one.value for one in answer.result.regressions], [4.0, 5.0])
    equal((answer.model_spec.signature_name, answer.model_spec.version.value), ("regress_x_to_y", MANUAL_VERSION))


@check("The context's features belong to each example")
def _(server: Server) -> None:
    answer = server.call(server.predictions.Regress, _regress(1.0, 2.0, signature="regress_x2_to_y", context=4.0))
    equal([one.value for one in answer.result.regressions], [5.0, 5.0])


@check("MultiInference answers its tasks in order")
def _(server: Server) -> None:
    request = _multi({"regress_x_to_y": REGRESS, "classify_x_to_y": CLASSIFY}, 2.0)
    results = server.call(server.predictions.MultiInference, request).results
    equal([one.WhichOneof("result") for one in results], ["regression_result", "classification_result"])
    equal(results[0].regression_result.regressions[0].value, 4.0)
    equal(results[1].classification_result.classifications[0].classes[0].score, 4.0)


_INVALID = Code.INVALID_ARGUMENT
_NO_SPEC = _regress(1.0)
_NO_SPEC.ClearField("model_spec")
_SAME = _multi({"regress_x_to_y": REGRESS}, 1.0)
_SAME.tasks.append(_SAME.tasks[0])
_REFUSED = {
    ("Classify", "without examples"): (_classify(), _INVALID, "Input is empty."),
    ("Classify", "of an unknown model"): (
        _classify(1.0, name="nothing"),
        Code.NOT_FOUND,
        "Servable not found for request: Latest(nothing)",
    ),
    ("Classify", "of an unknown version"): (_classify(1.0, version=7), Code.NOT_FOUND, "Specific(half_plus_three, 7)"),
    ("Classify", "of an unknown signature"): (
        _classify(1.0, signature="other"),
        _INVALID,
        "No signature was found with the name: other",
    ),
    ("Classify", "of a signature that regresses"): (
        _classify(1.0, signature="regress_x_to_y"),
        _INVALID,
        "Expected classification signature outputs to contain at least one of",
    ),
    ("Regress", "without a model_spec"): (_NO_SPEC, _INVALID, "Missing ModelSpec"),
    ("Regress", "without examples"): (_regress(), _INVALID, "Input is empty."),
    ("Regress", "of an unknown signature"): (
        _regress(1.0, signature="other"),
        _INVALID,
        "No signature was found with the name: other",
    ),
    ("Regress", "of a signature that classifies"): (
        _regress(1.0, signature="classify_x_to_y"),
        _INVALID,
        "No regression outputs found in SignatureDef",
    ),
    ("MultiInference", "of two models"): (
        _multi({"regress_x_to_y": REGRESS, "classify_x_to_y": CLASSIFY}, 1.0, names={"classify_x_to_y": "other"}),
        _INVALID,
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    ("MultiInference", "of one signature twice"): (
        _SAME,
        _INVALID,
        "Duplicate evaluation of signature: regress_x_to_y",
    ),
    ("MultiInference", "of another method"): (
        _multi({"regress_x_to_y": "other"}, 1.0),
        Code.UNIMPLEMENTED,
        "Unsupported signature method_name: other",
    ),
}


def _refused(method: str, case: str, request: Any, code: Any, text: str) -> None:
    CHECKS.append(
        Check(
            f"{method} {case} is {code.name}: {text}",
            lambda server: server.refused(getattr(server.predictions, method), request, code, text),
        )
    )


for (_method, _case), _expected in _REFUSED.items():
    _refused(_method, _case, *_expected)


@check("The manual's example: regress")
def _(server: Server) -> None:
    body = '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}'
    equal(server.rest_predict(_NAME, body, "regress"), {"results": [3.5, 4.0]})


@check("REST classify answers pairs of label and score")
def _(server: Server) -> None:
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": [2.0]}, {"x": 4.0}]}
    equal(server.rest_predict(_NAME, body, "classify"), {"results": [[["", 4.0]], [["", 5.0]]]})


@check("REST regress with a context")
def _(server: Server) -> None:
    body = {"signature_name": "regress_x2_to_y", "context": {"x2": 4.0}, "examples": [{"x": 1.0}, {"x": 2.0}]}
    equal(server.rest_predict(_NAME, body, "regress"), {"results": [5.0, 5.0]})


_BAD_BODIES: list[tuple[str, Any, int, str]] = [
    ("classify", {}, 400, "key 'examples' is expected and was not found"),
    ("classify", {"examples": {"x": 1.0}}, 400, "Expecting 'examples' value to be an list/array"),
    ("regress", {"examples": []}, 400, "'examples' value is an empty array"),
    ("regress", {"examples": [1.0]}, 400, "Example must be JSON object but got JSON Number"),
    ("regress", {"examples": [{"x": [1.0, "a"]}]}, 400, "Unexpected element type in feature: x expecting type: float"),
    ("regress", {"examples": [{"x": None}]}, 400, "Feature: x has element with unexpected JSON type: Null"),
    ("regress", "[", 400, "JSON Parse error: "),
]


def _bad_body(method: str, body: Any, status: int, text: str) -> None:
    path = f"{_PATH}:{method}"
    CHECKS.append(
        Check(
            f"POST {path} {body} is {status}: {text}",
            lambda server: server.rest_refused("POST", path, body, status, text),
        )
    )


for _row in _BAD_BODIES:
    _bad_body(*_row)
