"""Signals for the first process of a container."""

import os
import signal
from types import FrameType


def end_on_sigterm() -> None:
    """Let SIGTERM end process 1, until the service sets a handler of its own.

    The kernel drops a signal that process 1 does not handle: `docker stop` would wait 10 s while a service starts.
    Other processes keep the kernel's own action, which does not wait for the end of a computation.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
