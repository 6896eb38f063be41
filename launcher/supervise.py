"""Runs a service, and ends it when the process that started this one ends, however that happens.

    python launcher/supervise.py app/preprocess_service/app/app_server.py

The starter holds the other end of this process's standard input and writes nothing. The operating system closes it when
the starter ends, after `kill -9` too, on Linux, macOS and Windows; the starter closes it to end the service. SIGTERM
and SIGINT end the service as well. The exit code is the service's.
"""

import os
import signal
import subprocess
import sys
import threading
import time

# How long a service may take to finish its requests before it is killed.
STOP_SECONDS = 10
POLL_SECONDS = 0.1


def main() -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    def wait_for_starter() -> None:
        # Not through sys.stdin: its lock, held by a thread at the end of the program, is an error.
        while os.read(0, 1):
            pass
        stop()

    # Before the service is started, so that there is no moment in which it could be left behind.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threading.Thread(target=wait_for_starter, daemon=True).start()
    service = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.DEVNULL)
    while service.poll() is None:
        if stopping:
            service.terminate()
            try:
                service.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()
            break
        time.sleep(POLL_SECONDS)
    code = service.wait()
    # A shell's way to say which signal ended it.
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
