"""Predict over gRPC: answers, and the order and texts of refusals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving_common.tensorflow_protos import predict_pb2, tensor_pb2
from tools.conformance.graphs import BOOL, DOUBLE, FLOAT, INT32, INT64, STRING, tensor
from tools.conformance.models import MANUAL_VERSION
from tools.conformance.suite import CHECKS, Check, Code, Server, check, contains, equal, predict_request

_NAME = "half_plus_two"
_X = {"x": [[1.0], [2.0], [5.0]]}
_Y = [2.5, 3.0, 4.5]


def _y(server: Server, request: Any, output: str = "y") -> list[float]:
    return list(server.predict(request).outputs[output].float_val)


@check("Predict without a signature name runs serving_default")
def _(server: Server) -> None:
    equal(_y(server, predict_request(_NAME, _X)), _Y)


@check("The answer's model_spec has the name, the version that was used and `serving_default`")
def _(server: Server) -> None:
    spec = server.predict(predict_request(_NAME, _X)).model_spec
    equal((spec.name, spec.version.value, spec.signature_name), (_NAME, MANUAL_VERSION, "serving_default"))


@check("Predict runs the signature that is named, and the answer's model_spec has its name")
def _(server: Server) -> None:
    answer = server.predict(predict_request(_NAME, _X, signature="again"))
    equal((list(answer.outputs["y"].float_val), answer.model_spec.signature_name), ([3.5, 4.0, 5.5], "again"))


@check("A version can be named by its number; the folder's leading zeros do not count")
def _(server: Server) -> None:
    equal(_y(server, predict_request(_NAME, _X, version=MANUAL_VERSION)), _Y)


@check("Of several versions each is served under its number")
def _(server: Server) -> None:
    for version in (1, 2, 3):
        equal(_y(server, predict_request("versions", {"x": [0.0]}, version=version)), [float(version)])


@check("Without a version the highest one answers")
def _(server: Server) -> None:
    answer = server.predict(predict_request("versions", {"x": [0.0]}))
    equal((list(answer.outputs["y"].float_val), answer.model_spec.version.value), ([3.0], 3))


@check("The output has the dtype and the shape")
def _(server: Server) -> None:
    output = server.predict(predict_request(_NAME, _X)).outputs["y"]
    equal((output.dtype, [dim.size for dim in output.tensor_shape.dim]), (FLOAT, [3, 1]))


@check("The output is in the typed field, not in tensor_content")
def _(server: Server) -> None:
    output = server.predict(predict_request(_NAME, _X)).outputs["y"]
    equal((len(output.float_val), output.tensor_content), (3, b""))


@check("tensor_content is read as raw little-endian values")
def _(server: Server) -> None:
    content = np.array(_X["x"], "<f4").tobytes()
    value = tensor([], shape=(3, 1))
    value.tensor_content = content
    equal(_y(server, predict_request(_NAME, {"x": value})), _Y)


@check("Of too few values the last one is repeated")
def _(server: Server) -> None:
    equal(_y(server, predict_request(_NAME, {"x": tensor([1.0, 2.0], shape=(4, 1))})), [2.5, 3.0, 3.0, 3.0])


@check("Too many values are cut off")
def _(server: Server) -> None:
    equal(_y(server, predict_request(_NAME, {"x": tensor([1.0, 2.0, 5.0], shape=(2, 1))})), [2.5, 3.0])


@check("No values are zeros")
def _(server: Server) -> None:
    equal(_y(server, predict_request(_NAME, {"x": tensor([], shape=(2, 1))})), [2.0, 2.0])


@check("A batch of no rows has an answer of no rows")
def _(server: Server) -> None:
    output = server.predict(predict_request(_NAME, {"x": tensor([], shape=(0, 1))})).outputs["y"]
    equal(([dim.size for dim in output.tensor_shape.dim], len(output.float_val)), ([0, 1], 0))


@check("A shape that the signature does not foresee is taken if the graph takes it")
def _(server: Server) -> None:
    output = server.predict(predict_request(_NAME, {"x": [1.0, 2.0, 5.0]})).outputs["y"]
    equal(([dim.size for dim in output.tensor_shape.dim], list(output.float_val)), ([3], _Y))


@check("Without output_filter all outputs are in the answer")
def _(server: Server) -> None:
    outputs = server.predict(predict_request("pair", {"a": [2.0], "b": [3.0]})).outputs
    equal({alias: list(one.float_val) for alias, one in outputs.items()}, {"sum": [5.0], "product": [6.0]})


@check("output_filter chooses the outputs")
def _(server: Server) -> None:
    answer = server.predict(predict_request("pair", {"a": [2.0], "b": [3.0]}, outputs=("product",)))
    equal(list(answer.outputs), ["product"])


@check("An input with a default may be left out")
def _(server: Server) -> None:
    equal(_y(server, predict_request("pair", {"a": [2.0]}, signature="with_default"), "sum"), [12.0])


@check("A default is overridden by the request")
def _(server: Server) -> None:
    request = predict_request("pair", {"a": [2.0], "b": [1.0]}, signature="with_default")
    equal(_y(server, request, "sum"), [3.0])


def _of_type(name: str, dtype: int, field: str, values: list[Any], expected: list[Any]) -> None:
    alias, output = ("flag", "opposite") if name == "bool" else ("n", "next")

    def run(server: Server) -> None:
        request = predict_request("numbers", {alias: tensor(values, dtype)}, signature=name)
        answer = server.predict(request).outputs[output]
        equal((answer.dtype, list(getattr(answer, field))), (dtype, expected))

    CHECKS.append(Check(f"{name}: read from {field}, and answered in {field}", run))


_of_type("int32", INT32, "int_val", [-1, 2**31 - 2], [0, 2**31 - 1])
_of_type("int64", INT64, "int64_val", [-1, 2**53], [0, 2**53 + 1])
_of_type("double", DOUBLE, "double_val", [0.5, 1e300], [1.5, 1e300])
_of_type("bool", BOOL, "bool_val", [True, False], [False, True])


@check("Strings are any bytes, in string_val")
def _(server: Server) -> None:
    values = [b"", b"\xff\x00", "é".encode()]
    answer = server.predict(predict_request("text", {"s": tensor(values, STRING)}))
    equal(list(answer.outputs["echo"].string_val), values)


@check("A model with a warm-up file is served")
def _(server: Server) -> None:
    equal(_y(server, predict_request("warmed", {"x": [1.0]})), [2.0])


@check("An error text of more than 1024 characters is cut and ends with ...TRUNCATED")
def _(server: Server) -> None:
    request = predict_request(_NAME, _X, signature="s" * 5000)
    text = server.refused(server.predictions.Predict, request, Code.FAILED_PRECONDITION)
    equal((len(text), text[-12:]), (1024 + len("...TRUNCATED"), "...TRUNCATED"))


@check("Predict reports the names of wrong inputs, sorted")
def _(server: Server) -> None:
    request = predict_request("pair", {"z": [1.0], "b": [1.0], "c": [1.0]})
    text = server.refused(server.predictions.Predict, request, Code.INVALID_ARGUMENT)
    contains(text, "input size does not match signature: 3!=2 len({b,c,z}) != len({a,b}).")
    contains(text, "Sent extra: {c,z}. Missing but required: {a}.")


def _content(content: bytes) -> tensor_pb2.TensorProto:
    value = tensor([], shape=(1, 1))
    value.tensor_content = content
    return value


_WRONG_TYPE = tensor([1.0], dtype=FLOAT, shape=(1, 1))
_WRONG_TYPE.dtype = 0
_WITHOUT_SPEC = predict_request(_NAME, _X)
_WITHOUT_SPEC.ClearField("model_spec")
_LATEST = "Servable not found for request: Latest(nothing)"
_SPECIFIC = "Servable not found for request: Specific(half_plus_two, 7)"
_INVALID, _MISSING = Code.INVALID_ARGUMENT, Code.NOT_FOUND
_MORE = "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}."

_REFUSED: Mapping[str, tuple[predict_pb2.PredictRequest, Any, str]] = {
    "without a model_spec": (_WITHOUT_SPEC, _INVALID, "Missing ModelSpec"),
    "with an empty name": (predict_request("", _X), _INVALID, "ModelSpec has no name specified."),
    "of an unknown label": (
        predict_request(_NAME, _X, label="canary"),
        _INVALID,
        "Unrecognized servable version label: canary",
    ),
    "of an unknown model": (predict_request("nothing", _X), _MISSING, _LATEST),
    "of an unknown version": (predict_request(_NAME, _X, version=7), _MISSING, _SPECIFIC),
    "of a version that the policy leaves out": (
        predict_request("chosen", {"x": [1.0]}, version=3),
        _MISSING,
        "Servable not found for request: Specific(chosen, 3)",
    ),
    "of an unknown signature": (
        predict_request(_NAME, _X, signature="other"),
        Code.FAILED_PRECONDITION,
        'Serving signature key "other" not found.',
    ),
    "without inputs": (predict_request(_NAME, {}), _INVALID, "input size does not match signature: 0!=1"),
    "with an input too many": (predict_request(_NAME, {**_X, "z": [1.0]}), _INVALID, _MORE),
    "with an input under a wrong name": (
        predict_request(_NAME, {"z": _X["x"]}),
        _INVALID,
        "not found in request and no default value provided. Inputs expected to be in the request {z}",
    ),
    "with tensor_content that is too short": (
        predict_request(_NAME, {"x": _content(b"123")}),
        _INVALID,
        "tensor parsing error: x",
    ),
    "with tensor_content that is too long": (
        predict_request(_NAME, {"x": _content(bytes(8))}),
        _INVALID,
        "tensor parsing error: x",
    ),
    "with a negative dimension": (
        predict_request(_NAME, {"x": tensor([1.0], shape=(-1, 1))}),
        _INVALID,
        "tensor parsing error: x",
    ),
    "without a dtype": (predict_request(_NAME, {"x": _WRONG_TYPE}), _INVALID, "tensor parsing error: x"),
    "with an unknown output_filter": (
        predict_request("pair", {"a": [1.0], "b": [1.0]}, outputs=("sum", "other")),
        _INVALID,
        "output tensor alias not found in signature: other Outputs expected to be in the set {product,sum}.",
    ),
    "with an output_filter that repeats": (
        predict_request("pair", {"a": [1.0], "b": [1.0]}, outputs=("sum", "sum")),
        _INVALID,
        "duplicate output tensor alias: sum",
    ),
    # The texts of the next ones are those of the runtime.
    "of another dtype": (predict_request(_NAME, {"x": tensor([[1]], INT32)}), _INVALID, ""),
    "of strings for numbers": (predict_request(_NAME, {"x": tensor([[b"1"]], STRING)}), _INVALID, ""),
    "of shapes that do not go together": (predict_request("pair", {"a": [1.0, 2.0], "b": [1.0] * 3}), _INVALID, ""),
    "of an unknown model, whatever its inputs are": (predict_request("nothing", {}), _MISSING, _LATEST),
    "of an unknown signature, whatever its inputs are": (
        predict_request(_NAME, {"z": [1.0]}, signature="other"),
        Code.FAILED_PRECONDITION,
        'Serving signature key "other" not found.',
    ),
    "with a broken tensor, whatever its output_filter is": (
        predict_request(_NAME, {"x": _content(b"123")}, outputs=("other",)),
        _INVALID,
        "tensor parsing error: x",
    ),
}


def _refused(case: str, request: predict_pb2.PredictRequest, code: Any, text: str) -> None:
    told = f": {text}" if text else ""
    CHECKS.append(
        Check(
            f"Predict {case} is {code.name}{told}",
            lambda server: server.refused(server.predictions.Predict, request, code, text),
        )
    )


for _case, _expected in _REFUSED.items():
    _refused(_case, *_expected)
