"""All errors of a request, with the HTTP status and the code that its client sees.

    ServiceError
    ├── InvalidBase64          400  invalid_base64
    ├── InvalidImage           400  invalid_image
    ├── InvalidEncoding        400  invalid_encoding
    ├── InvalidHttp            400  invalid_http
    ├── NoExplanation          400  no_explanation
    ├── Unauthorized           401  unauthorized
    ├── NotFound               404  not_found
    ├── MethodNotAllowed       405  method_not_allowed
    ├── RequestTimeout         408  request_timeout
    ├── ImageTooLarge          413  image_too_large
    ├── UnsupportedMediaType   415  unsupported_media_type
    ├── InvalidRequest         422  invalid_request
    ├── HeadersTooLarge        431  headers_too_large
    ├── InternalError          500  internal_error
    ├── ModelError             502  model_error
    ├── Overloaded             503  overloaded           Retry-After
    ├── ModelUnavailable       503  model_unavailable    Retry-After
    └── DeadlineExceeded       504  deadline_exceeded

Each class is named after the cause. Its message (``translations.py``) is written for the client and says what to do.
The internal cause is in ``__cause__`` and appears only in the log.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Self

from preprocess_service.app.translations import Language, translate


class ServiceError(Exception):
    """A request that can't be answered.

    Args:
        message: a key of ``translations.MESSAGES``; by default the error's code.
        values: fill the message's ``{placeholders}``; see ``translations.translate``.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after_seconds: ClassVar[int | None] = None
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, message: str | None = None, **values: object) -> None:
        self.message = message or self.code
        self.values = values
        super().__init__(self.text("en"))

    def text(self, language: Language) -> str:
        """Return the message in ``language``."""
        return translate(self.message, language, self.values)

    def again(self) -> Self:
        """Return the same error without its traceback, to raise it again. A traceback keeps frames in memory."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        return error

    def body(self, language: Language, request_id: str) -> dict[str, str]:
        """Return the JSON object of the error response."""
        return {"status": "Failed", "msg": self.text(language), "code": self.code, "request_id": request_id}


class InvalidBase64(ServiceError):
    """The text is not base64."""

    status = 400
    code = "invalid_base64"


class InvalidImage(ServiceError):
    """The bytes are not a picture, or the picture is broken."""

    status = 400
    code = "invalid_image"


class InvalidEncoding(ServiceError):
    """The body is not what its Content-Encoding says."""

    status = 400
    code = "invalid_encoding"


class InvalidHttp(ServiceError):
    """The request is not valid HTTP/1.1."""

    status = 400
    code = "invalid_http"


class NoExplanation(ServiceError):
    """The answer was to say where the model looked, and the model does not tell."""

    status = 400
    code = "no_explanation"


class Unauthorized(ServiceError):
    """The request has no API key, or an unknown one."""

    status = 401
    code = "unauthorized"
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer realm="CAT or DOG"'})


class NotFound(ServiceError):
    """There is no such route."""

    status = 404
    code = "not_found"


class MethodNotAllowed(ServiceError):
    """The route does not accept this method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(ServiceError):
    """The request did not arrive in time."""

    status = 408
    code = "request_timeout"
    # The rest of the request may still arrive.
    headers = MappingProxyType({"Connection": "close"})


class ImageTooLarge(ServiceError):
    """The body has too many bytes, or the picture takes too many pixels, too much memory or too much time."""

    status = 413
    code = "image_too_large"


class UnsupportedMediaType(ServiceError):
    """The type of the body, or the format of the picture, is not supported."""

    status = 415
    code = "unsupported_media_type"


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is packed with something that is not unpacked here (RFC 9110, 15.5.16)."""

    headers = MappingProxyType({"Accept-Encoding": "gzip, deflate"})


class InvalidRequest(ServiceError):
    """A field is missing, unknown or of the wrong type."""

    status = 422
    code = "invalid_request"


class HeadersTooLarge(ServiceError):
    """The request has too many bytes of headers, too many headers or trailers, or too much chunk framing."""

    status = 431
    code = "headers_too_large"


class InternalError(ServiceError):
    """A defect of this service."""

    status = 500
    code = "internal_error"


class ModelError(ServiceError):
    """The model server rejected the call or gave an invalid answer."""

    status = 502
    code = "model_error"


class GoldenMismatch(ModelError):
    """Golden photos of a version are not answered as the version says that they are."""

    def __init__(self, version: int, findings: str) -> None:
        super().__init__("model_golden", version=version, findings=findings)


class Overloaded(ServiceError):
    """The service has too much work."""

    status = 503
    code = "overloaded"
    retry_after_seconds = 1


class ModelUnavailable(ServiceError):
    """The model server can't be reached or has not loaded the model."""

    status = 503
    code = "model_unavailable"
    retry_after_seconds = 2


class DeadlineExceeded(ServiceError):
    """There was no answer before the deadline."""

    status = 504
    code = "deadline_exceeded"
