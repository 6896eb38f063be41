"""A program in place of the model server, with wrong answers; for the fault suite.

    python -m tools.chaos.impostor PORT MODE

MODE is a key of ``MODES``. The program prints "ready" when it is ready.
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
    """Return the right metadata: without it the preprocess service would not send predictions."""
    signatures = messages.get_model_metadata_pb2.SignatureDefMap()
    definition = signatures.signature_def[PIXELS_SIGNATURE]
    definition.inputs[PIXELS_NAME].dtype = messages.types_pb2.DT_UINT8
    for name in (OUTPUT_NAME, DOMAIN_NAME):
        definition.outputs[name].dtype = messages.types_pb2.DT_FLOAT
    response = GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    return response


def nonsense(_request: Any, _context: Any, counter: "itertools.count[int]" = itertools.count()) -> Any:  # noqa: B008
    """Values that are no probabilities, wrong shapes, and bytes that are no message, in turn."""
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
    """A right answer, long after the deadline."""
    time.sleep(6)
    return predict_response([0.5, 0.5], [0.9])


def no_grpc(port: int) -> None:
    """A port that accepts connections and does not speak gRPC: it sends HTTP/1.1, random bytes, or nothing."""
    sayings = itertools.cycle([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", bytes(range(256)) * 64, b""])
    with socket.create_server(("127.0.0.1", port), backlog=100) as listener:
        print("ready", flush=True)
        kept = []
        while True:
            connection, _ = listener.accept()
            connection.sendall(next(sayings))
            kept.append(connection)


def serve(port: int, handler: Handler) -> None:
    """A gRPC server with the library's default settings, which TensorFlow Serving has too."""

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
