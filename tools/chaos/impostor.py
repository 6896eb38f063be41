"""Stands where the model server should be and answers what no model server would: for the fault suite.

    python -m tools.chaos.impostor PORT MODE

MODE is one of the functions of this file whose names are in ``MODES``. It is ready when it says so on stdout.
"""

import itertools
import math
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse

from serving_common import tensorflow_protos as messages
from tools import service  # noqa: F401 - finds the next module
from tools.training.export import DOMAIN_NAME, OUTPUT_NAME, PIXELS_NAME, PIXELS_SIGNATURE

Handler = Callable[[Any, Any], Any]


def predict_response(probabilities: list[float], domain: list[float]) -> messages.predict_pb2.PredictResponse:
    response = messages.predict_pb2.PredictResponse()
    response.model_spec.version.value = 2
    for name, values in ((OUTPUT_NAME, probabilities), (DOMAIN_NAME, domain)):
        response.outputs[name].dtype = messages.types_pb2.DT_FLOAT
        response.outputs[name].float_val.extend(values)
    return response


def metadata() -> GetModelMetadataResponse:
    """The truth, since without it nobody would ask for a prediction."""
    signatures = messages.get_model_metadata_pb2.SignatureDefMap()
    definition = signatures.signature_def[PIXELS_SIGNATURE]
    definition.inputs[PIXELS_NAME].dtype = messages.types_pb2.DT_UINT8
    for name in (OUTPUT_NAME, DOMAIN_NAME):
        definition.outputs[name].dtype = messages.types_pb2.DT_FLOAT
    response = GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    return response


def nonsense(_request: Any, _context: Any, counter: "itertools.count[int]" = itertools.count()) -> Any:  # noqa: B008
    """Numbers that are no probabilities, in turn with shapes that no label fits and bytes that are no message."""
    answers: list[Any] = [
        predict_response([math.nan, 0.5], [0.9]),
        predict_response([0.9, 0.9], [0.9]),
        predict_response([-0.5, 1.5], [0.9]),
        predict_response([0.1, 0.9], [math.inf]),
        predict_response([0.2, 0.3, 0.5], [0.9]),
        predict_response([], []),
        predict_response([0.0] * 5_000_000, [0.9]),
        b"\xff" * 100,
        b"",
    ]
    return answers[next(counter) % len(answers)]


def refusing(_request: Any, context: Any, counter: "itertools.count[int]" = itertools.count()) -> Any:  # noqa: B008
    """Every status code but OK, in turn."""
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    context.abort(codes[next(counter) % len(codes)], "refused by the impostor")


def slow(_request: Any, _context: Any) -> Any:
    """A right answer, long after anybody wants it."""
    time.sleep(6)
    return predict_response([0.5, 0.5], [0.9])


def no_grpc(port: int) -> None:
    """A port that takes connections and talks of something else: HTTP/1.1, noise, nothing at all."""
    sayings = itertools.cycle([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", bytes(range(256)) * 64, b""])
    with socket.create_server(("127.0.0.1", port), backlog=100) as listener:
        print("ready", flush=True)
        kept = []
        while True:
            connection, _ = listener.accept()
            connection.sendall(next(sayings))
            kept.append(connection)


def serve(port: int, handler: Handler) -> None:
    """A gRPC server of the library's own settings, so of those that TensorFlow Serving has, too."""

    class Everything(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC ships no types
        def service(self, details: Any) -> Any:
            if details.method.endswith("/Predict"):
                return grpc.unary_unary_rpc_method_handler(handler, response_serializer=serialize)
            if details.method.endswith("/GetModelMetadata"):
                return grpc.unary_unary_rpc_method_handler(lambda *_: metadata(), response_serializer=serialize)
            return None

    server = grpc.server(ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers((Everything(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    threading.Event().wait()


def serialize(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())


MODES: dict[str, Callable[[int], None]] = {
    "nonsense": lambda port: serve(port, nonsense),
    "refusing": lambda port: serve(port, refusing),
    "slow": lambda port: serve(port, slow),
    "no_grpc": no_grpc,
}

if __name__ == "__main__":
    MODES[sys.argv[2]](int(sys.argv[1]))
