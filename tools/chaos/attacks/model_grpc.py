"""Attacks on the model server's gRPC API from its own network. The messages are written byte by byte."""

import contextlib
import time
from collections.abc import Iterator, Set
from typing import Any

import grpc

from tools.chaos.attacks.attack import ANSWER_S, Attack, attack
from tools.training.export import PIXELS_NAME, PIXELS_SIGNATURE

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
# Below 64 MiB.
LARGE = 60_000_000
# Status codes that the server must never answer with.
DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
# Except for a message that can't be parsed: gRPC's own answer in Python and in C++.
UNREADABLE = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
UINT8 = 4

Codes = Set[Any]


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def part(field: int, content: bytes) -> bytes:
    """Return a field with bytes, text or another message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def spec(name: bytes = b"CAT-DOG", signature: bytes = PIXELS_SIGNATURE.encode()) -> bytes:
    """Return a request's `model_spec`, its first field."""
    return part(1, part(1, name) + part(3, signature))


def one_input(tensor: bytes, name: bytes = PIXELS_NAME.encode()) -> bytes:
    """Return an entry of the map `inputs`."""
    return part(2, part(1, name) + part(2, tensor))


def shape(*sides: int) -> bytes:
    return part(2, b"".join(part(2, number(1, side)) for side in sides))


@contextlib.contextmanager
def channel(one: Attack) -> Iterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{one.grpc_port}", options) as made:
        yield made


def call(
    one: Attack, made: Any, request: bytes, method: str = PREDICT, squeezed: bool = False, may_be: Codes = frozenset()
) -> None:
    """Send bytes and record the status. ``may_be`` are codes of ``DEFECTS`` that are allowed here."""
    began = time.monotonic()
    compression = grpc.Compression.Gzip if squeezed else None
    one.note_sent(len(request))
    try:
        made.unary_unary(method)(request, timeout=ANSWER_S * one.pace.slack + 1, compression=compression)
        code = "OK"
    except grpc.RpcError as exc:
        code = exc.code().name
        one.promise(exc.code() not in DEFECTS - may_be, f"answered with {code}: {exc.details()[:200]}")
    one.count(code)
    seconds = time.monotonic() - began
    one.promise(seconds <= ANSWER_S * one.pace.slack, f"answered only after {seconds:.1f} s")


def again_and_again(one: Attack, request: bytes, method: str = PREDICT, callers: int = 1) -> None:
    def send(_: int) -> None:
        with channel(one) as made:
            one.for_a_while(lambda: call(one, made, request, method))

    one.at_once(callers, send)


@attack("grpc: 54 bytes that are 388 pictures, four at once", short=True)
def shape_without_values(one: Attack) -> None:
    """A tensor of [388,240,240,3] without values means 67 MB of zeros, and much more memory in the network."""
    request = spec() + one_input(number(1, UINT8) + shape(388, 240, 240, 3))
    again_and_again(one, request, callers=4)


@attack("grpc: 388 pictures, one after the other")
def shape_from_one(one: Attack) -> None:
    """The same from one connection."""
    again_and_again(one, spec() + one_input(number(1, UINT8) + shape(388, 240, 240, 3)))


@attack("grpc: three million names of inputs", short=True)
def input_names(one: Attack) -> None:
    """Each is an entry of a map. They are sorted, quoted and compared in the event loop's thread."""
    names = b"".join(part(2, part(1, b"%07d" % count)) for count in range(3_000_000))
    again_and_again(one, spec() + names)


@attack("grpc: 15 million empty dimensions")
def dimensions(one: Attack) -> None:
    """Two bytes each in the message, 50 in memory."""
    again_and_again(one, spec() + one_input(number(1, UINT8) + part(2, b"\x12\0" * 15_000_000)))


@attack("grpc: 30 million empty strings")
def strings(one: Attack) -> None:
    """Two bytes each in the message, an object each in memory."""
    again_and_again(one, spec() + one_input(number(1, 7) + shape(30_000_000) + b"\x42\0" * 30_000_000))


@attack("grpc: 60 million numbers of a byte")
def numbers(one: Attack) -> None:
    """A small number takes one byte in the message, four in memory, and 30 in Python."""
    again_and_again(one, spec() + one_input(number(1, UINT8) + shape(LARGE) + part(7, bytes(LARGE))))


@attack("grpc: 30 million names of outputs")
def output_names(one: Attack) -> None:
    """The list of requested outputs can be long too."""
    again_and_again(one, spec() + b"\x1a\0" * 30_000_000)


@attack("grpc: 16 messages of 50 MB at once", photo_s=2.0)
def large_messages(one: Attack) -> None:
    """Each has an allowed size, but together they exceed the memory limit."""
    again_and_again(one, spec() + one_input(number(1, UINT8) + part(4, bytes(50_000_000))), callers=16)


@attack("grpc: 16 messages of 50 MB at once, squeezed to 50 KB", photo_s=2.0)
def squeezed_messages(one: Attack) -> None:
    """The checked length is that of the compressed message."""
    request = spec() + one_input(number(1, UINT8) + part(4, bytes(50_000_000)))

    def send(_: int) -> None:
        with channel(one) as made:
            one.for_a_while(lambda: call(one, made, request, squeezed=True))

    one.at_once(16, send)


@attack("grpc: model names of 50 MB")
def long_names(one: Attack) -> None:
    """A name is counted, logged and traced. If it is stored in full, it stays in memory."""
    for count in range(4):
        with channel(one) as made:
            call(one, made, spec(b"%d" % count + b"x" * 50_000_000))


@attack("grpc: names of 50 MB in other calls")
def long_names_elsewhere(one: Attack) -> None:
    """Status and metadata requests have a model name too, and the name of a signature has no limit."""
    text = b"x" * 50_000_000
    with channel(one) as made:
        call(one, made, spec(text), STATUS)
        call(one, made, spec(text) + part(2, b"signature_def"), METADATA)
        call(one, made, spec() + part(2, text), METADATA)
        call(one, made, spec(signature=text))
        call(one, made, spec() + one_input(b"", text))


@attack("grpc: thousands of different model names")
def many_names(one: Attack) -> None:
    """Each could become a line of the metrics page, and stay there."""
    counter = iter(range(10**9))
    with channel(one) as made:
        one.for_a_while(lambda: call(one, made, spec(b"%0500d" % next(counter))))


@attack("grpc: messages in messages, 10,000 deep")
def depth(one: Attack) -> None:
    """Unknown fields are kept. A recursive parser overflows its stack."""
    request = spec() + b"\x9b\x06" * 10_000 + b"\x9c\x06" * 10_000
    with channel(one) as made:
        one.for_a_while(lambda: call(one, made, request, may_be=UNREADABLE))


@attack("grpc: 60 MB of fields that nobody knows")
def unknown_fields(one: Attack) -> None:
    """Unknown fields are kept for later versions of a message; each is an object."""
    again_and_again(one, spec() + b"\x98\x06\x01" * 20_000_000)
