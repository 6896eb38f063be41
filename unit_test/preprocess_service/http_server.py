"""Runs an app of this project on a real port, in a thread, during a test."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from preprocess_service.app.server.uvicorn_server import Server
from serving_common.sockets import bind


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve ``app`` until the block ends; yield its URL."""
    listener = bind("127.0.0.1", 0)
    server = Server(app)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
