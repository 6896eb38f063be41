"""Everything that a request can fail of, with the HTTP status and the code that its sender sees.

    ServiceError
    ├── InvalidBase64          400  invalid_base64
    ├── InvalidImage           400  invalid_image
    ├── ImageTooLarge          413  image_too_large
    ├── UnsupportedMediaType   415  unsupported_media_type
    ├── InvalidRequest         422  invalid_request
    ├── ModelError             502  model_error
    ├── Overloaded             503  overloaded           Retry-After
    ├── ModelUnavailable       503  model_unavailable    Retry-After
    └── DeadlineExceeded       504  deadline_exceeded

Each is named after the step that failed. Its message is written for the sender and says what to do;
what the inside said stays in ``__cause__`` and reaches the log only.
"""

from typing import ClassVar


class ServiceError(Exception):
    """A request that can't be answered; ``str(error)`` is the message for its sender."""

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after_seconds: ClassVar[int | None] = None


class InvalidBase64(ServiceError):
    """The text is not base64."""

    status = 400
    code = "invalid_base64"


class InvalidImage(ServiceError):
    """The bytes are no picture, or a broken one."""

    status = 400
    code = "invalid_image"


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


class ModelError(ServiceError):
    """The model server refused what we sent, or answered what makes no sense."""

    status = 502
    code = "model_error"


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
