"""CORS: the methods and headers that pages of the allowed origins may use."""

from collections.abc import Collection

METHODS = ["GET", "HEAD", "POST"]
SENT_HEADERS = [
    "Authorization",
    "X-API-Key",
    "Content-Type",
    "Content-Encoding",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
]
EXPOSED_HEADERS = ["Content-Language", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-ID"]


def answer_headers(origin: str | None, origins: Collection[str]) -> dict[str, str]:
    """Return the CORS headers of an answer that does not pass Starlette's middleware.

    There are none if the origin is not allowed. Such an answer also needs ``Vary: Origin``.

    Args:
        origin: the request's header ``Origin``.
        origins: the allowed origins.
    """
    if origin is None or not {origin, "*"} & set(origins):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": ", ".join(EXPOSED_HEADERS)}
