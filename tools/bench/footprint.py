"""Measures the start time and the memory of the pair.

    python -m tools.bench.footprint

It starts both services `--rounds` times. In the last round it sends `--predictions` requests. It prints the median
start time, and the memory of each process after the requests (resident set size).
"""

import argparse
import base64
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import requests
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
MODEL_SERVER = ROOT / "app" / "model_service" / "model_server.py"
APP_SERVER = ROOT / "app" / "preprocess_service" / "app" / "app_server.py"
MODEL = ROOT / "prev_trained_models" / "CAT-DOG"
PHOTO = ROOT / "images" / "cat_1.jpg"
START_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--predictions", type=int, default=1000)
    options = parser.parse_args()
    rounds = [measure(options.predictions if number == 1 else 1) for number in range(options.rounds, 0, -1)]
    for number, name in enumerate(("embedded model server", "preprocess service", "the pair, to a right answer")):
        starts = [starts[number] for starts, _ in rounds]
        print(f"{name}: up in {statistics.median(starts):.2f} s (median of {len(starts)}; {max(starts):.2f} at worst)")
    for name, megabytes in rounds[-1][1].items():
        print(f"{name}: {megabytes:.0f} MB after {options.predictions} predictions")


def measure(predictions: int) -> tuple[tuple[float, float, float], dict[str, float]]:
    """Return the seconds until model server, preprocess service and both were up, and the memory of each in MB."""
    grpc_port, rest_port, http_port = free_ports(3)
    model_command = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--bind_address=127.0.0.1",
        "--model_name=CAT-DOG",
        f"--model_base_path={MODEL}",
    ]
    place = {"SERVICE_MODEL_HOST": "127.0.0.1", "SERVICE_MODEL_PORT": str(grpc_port), "SERVICE_PORT": str(http_port)}
    with ExitStack() as stack:
        model_server, model_seconds = start(stack, [MODEL_SERVER, *model_command], grpc_port, {})
        app_server, app_seconds = start(stack, [APP_SERVER], http_port, place)
        begin = time.monotonic()
        image_b64 = base64.b64encode(PHOTO.read_bytes()).decode()
        url = f"http://127.0.0.1:{http_port}/predict"
        first = 0.0
        for _ in tqdm(range(predictions), disable=predictions == 1, unit="photo"):
            requests.post(url, json={"image_b64": image_b64}, timeout=60).raise_for_status()
            first = first or time.monotonic() - begin
        memory = {
            "embedded model server": psutil.Process(model_server.pid).memory_info().rss / 1e6,
            "preprocess service": psutil.Process(app_server.pid).memory_info().rss / 1e6,
        }
    return (model_seconds, app_seconds, model_seconds + app_seconds + first), memory


def start(
    stack: ExitStack, command: list[str | Path], port: int, environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], float]:
    """Start a service; return it, and the seconds until it accepted a connection on ``port``. ``stack`` stops it."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    while time.monotonic() - begin < START_SECONDS and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, time.monotonic() - begin
        time.sleep(0.005)
    raise SystemExit(f"footprint: {Path(command[0]).name} did not start; start it by hand to see why")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


if __name__ == "__main__":
    main()
