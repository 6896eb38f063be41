"""Attacks on the preprocess service's HTTP server, before a picture is decoded."""

import contextlib
import gzip

from tools.chaos.attacks import flood
from tools.chaos.attacks.attack import ANSWER_S, Attack, attack
from tools.chaos.attacks.wire import Wire
from tools.load import PHOTOS, as_json

HOST = b" HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /predict" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
# The limit of a body (limits.body_bytes).
BODY = 20_000_000
MANY_S = 2.0
BLOCK = 1 << 16


def long(one: Attack) -> float:
    """Return the seconds of an attack that needs more time than others."""
    return 3 * one.pace.seconds


def request(body: bytes, media_type: str = "application/json", path: str = "/predict", header: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\n{header}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@attack("http: trailers without end", short=True)
def trailers(one: Attack) -> None:
    """Trailers are headers after the last chunk, and are stored. The limit of the headers does not count them."""
    head = b"POST /livez" + HOST + CHUNKED + b"0\r\n"
    flood.stream(one, one.http_port, head, b"a:b\r\n" * (BLOCK // 5), long(one))


@attack("http: a trailer that is taken for a header", short=True)
def trailer_as_header(one: Attack) -> None:
    """A proxy sets and removes headers, but no trailers. So a trailer must not count as a header of the request."""
    body = as_json(PHOTOS[0].read_bytes())
    chunk = b"%x\r\n" % len(body) + body + b"\r\n0\r\n"
    head = POST + b"Content-Type: application/json\r\n" + CHUNKED
    with contextlib.closing(Wire(one.http_port, ANSWER_S)) as wire:
        wire.send(head + chunk + b"X-Request-ID: smuggled\r\n\r\n")
        one.note_sent(len(head + chunk))
        answer = wire.answer()
    one.note(answer, 0.0)
    one.promise(b"smuggled" not in answer.headers + answer.body, "X-Request-ID of a trailer was accepted")


@attack("http: a chunk's extension without end")
def extension(one: Attack) -> None:
    """The line with a chunk's length may have an extension of any length."""
    flood.stream(one, one.http_port, POST + CHUNKED + b"1;", b"a" * BLOCK, long(one))


@attack("http: 20 MB in chunks of a byte")
def one_byte_chunks(one: Attack) -> None:
    """Each chunk is an event in the server, and its data may be stored separately."""
    head = POST + b"Content-Type: image/jpeg\r\n" + CHUNKED
    flood.stream(one, one.http_port, head, b"1\r\na\r\n" * (BLOCK // 6), long(one), 6 * BODY)


@attack("http: 300 silent POSTs", photo_s=MANY_S, short=True)
def silent_posts(one: Attack) -> None:
    """A body is announced and does not arrive. Each request holds a place until it times out."""
    flood.hold(one, one.http_port, 300, POST + b"Content-Length: 1000\r\n\r\n", long(one))


@attack("http: 300 connections at 10 KB a second", photo_s=MANY_S, short=True)
def slow_bodies(one: Attack) -> None:
    """They are never silent and never complete, so a timeout for silence does not end them."""
    head = POST + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % BODY
    flood.trickle(one, one.http_port, 300, head, 10_000, long(one))


@attack("http: eight bodies of 20 MB that stop before their end", photo_s=MANY_S)
def stalled_bodies(one: Attack) -> None:
    """They use the memory for all bodies and keep it."""
    body = POST + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % BODY + bytes(BODY - 1000)
    flood.at_leisure(one, one.http_port, [body] * 8, long(one))


@attack("http: 1,000 half-open heads", photo_s=MANY_S)
def half_open(one: Attack) -> None:
    """The maximum number of connections, each in the middle of its headers."""
    flood.hold(one, one.http_port, 1000, POST + b"X: ", long(one))


@attack("http: a header without end")
def long_header(one: Attack) -> None:
    """The server has to store a line until its end."""
    flood.stream(one, one.http_port, POST + b"X: ", b"a" * BLOCK, one.pace.seconds)


@attack("http: headers without end")
def many_headers(one: Attack) -> None:
    """Short lines: each needs much more memory than its size."""
    flood.stream(one, one.http_port, POST, b"a:b\r\n" * (BLOCK // 5), one.pace.seconds)


@attack("http: a path without end")
def long_path(one: Attack) -> None:
    """The request line needs a limit too."""
    flood.stream(one, one.http_port, b"GET /", b"a" * BLOCK, one.pace.seconds)


@attack("http: a head of 30 KB that is all languages")
def languages(one: Attack) -> None:
    """The language of an error message is looked up in this list, which the client wrote."""
    wire = Wire(one.http_port, ANSWER_S)
    one_head = b"GET /nothing" + HOST + b"Accept-Language: " + b"a;q=0.1," * 3700 + b"b\r\n\r\n"
    one.for_a_while(lambda: one.exchange(one_head, one.http_port, wire))
    wire.close()


@attack("http: 20 MB of JSON: [],[],[]")
def json_lists(one: Attack) -> None:
    """Each pair of brackets becomes a Python object that is 30 times as large."""
    one.for_a_while(lambda: one.exchange(request(b'{"image_b64": [' + b"[]," * 6_600_000 + b"[]]}"), one.http_port))


@attack("http: 20 MB of JSON: brackets in brackets")
def json_depth(one: Attack) -> None:
    """There is no comma to count. A recursive parser overflows its stack."""
    one.for_a_while(lambda: one.exchange(request(b'{"image_b64": ' + b"[" * 19_000_000), one.http_port))


@attack("http: 20 MB of JSON: one number")
def json_number(one: Attack) -> None:
    """Parsing a number of n digits takes n * n steps without a limit."""
    one.for_a_while(lambda: one.exchange(request(b'{"image_b64": ' + b"9" * 19_000_000 + b"}"), one.http_port))


@attack("http: 20 MB of JSON: unknown names")
def json_names(one: Attack) -> None:
    """The error message names the first unknown field, but an object is created for each."""
    names = b",".join(b'"%06d":0' % number for number in range(1000))
    body = b'{"image_b64": {' + b",".join([names] * 1800) + b"}}"
    one.for_a_while(lambda: one.exchange(request(body), one.http_port))


@attack("http: gzip of 20 MB of lists, 20 KB", short=True)
def packed_lists(one: Attack) -> None:
    """A thousand times its size when unpacked: on one connection more than a fast line brings otherwise."""
    body = gzip.compress(b'{"image_b64": [' + b"[]," * 6_600_000 + b"[]]}")
    sent = request(body, header="Content-Encoding: gzip\r\n")
    one.at_once(16, lambda _: one.for_a_while(lambda: one.exchange(sent, one.http_port)))


@attack("http: gzip within gzip, 400 MB")
def packed_twice(one: Attack) -> None:
    """A bomb in a bomb; who unpacks one whole before the other holds all of it."""
    body = gzip.compress(gzip.compress(bytes(400_000_000)))
    sent = request(body, "image/jpeg", header="Content-Encoding: gzip, gzip\r\n")
    one.for_a_while(lambda: one.exchange(sent, one.http_port))


@attack("http: 20 MB of base64 in lines of one letter")
def short_lines(one: Attack) -> None:
    """If the text is split at line ends, it takes 15 times as much memory."""
    body = b'{"image_b64": "' + b"A\\n" * 6_600_000 + b'"}'
    one.for_a_while(lambda: one.exchange(request(body), one.http_port))


def form(one: Attack, content: bytes, boundary: str = "b") -> None:
    body = request(content, f"multipart/form-data; boundary={boundary}")
    one.for_a_while(lambda: one.exchange(body, one.http_port))


@attack("http: a form of 200,000 parts")
def form_parts(one: Attack) -> None:
    """Each part is parsed in Python and gets a file in memory before the parts are counted."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'
    form(one, part * 200_000 + b"--b--\r\n")


@attack("http: a form of a million headers")
def form_headers(one: Attack) -> None:
    """The limit of request headers does not apply to the headers of a part."""
    form(one, b"--b\r\n" + b"a: b\r\n" * 3_000_000 + b"\r\nx\r\n--b--\r\n")


@attack("http: a form that nearly ends all the time")
def form_boundaries(one: Attack) -> None:
    """Text that differs from the boundary only in its last character makes a parser search again each time."""
    boundary = "b" * 60
    part = b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    content = b"--" + boundary.encode() + part + (b"\r\n--" + b"b" * 59) * 300_000
    form(one, content, boundary)


@attack("http: the same path in other words", photo_s=None)
def other_paths(one: Attack) -> None:
    """`/%70redict` and `http://x/predict` mean `/predict`. Admission by comparing the text would miss them."""
    photo = PHOTOS[1].read_bytes()
    for path in ("/%70redict", "http://x/predict"):

        def ask(_: int, path: str = path) -> None:
            one.exchange(request(photo, "image/jpeg", path), one.http_port)

        before = one.report.answers.get("200", 0)
        one.at_once(300, ask)
        answered = one.report.answers.get("200", 0) - before
        one.promise(answered < 300, f"{path}: 300 at once, and none was rejected")


@attack("http: invalid requests, each on its connection")
def invalid(one: Attack) -> None:
    """Each has 18 bytes and may write 300 bytes into the log, which could fill the disk."""
    before = one.json_logging()

    def send() -> None:
        for _ in range(20):
            one.exchange(b"GET / HTTP/9.9\r\n\r\n", one.http_port, may_cut=True)

    one.for_a_while(send)
    lines = one.json_logging() - before
    one.promise(lines <= one.report.requests / 10 + 20, f"{one.report.requests} requests, {lines} lines in the log")


@attack("http: the page, ten thousand times, and nobody reads it")
def unread(one: Attack) -> None:
    """Many requests are sent at once and the answers are never read, so they pile up in the server."""
    flood.at_leisure(one, one.http_port, [(b"GET /" + HOST + b"\r\n") * 10_000] * 8, long(one))


@attack("http: a hundred thousand requests in one go")
def pipelined(one: Attack) -> None:
    """Each request waits for the answer before it. The number of waiting requests needs a limit."""
    flood.at_leisure(one, one.http_port, [(b"GET /livez" + HOST + b"\r\n") * 100_000], long(one))
