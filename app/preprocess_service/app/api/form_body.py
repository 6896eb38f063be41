"""Reads the pictures of a form: its fields ``file``. All other fields are ignored."""

from collections.abc import AsyncIterator
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from preprocess_service.app.errors import InvalidRequest

FIELD = b"file"
# The limit of parts besides the pictures: fields of the page and of the library that sends the form. Each takes as much
# time as a small picture.
OTHER_PARTS = 100
# How many other fields the error for a form without a picture names.
NAMED_FIELDS = 5


class _Form:
    """The content of a form. The parser calls its ``on_`` methods.

    Args:
        max_files: how many pictures are kept. Further ones are only counted.
    """

    def __init__(self, max_files: int) -> None:
        self.parts = 0
        # The fields ``file`` with a file name, and those without.
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
    """Read a form.

    Args:
        content_type: the request's header ``Content-Type``.
        parts: the parts of the request's body.
        max_files: further pictures are returned empty.

    Returns:
        The content of the fields ``file`` that have a file name. If none has one, the content of all fields ``file``.
        Some libraries send a file's description in a field of the same name.

    Raises:
        InvalidRequest: the form can't be read, is truncated, or has no field ``file``.
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
    # ValueError: a name is not text.
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
