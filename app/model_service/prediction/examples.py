"""Classify, Regress and MultiInference: signatures whose input is a list of serialized `tf.Example`.

The checks have TensorFlow Serving's order and texts. The server does not parse the examples; the graph does.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc

from model_service.errors import ServingError, invalid_argument, resource_exhausted
from model_service.models.engine import API
from model_service.models.saved_model import DEFAULT_SIGNATURE
from model_service.models.servables import Servable, Servables
from model_service.models.tensors import KINDS, Array, shape_text
from model_service.prediction import predict as prediction
from model_service.prediction.validation import CLASSIFY, REGRESS, Options, check_has_spec
from model_service.prediction.wire_format import Examples
from serving_common import tensorflow_protos as protos

# A class takes about 100 bytes of memory as a message.
MAX_VALUES = 500_000


def answer(api: str, servables: Servables, request: Any, examples: Examples, options: Options) -> Any:
    """Answer a method in METHODS. Raises ServingError."""
    _, method = METHODS[api]
    token = API.set(api)
    try:
        return method(servables, request, examples, options)
    finally:
        API.reset(token)


def _infer_one(
    method: str, response: Any, servables: Servables, request: Any, examples: Examples, options: Options
) -> Any:
    check_has_spec(request)
    with servables.use(request.model_spec) as servable:
        name = _signature_name(request.model_spec)
        outputs = _outputs(servable, name, method, options, "No signature was found with the name: ")
        result = _run(servable, name, method, outputs, examples, options)
        return response(model_spec=servable.spec(name), result=result)


def _multi_inference(
    servables: Servables, request: protos.inference_pb2.MultiInferenceRequest, examples: Examples, options: Options
) -> protos.inference_pb2.MultiInferenceResponse:
    """Run several signatures of one model."""
    first = request.tasks[0].model_spec if request.tasks else protos.model_pb2.ModelSpec()
    with servables.use(first) as servable:
        checked: dict[str, tuple[str, Sequence[str]]] = {}
        for task in request.tasks:
            name = _signature_name(task.model_spec)
            if not task.model_spec.name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            if task.model_spec.name != first.name:
                raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if name in checked:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
            missing = "Requested signature not found in model graph: "
            checked[name] = task.method_name, _outputs(servable, name, task.method_name, options, missing)
        response = protos.inference_pb2.MultiInferenceResponse()
        for name, (method, outputs) in checked.items():
            result = _run(servable, name, method, outputs, examples, options)
            field = "classification_result" if method == CLASSIFY else "regression_result"
            response.results.add(model_spec=servable.spec(name), **{field: result})
        return response


# The methods of PredictionService whose input is a list of examples: the class of the request, and what answers it.
METHODS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "Classify": (
        protos.classification_pb2.ClassificationRequest,
        partial(_infer_one, CLASSIFY, protos.classification_pb2.ClassificationResponse),
    ),
    "Regress": (
        protos.regression_pb2.RegressionRequest,
        partial(_infer_one, REGRESS, protos.regression_pb2.RegressionResponse),
    ),
    "MultiInference": (protos.inference_pb2.MultiInferenceRequest, _multi_inference),
}


def _signature_name(spec: protos.model_pb2.ModelSpec) -> str:
    return spec.signature_name or DEFAULT_SIGNATURE


def _outputs(servable: Servable, name: str, method: str, options: Options, missing: str) -> Sequence[str]:
    """Return which outputs of a signature `method` reads; raises ServingError if it can't call the signature."""
    if name not in servable.engines:
        raise invalid_argument(missing + name)
    definition: protos.meta_graph_pb2.SignatureDef = servable.model.signature_defs.signature_def[name]
    sent, problem = definition.outputs, None
    kind = {CLASSIFY: "classification", REGRESS: "regression"}.get(method)
    if kind is None:
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
    if options.check_method_names and definition.method_name != method:
        problem = f"Expected {kind} signature method_name to be {method}. Was: {definition.method_name}"
    elif len(definition.inputs) != 1:
        problem = "Expected one input Tensor."
    elif method == REGRESS and len(sent) != 1:
        problem = "Expected one output Tensor."
    elif len(sent) not in (1, 2):
        problem = f"Expected one or two output Tensors, found {len(sent)}"
    elif "inputs" not in definition.inputs:
        problem = f"No {kind} inputs found in SignatureDef: {definition}"
    elif method == REGRESS and "outputs" not in sent:
        problem = f"No regression outputs found in SignatureDef: {definition}"
    elif method == CLASSIFY and not {"classes", "scores"} & sent.keys():
        problem = (
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {definition}"
        )
    if problem:
        raise invalid_argument(problem)
    return ["outputs"] if method == REGRESS else [alias for alias in ("classes", "scores") if alias in sent]


def _run(
    servable: Servable, name: str, method: str, outputs: Sequence[str], examples: Examples, options: Options
) -> Any:
    if not examples.parts:
        raise invalid_argument("Input is empty.")
    inputs = {"inputs": examples.to_array()}
    results = prediction.run(servable, servable.model.signatures[name], inputs, outputs)
    prediction.check_size(results, options.max_bytes)
    values = sum(array.size for array in results.values())
    if values > MAX_VALUES:
        raise resource_exhausted(f"The outputs have {values} values; an answer can have {MAX_VALUES}")
    convert: Callable[[Mapping[str, Array], int], Any] = _regressions if method == REGRESS else _classifications
    return convert(results, len(examples.parts))


def _classifications(results: Mapping[str, Array], count: int) -> protos.classification_pb2.ClassificationResult:
    for alias, kind in (("classes", protos.types_pb2.DT_STRING), ("scores", protos.types_pb2.DT_FLOAT)):
        array = results.get(alias)
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if array.dtype != KINDS[kind].dtype:
            name = protos.types_pb2.DataType.Name(kind)
            raise invalid_argument(f"Expected {alias} Tensor of {name}. Got: {_type(array)}")
        if len(array) != count:
            raise invalid_argument(f"Expected {alias} output batch size of {count}. Got: {len(array)}")
    sizes = [array.shape[1] for array in results.values()]
    if min(sizes) != max(sizes):
        raise invalid_argument(f"Tensors class and score should match in dim_size(1). Got {sizes[0]} vs. {sizes[1]}")
    result = protos.classification_pb2.ClassificationResult()
    for row in range(count):
        entry = result.classifications.add()
        for column in range(sizes[0]):
            one = entry.classes.add()
            if "classes" in results:
                one.label = results["classes"][row, column].decode(errors="replace")
            if "scores" in results:
                one.score = results["scores"][row, column]
    return result


def _regressions(results: Mapping[str, Array], count: int) -> protos.regression_pb2.RegressionResult:
    array = results["outputs"]
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{shape_text(array.shape)}"
        )
    if len(array) != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if array.dtype != KINDS[protos.types_pb2.DT_FLOAT].dtype:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_type(array)}")
    return protos.regression_pb2.RegressionResult(regressions=[{"value": value} for value in array.reshape(-1)])


def _type(array: Array) -> str:
    return f"DT_{next(kind.name for kind in KINDS.values() if kind.dtype == array.dtype).upper()}"
