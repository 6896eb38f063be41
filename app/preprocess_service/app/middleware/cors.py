"""What pages from elsewhere may send beyond what any page may, and read, where their origins are named."""

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
    """What lets a page read an answer that Starlette's middleware does not see; nothing where it may not.

    Such an answer needs ``Vary: Origin`` too.

    Args:
        origin: the request's header.
        origins: that may.
    """
    if origin is None or not {origin, "*"} & set(origins):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": ", ".join(EXPOSED_HEADERS)}
