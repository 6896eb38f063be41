"""Runs a service, and stops it when the process that started this one ends for any reason.

    python launcher/supervise.py app/preprocess_service/app/app_server.py

The starter holds the other end of this process's standard input and writes nothing. When the starter ends, also after
`kill -9`, the operating system closes that end, on Linux, macOS and Windows. The starter can also close it to stop the
service. SIGTERM and SIGINT stop the service too. The exit code is the service's.
"""

import os
import signal
import subprocess
import sys
import threading
import time

# How long a service may take to finish its requests, in seconds. Then it is killed.
STOP_SECONDS = 10
POLL_SECONDS = 0.1


def main() -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    def wait_for_starter() -> None:
        # Not sys.stdin: if a thread holds its lock when the program ends, Python reports an error.
        while os.read(0, 1):
            pass
        stop()

    # Before the service starts, so that it is stopped in every case.
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
    # As in a shell: 128 + N means that signal N ended the service.
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
