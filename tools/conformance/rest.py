"""The REST API: the examples of TensorFlow Serving's manual, paths, predictions and refusals."""

from typing import Any

from tools.conformance.suite import CHECKS, Check, Server, check, contains, equal

_TWO = "/v1/models/half_plus_two"
_PREDICT = f"{_TWO}:predict"
_PAIR = "/v1/models/pair:predict"
_SENSORS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
_COLUMNS = {key: [row[key] for row in _SENSORS] for key in ("tag", "signal", "sensor")}

_BYTES = {"b64": "aW1hZ2UgYnl0ZXM="}

# text: model, body, answer. The first ones are the manual's.
_ANSWERED: list[tuple[str, str, Any, Any]] = [
    (
        "The manual's example: half_plus_two of [1.0, 2.0, 5.0]",
        "half_plus_two",
        {"instances": [1.0, 2.0, 5.0]},
        {"predictions": [2.5, 3.0, 4.5]},
    ),
    (
        "The manual's example: half_plus_three of [1.0,2.0,5.0]",
        "half_plus_three",
        '{"instances": [1.0,2.0,5.0]}',
        {"predictions": [3.5, 4.0, 5.5]},
    ),
    (
        'The manual\'s row format: a list of 3 scalar tensors, ["foo", "bar", "baz"]',
        "text",
        {"instances": ["foo", "bar", "baz"]},
        {"predictions": ["foo", "bar", "baz"]},
    ),
    (
        "The manual's row format: a list of 2 tensors of shape [1, 2]",
        "matrices",
        {"instances": [[[1, 2]], [[3, 4]]]},
        {"predictions": [[[2.0, 4.0]], [[6.0, 8.0]]]},
    ),
    (
        "The manual's row format with several named inputs: a list of objects, answered with one",
        "three",
        {"instances": _SENSORS},
        {"predictions": _SENSORS},
    ),
    (
        "The manual's column format: an object of lists, answered with one",
        "three",
        {"inputs": _COLUMNS},
        {"outputs": _COLUMNS},
    ),
    ("Rows of the signature's shape", "half_plus_two", {"instances": [[1.0], [5]]}, {"predictions": [[2.5], [4.5]]}),
    (
        "Rows may be objects with the input's name",
        "half_plus_two",
        {"instances": [{"x": [1.0]}, {"x": [2.0]}]},
        {"predictions": [[2.5], [3.0]]},
    ),
    ("A column without a name", "half_plus_two", {"inputs": [[1.0]]}, {"outputs": [[2.5]]}),
    ("A column with its name", "half_plus_two", {"inputs": {"x": [[1.0]]}}, {"outputs": [[2.5]]}),
    (
        "signature_name chooses the signature",
        "half_plus_two",
        {"signature_name": "again", "instances": [[1.0]]},
        {"predictions": [[3.5]]},
    ),
    ("Other keys of the body are ignored", "half_plus_two", {"id": 7, "inputs": [[1.0]]}, {"outputs": [[2.5]]}),
    (
        "Several outputs of rows are objects per row",
        "pair",
        {"instances": [{"a": 2, "b": 3}, {"a": 0.5, "b": 4}]},
        {"predictions": [{"sum": 5.0, "product": 6.0}, {"sum": 4.5, "product": 2.0}]},
    ),
    (
        "Several outputs of columns are an object of lists",
        "pair",
        {"inputs": {"a": [2, 0.5], "b": [3, 4]}},
        {"outputs": {"sum": [5.0, 4.5], "product": [6.0, 2.0]}},
    ),
    (
        "An input with a default may be missing in a column",
        "pair",
        {"signature_name": "with_default", "inputs": {"a": [2.0]}},
        {"outputs": [12.0]},
    ),
    (
        "int64 is exact",
        "numbers",
        {"signature_name": "int64", "instances": [9007199254740992]},
        {"predictions": [9007199254740993]},
    ),
    (
        "int32 and negative numbers",
        "numbers",
        {"signature_name": "int32", "inputs": {"n": [-2, 0]}},
        {"outputs": [-1, 1]},
    ),
    ("double", "numbers", {"signature_name": "double", "instances": [0.1]}, {"predictions": [1.1]}),
    ("bool", "numbers", {"signature_name": "bool", "instances": [True, False]}, {"predictions": [False, True]}),
    ('{"b64": ...} is bytes', "text", {"instances": [_BYTES]}, {"predictions": ["image bytes"]}),
    ('{"b64": ...} in a named row', "text", {"instances": [{"s": _BYTES}]}, {"predictions": ["image bytes"]}),
    (
        "An output whose name ends with _bytes is answered as b64",
        "text",
        {"signature_name": "bytes", "instances": [{"b64": "/wA="}, "é"]},
        {"predictions": [{"b64": "/wA="}, {"b64": "w6k="}]},
    ),
]


