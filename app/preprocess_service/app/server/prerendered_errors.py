"""Error responses as prerendered bytes, for requests that the app never sees. So a rejection costs little."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from preprocess_service.app.errors import ServiceError
from preprocess_service.app.middleware.request_context import HEADERS, request_id_of
from preprocess_service.app.translations import Language, negotiate

# Placeholder for the request's id in the prerendered body.
_ID = "{request_id}"


class PrerenderedError:
    """One error as a complete HTTP/1.1 response, with the same headers and JSON as an error of the app."""

    def __init__(self, error: ServiceError) -> None:
        self.status = error.status
        self.code = error.code
        self._parts: dict[Language, tuple[bytes, bytes, bytes]] = {}
        for language in ("en", "pt"):
            before, after = _encode(error.body(language, _ID)).split(_ID.encode())
            self._parts[language] = _head(error, language), before, after

    def render(self, headers: Mapping[bytes, bytes], extra_headers: bytes = b"") -> bytes:
        """Return the bytes of the response to a request.

        Args:
            headers: the request's headers, with names in lower case.
            extra_headers: further header lines of the response, each with its line end.
        """
        request_id = request_id_of(headers.get(b"x-request-id", b"").decode("latin-1")).encode()
        language = negotiate(headers[b"accept-language"].decode("latin-1")) if b"accept-language" in headers else "en"
        head, before, after = self._parts[language]
        size = len(before) + len(request_id) + len(after)
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b%b%b" % (
            head, request_id, size, extra_headers, before, request_id, after
        )  # fmt: skip


def _encode(body: Mapping[str, str]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _head(error: ServiceError, language: Language) -> bytes:
    headers = HEADERS | {"Content-Type": "application/json", "Content-Language": language, "Vary": "Accept-Language"}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n").encode()
