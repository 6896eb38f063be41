"""The pictures of a form: what its fields ``file`` hold. Every other field is skipped."""

from collections.abc import AsyncIterator
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from preprocess_service.app.errors import InvalidRequest

FIELD = b"file"
# Parts of a form beyond its pictures: fields of the page that it is on, and of the library that sends it. Each takes
# as long as a small picture does.
OTHER_PARTS = 100
# How many other fields are named to the sender of a form without a picture.
NAMED_FIELDS = 5


class _Form:
    """What a form holds; the parser calls it for each thing that it finds.

    Args:
        max_files: pictures that are kept; others are counted only.
    """

    def __init__(self, max_files: int) -> None:
        self.parts = 0
        # With a file name, and without.
        self.files: list[BytesIO] = []
        self.values: list[BytesIO] = []
        self.other_names: list[bytes] = []
        self.is_complete = False
        self._max_files = max_files
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._into: BytesIO | None = None

    def on_part_begin(self) -> None:
        self.parts += 1
        self.is_complete = False
        if self.parts > OTHER_PARTS + 2 * self._max_files:
            raise InvalidRequest("form_parts")
        self._disposition = b""
        self._into = None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = [bytearray(), bytearray()]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"")
        if name != FIELD:
            self.other_names.append(name)
            return
        kind = self.files if any(option.startswith(b"filename") for option in options) else self.values
        kind.append(BytesIO())
        if len(kind) <= self._max_files:
            self._into = kind[-1]

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._into is not None:
            self._into.write(data[start:end])

    def on_part_end(self) -> None:
        self.is_complete = True

    def on_end(self) -> None:
        self.is_complete = True


async def read_files(content_type: str, parts: AsyncIterator[bytes], max_files: int) -> list[bytes]:
    """Take in a form.

    Args:
        content_type: the request's header.
        parts: of the request's body.
        max_files: further pictures are returned empty.

    Returns:
        What the fields ``file`` hold that have a file name. If none has one, what all of them hold: libraries that
        upload a file send its description in a field of the same name.

    Raises:
        InvalidRequest: it can't be read, is cut off, or has no such field.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidRequest("form_boundary")
    form = _Form(max_files)
    names = [name for name in dir(form) if name.startswith("on_")]
    try:
        parser = MultipartParser(boundary, {name: getattr(form, name) for name in names})  # type: ignore[arg-type]
        async for part in parts:
            parser.write(part)
    # ValueError: a name that is no text.
    except (FormParserError, ValueError) as exc:
        raise InvalidRequest("form_invalid") from exc
    if not form.is_complete:
        raise InvalidRequest("form_cut")
    files = form.files or form.values
    if not files:
        if not form.other_names:
            raise InvalidRequest("form_empty")
        named = [name[:50].decode("utf-8", "replace") for name in form.other_names[:NAMED_FIELDS]]
        raise InvalidRequest("form_no_file", fields=", ".join(f"'{name}'" for name in named))
    return [file.getvalue() for file in files]