def _answered(text: str, model: str, body: Any, expected: Any) -> None:
    CHECKS.append(Check(text, lambda server: equal(server.rest_predict(model, body), expected)))


for _row in _ANSWERED:
    _answered(*_row)


@check("NaN, Infinity and -Infinity are accepted and answered")
def _(server: Server) -> None:
    body = '{"instances": [NaN, Infinity, -Infinity]}'
    answer = server.rest("POST", "/v1/models/numbers:predict", body)
    equal(answer.status, 200)
    contains("".join(answer.text.split()), "[NaN,-Infinity,Infinity]")


@check("A whole float is written with .0, and others with as few digits as round-trip")
def _(server: Server) -> None:
    answer = server.rest("POST", "/v1/models/numbers:predict", {"instances": [-2, -0.1, -1.5]})
    contains("".join(answer.text.split()), "[2.0,0.1,1.5]")


@check("The content type of an answer is application/json")
def _(server: Server) -> None:
    contains(server.rest("POST", _PREDICT, {"instances": [[1.0]]}).content_type, "application/json")


@check("The content type of the request is ignored")
def _(server: Server) -> None:
    answer = server.rest("POST", _PREDICT, {"instances": [[1.0]]}, content_type="text/plain")
    equal(answer.status, 200)


@check("A body may be compressed with gzip")
def _(server: Server) -> None:
    answer = server.rest("POST", _PREDICT, '{"instances": [[1.0]]}', content_encoding="gzip")
    equal((answer.status, answer.json), (200, {"predictions": [[2.5]]}))


@check("A prediction of a version")
def _(server: Server) -> None:
    answer = server.rest("POST", "/v1/models/versions/versions/2:predict", {"instances": [0.0]})
    equal(answer.json, {"predictions": [2.0]})


@check("Leading zeros of a version in a path do not count")
def _(server: Server) -> None:
    answer = server.rest("POST", "/v1/models/versions/versions/002:predict", {"instances": [0.0]})
    equal(answer.json, {"predictions": [2.0]})


_HEALTHY = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@check("The manual's example: the status of a model; the version is a string")
def _(server: Server) -> None:
    answer = server.rest("GET", "/v1/models/half_plus_three")
    equal(answer.json, {"model_version_status": [{"version": "123", **_HEALTHY}]})


@check("The status of a version")
def _(server: Server) -> None:
    answer = server.rest("GET", "/v1/models/versions/versions/2")
    equal(answer.json, {"model_version_status": [{"version": "2", **_HEALTHY}]})


@check("The status of a label is that of all versions")
def _(server: Server) -> None:
    equal(len(server.rest("GET", "/v1/models/versions/labels/nothing").json["model_version_status"]), 3)


@check("The metadata: signature_def is nested twice, and default values are there")
def _(server: Server) -> None:
    answer = server.rest("GET", f"{_TWO}/metadata").json
    equal(answer["model_spec"], {"name": "half_plus_two", "signature_name": "", "version": "123"})
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    equal(signature["method_name"], "tensorflow/serving/predict")
    info = signature["inputs"]["x"]
    equal((info["dtype"], info["name"]), ("DT_FLOAT", "x:0"))
    sizes = [{"size": size, "name": ""} for size in ("-1", "1")]
    equal(info["tensor_shape"], {"dim": sizes, "unknown_rank": False})


@check("Paths ignore case, names do not")
def _(server: Server) -> None:
    equal(server.rest("GET", "/V1/Models/half_plus_two/METADATA").status, 200)
    server.rest_refused("GET", "/v1/models/HALF_plus_two", None, 404)


@check("A name in a path is percent-decoded")
def _(server: Server) -> None:
    equal(server.rest("GET", "/v1/models/half%5Fplus_two").status, 200)


@check("A path outside of /v1/ is 404")
def _(server: Server) -> None:
    equal(server.rest("GET", "/foo").status, 404)


@check("OPTIONS under /v1/ with an origin is 200 without a body, else 400")
def _(server: Server) -> None:
    asked = server.rest("OPTIONS", _PREDICT, origin="http://example.com")
    equal((asked.status, asked.text, server.rest("OPTIONS", _PREDICT).status), (200, "", 400))


