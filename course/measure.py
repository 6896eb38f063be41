"""Measures the course's service and the real one in turns, with the same photo.

    python course/measure.py --clients 8

Each client sends its next photo when it has the answer to the last one (a closed loop). Both services must run.
"""

import argparse
import base64
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

SERVICES = {"course": 7999, "real": 7998}
PHOTO = base64.b64encode((Path(__file__).parents[1] / "images" / "cat_1.jpg").read_bytes()).decode()


def client(port: int, end: float) -> list[float]:
    """Send photos one after the other until `end`; return the latency of each in milliseconds."""
    latencies = []
    with requests.Session() as session:
        while time.perf_counter() < end:
            start = time.perf_counter()
            answer = session.post(f"http://127.0.0.1:{port}/predict", json={"image_b64": PHOTO}, timeout=60)
            answer.raise_for_status()
            latencies.append(1000 * (time.perf_counter() - start))
    return latencies


def turn(port: int, clients: int, seconds: float) -> list[float]:
    """Return the latencies of all clients, which send photos at the same time."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(clients) as pool:
        return [latency for one in pool.map(client, [port] * clients, [end] * clients) for latency in one]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1, help="at the same time (default: 1)")
    parser.add_argument("--seconds", type=float, default=2, help="of each turn (default: 2)")
    parser.add_argument("--turns", type=int, default=3, help="of each service (default: 3)")
    given = parser.parse_args()
    latencies: dict[str, list[float]] = {name: [] for name in SERVICES}
    try:
        for port in SERVICES.values():
            turn(port, given.clients, 0.5)  # the first answers are slower, and do not count
        for _ in range(given.turns):
            for name, port in SERVICES.items():
                latencies[name] += turn(port, given.clients, given.seconds)
    except requests.RequestException as exc:
        sys.exit(f"No answer: {exc}. Do both services run?")
    rates = {name: len(found) / (given.turns * given.seconds) for name, found in latencies.items()}
    print(f"{'service':8}{'answers/s':>12}{'p50 ms':>10}{'p95 ms':>10}")
    for name, found in latencies.items():
        percentiles = statistics.quantiles(found, n=20)
        print(f"{name:8}{rates[name]:12.1f}{percentiles[9]:10.1f}{percentiles[18]:10.1f}")
    print(f"real / course: {rates['real'] / rates['course']:.2f}")


if __name__ == "__main__":
    main()
