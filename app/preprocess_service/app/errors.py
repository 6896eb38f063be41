"""Everything that a request can fail of, with the HTTP status and the code that its sender sees.

    ServiceError
    ├── InvalidBase64          400  invalid_base64
    ├── InvalidImage           400  invalid_image
    ├── InvalidTopK            400  invalid_top_k
    ├── InvalidHttp            400  invalid_http
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

Each is named after the step that failed. Its message (``messages.py``) is written for the sender and says what to do;
what the inside said stays in ``__cause__`` and reaches the log only.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Self

from preprocess_service.app.translations import Language, translate


class ServiceError(Exception):
    """A request that can't be answered.

    Args:
        message: a key of ``translations.MESSAGES``; by default the one that is named like the code.
        values: what the message's ``{placeholders}`` are filled with.
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
        """What the sender is told."""
        return translate(self.message, language, self.values)

    def again(self) -> Self:
        """The same error, to be raised once more: without the frames that this one went through, and what they hold."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        return error

    def body(self, language: Language, request_id: str) -> dict[str, str]:
        """What the sender is told, as the JSON of an answer."""
        return {"status": "Failed", "msg": self.text(language), "code": self.code, "request_id": request_id}


class InvalidBase64(ServiceError):
    """The text is not base64."""

    status = 400
    code = "invalid_base64"


class InvalidImage(ServiceError):
    """The bytes are no picture, or a broken one."""

    status = 400
    code = "invalid_image"


class InvalidTopK(ServiceError):
    """More labels are asked for than the model has."""

    status = 400
    code = "invalid_top_k"


class InvalidHttp(ServiceError):
    """What came in is no HTTP."""

    status = 400
    code = "invalid_http"


class Unauthorized(ServiceError):
    """No key was sent, or not one that is known."""

    status = 401
    code = "unauthorized"
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer realm="CAT or DOG"'})


class NotFound(ServiceError):
    """There is no such route."""

    status = 404
    code = "not_found"


class MethodNotAllowed(ServiceError):
    """The route takes another method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(ServiceError):
    """The request itself did not come in in time."""

    status = 408
    code = "request_timeout"
    # The rest of it may still be on its way.
    headers = MappingProxyType({"Connection": "close"})


class ImageTooLarge(ServiceError):
    """The body has too many bytes or the picture too many pixels."""

    status = 413
    code = "image_too_large"


class UnsupportedMediaType(ServiceError):
    """The body is of a type that is not taken."""

    status = 415
    code = "unsupported_media_type"


class InvalidRequest(ServiceError):
    """A field is missing, unknown or of the wrong type."""

    status = 422
    code = "invalid_request"


class HeadersTooLarge(ServiceError):
    """The request's line and headers have too many bytes."""

    status = 431
    code = "headers_too_large"


class InternalError(ServiceError):
    """A defect of this service."""

    status = 500
    code = "internal_error"


class ModelError(ServiceError):
    """The model server rejected what we sent, or answered what makes no sense."""

    status = 502
    code = "model_error"


class GoldenMismatch(ModelError):
    """Golden photos of a version are not answered as the version says that they are."""

    def __init__(self, version: int, findings: str) -> None:
        super().__init__("model_golden", version=version, findings=findings)


class Overloaded(ServiceError):
    """There is more work than can be done in time."""

    status = 503
    code = "overloaded"
    retry_after_seconds = 1


class ModelUnavailable(ServiceError):
    """The model server can't be reached or has not loaded the model."""

    status = 503
    code = "model_unavailable"
    retry_after_seconds = 2


class DeadlineExceeded(ServiceError):
    """The answer did not come in time."""

    status = 504
    code = "deadline_exceeded"