_ROWS = '{"instances": [[1.0]]}'
_BOTH = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
_LATEST = "Servable not found for request: Latest(half)"
# method, path, body, status, text
_REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/models/half:predict", {"instances": [1.0, 5.0]}, 404, _LATEST),
    ("POST", f"{_TWO}/versions/7:predict", _ROWS, 404, "Servable not found for request: Specific(half_plus_two, 7)"),
    ("POST", f"{_TWO}/labels/canary:predict", _ROWS, 400, "Unrecognized servable version label: canary"),
    ("GET", "/v1/models", None, 400, "Missing model name in request."),
    ("GET", "/v1/foo", None, 400, "Malformed request: GET /v1/foo"),
    ("PUT", _PREDICT, _ROWS, 400, f"Malformed request: PUT {_PREDICT}"),
    ("GET", _PREDICT, None, 400, f"Malformed request: GET {_PREDICT}"),
    ("POST", _TWO, _ROWS, 400, f"Malformed request: POST {_TWO}"),
    ("POST", f"{_TWO}:other", _ROWS, 400, f"Malformed request: POST {_TWO}:other"),
    ("GET", f"{_TWO}/versions/99999999999999999999", None, 400, "Failed to convert version: 99999999999999999999"),
    ("GET", "/v1/models/nothing", None, 404, "Could not find any versions of model nothing"),
    ("GET", f"{_TWO}/versions/7", None, 404, "Could not find version 7 of model half_plus_two"),
    ("GET", "/v1/models/nothing/metadata", None, 404, "Servable not found for request: Latest(nothing)"),
    ("GET", f"{_TWO}/labels/canary/metadata", None, 400, "Unrecognized servable version label: canary"),
    ("POST", _PREDICT, "", 400, "JSON Parse error: The document is empty"),
    ("POST", _PREDICT, '{"instances": [1.0', 400, "JSON Parse error: "),
    ("POST", _PREDICT, "{'instances': [1.0]}", 400, "at offset: 1"),
    ("POST", _PREDICT, "[1.0]", 400, "Is not object"),
    ("POST", _PREDICT, "{}", 400, "Missing 'inputs' or 'instances' key"),
    ("POST", _PREDICT, {"inputs": [1.0], "instances": [1.0]}, 400, _BOTH),
    ("POST", _PREDICT, {"instances": 1.0}, 400, "Expecting 'instances' to be an list/array"),
    ("POST", _PREDICT, {"instances": []}, 400, "No values in 'instances' array"),
    (
        *("POST", _PREDICT, {"instances": [[1.0]], "signature_name": 7}, 400),
        "'signature_name' key must be a string value.",
    ),
    (
        *("POST", _PREDICT, {"instances": [[1.0]], "signature_name": "other"}, 400),
        'Serving signature name: "other" not found in signature def',
    ),
    ("POST", "/v1/models/nothing:predict", "{", 400, "JSON Parse error: "),
    ("POST", "/v1/models/nothing:predict", "{}", 404, "Servable not found for request: Latest(nothing)"),
    ("POST", _PREDICT, {"instances": [["a"]]}, 400, "Type: String is not of expected type: float"),
    ("POST", _PREDICT, {"instances": [[None]]}, 400, "Type: Null is not of expected type: float"),
    ("POST", _PREDICT, {"instances": [[1.0], [1.0, 2.0]]}, 400, "Failed to process element: 1 of 'instances' list."),
    ("POST", _PREDICT, {"instances": [[1.0], {"x": [1.0]}]}, 400, "Expecting value/list but got object at item 1"),
    ("POST", _PREDICT, {"instances": [{"x": [1.0]}, [1.0]]}, 400, "Expecting object but got list at item 1"),
    ("POST", _PREDICT, {"inputs": [[1.0], [1.0, 2.0]]}, 400, "Encountered list at unexpected size: 2 at level: 1"),
    ("POST", _PREDICT, {"inputs": {"z": [[1.0]]}}, 400, "Missing named input: x in 'inputs' object."),
    ("POST", _PAIR, {"instances": [1.0]}, 400, "instances is a plain list, but expecting list of"),
    (
        "POST",
        _PAIR,
        {"inputs": [1.0]},
        400,
        "inputs is a plain value/list, but expecting an object",
    ),
    (
        "POST",
        _PAIR,
        {"instances": [{"a": 1.0}]},
        400,
        "Failed to process element: 0 of 'instances'",
    ),
    ("POST", "/v1/models/text:predict", {"instances": [1]}, 400, "Type: Number is not of expected type: string"),
    ("POST", "/v1/models/text:predict", {"instances": [{"b64": "%"}]}, 400, "Unable to base64 decode"),
]


def _refused(method: str, path: str, body: Any, status: int, text: str) -> None:
    told = f": {text}" if text else ""
    shown = f" {body}" if body is not None else ""
    CHECKS.append(
        Check(
            f"{method} {path}{shown} is {status}{told}",
            lambda server: server.rest_refused(method, path, body, status, text),
        )
    )


for _case in _REFUSED:
    _refused(*_case)
