"""Sends load to an address until its input ends, and prints a summary as JSON. It runs in a pod, beside `tools.load`.

python -m tools.pod_load URL REQUESTS_PER_SECOND CLIENTS kept|new
"""

import json
import socket
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from tools.load import RIGHT, Load

# How many of the requests that went wrong are described.
EXAMPLES = 20


def main(arguments: Sequence[str]) -> None:
    url, rate, clients, connections = arguments
    place = urlsplit(url)
    # Looked up once: the DNS inside of the cluster is not what is tried here.
    address = socket.gethostbyname(place.hostname or "")
    load = Load(f"http://{address}:{place.port}", float(rate), int(clients), keeps_connections=connections == "kept")
    began = time.monotonic()
    with load.going_on():
        sys.stdin.read()
    outcomes = sorted(load.outcomes, key=lambda outcome: outcome.sent)
    wrong = [outcome for outcome in outcomes if outcome.verdict != RIGHT]
    summary = {
        "sent": len(outcomes),
        "lost": len(wrong),
        "slowest": max((outcome.seconds for outcome in outcomes if outcome.verdict == RIGHT), default=0.0),
        "examples": [
            f"{one.sent - began:.2f} s: {one.verdict} {one.detail} after {one.seconds:.2f} s"
            for one in wrong[:EXAMPLES]
        ],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(sys.argv[1:])
