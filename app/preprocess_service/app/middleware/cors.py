"""What pages from elsewhere may send beyond what any page may, and read, where their origins are named."""

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
