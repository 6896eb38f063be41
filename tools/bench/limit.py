"""Measures the upper limit of the machine: decode, resize and network in one process.

    python -m tools.bench.limit [PHOTO ...]

There is no HTTP, base64 or gRPC. Several threads convert photos from bytes to probabilities, with the functions of the
preprocess service and the engine of the embedded model server. Several numbers of threads and streams are measured,
each for `--seconds`. The result is one line of JSON: photos per second for each setting, milliseconds of each step for
a single photo, CPU milliseconds per photo, and memory in megabytes.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tools.evaluation.photos import SUFFIXES
from tools.inference import import_openvino
from tools.load import PHOTOS
from tools.service import PROJECT, Config, decode_image, read_config, to_tensor

MODEL = PROJECT / "prev_trained_models" / "CAT-DOG"
SINGLE_PHOTOS = 100

Picture = NDArray[np.float32]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    confined = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(confined(0)) if confined else os.cpu_count() or 1


def newest_version(model: Path) -> Path:
    """Return the folder of the highest version of a model."""
    return max((folder for folder in model.iterdir() if folder.name.isdecimal()), key=lambda folder: int(folder.name))


class Network:
    """The model in OpenVINO, for `streams` parallel calls with `threads` threads in all."""

    def __init__(self, model: Path, streams: int, threads: int) -> None:
        self._openvino = import_openvino()
        wanted = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
        self._compiled = self._openvino.Core().compile_model(str(model), "CPU", wanted)

    def call(self) -> Callable[[Picture], Picture]:
        """Return a function for one thread: a picture to the first two-dimensional output, `[1, classes]`."""
        request = self._compiled.create_infer_request()
        output = next(n for n, port in enumerate(self._compiled.outputs) if len(port.get_partial_shape()) == 2)

        def compute(picture: Picture) -> Picture:
            request.set_input_tensor(0, self._openvino.Tensor(picture[np.newaxis], shared_memory=True))
            request.infer()
            probabilities: Picture = request.get_output_tensor(output).data.copy()
            return probabilities

        return compute


def names_of(model: Path) -> tuple[str, str]:
    """Return the names of the model's input and of the output with a value per class."""
    graph = import_openvino().Core().read_model(str(model))
    (output,) = [port.any_name for port in graph.outputs if len(port.get_partial_shape()) == 2]
    return graph.inputs[0].any_name, output


def single(photos: Sequence[bytes], config: Config, model: Path, cores: int) -> dict[str, float]:
    """Return the median milliseconds of each step for one photo. The network runs on one core or on all."""
    times: dict[str, list[float]] = {"decode": [], "resize": [], "network": []}
    networks = {threads: Network(model, 1, threads).call() for threads in sorted({1, cores})}
    for number in range(-10, SINGLE_PHOTOS):
        moments = [time.perf_counter()]
        image = decode_image(photos[number % len(photos)], config.limits.pixels, config.picture)
        moments.append(time.perf_counter())
        picture = to_tensor(image, config.picture)
        moments.append(time.perf_counter())
        fastest = []
        for compute in networks.values():
            begin = time.perf_counter()
            compute(picture)
            fastest.append(time.perf_counter() - begin)
        if number >= 0:
            times["decode"].append(moments[1] - moments[0])
            times["resize"].append(moments[2] - moments[1])
            times["network"].append(min(fastest))
    return {step: 1000 * statistics.median(taken) for step, taken in times.items()}


def throughput(photos: Sequence[bytes], config: Config, network: Network, callers: int, seconds: float) -> float:
    """Return the photos per second of `callers` threads; each processes one photo after another."""
    counts = [0] * callers
    end = time.perf_counter() + seconds

    def work(caller: int) -> None:
        compute = network.call()
        while time.perf_counter() < end:
            photo = photos[counts[caller] % len(photos)]
            compute(to_tensor(decode_image(photo, config.limits.pixels, config.picture), config.picture))
            counts[caller] += 1

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def ways(cores: int) -> list[tuple[int, int, int]]:
    """Return the settings to measure on this number of cores: streams, threads in all, callers."""
    return sorted({(cores, cores, cores), (cores, cores, cores + 1), (cores, cores, 2 * cores), (1, cores, cores + 1)})


def measure(photos: Sequence[bytes], config: Config, model: Path, seconds: float) -> dict[str, Any]:
    """Return all results; the CPU time is that of the setting with the most photos per second."""
    cores = usable_cores()
    steps = single(photos, config, model, cores)
    rates, cpu = {}, {}
    for streams, threads, callers in ways(cores):
        network = Network(model, streams, threads)
        throughput(photos, config, network, callers, seconds / 5)
        begin, before = time.perf_counter(), time.process_time()
        name = f"{streams} streams, {threads} threads, {callers} callers"
        rates[name] = throughput(photos, config, network, callers, seconds)
        spent = time.process_time() - before
        cpu[name] = 1000 * spent / (rates[name] * (time.perf_counter() - begin))
    best = max(rates, key=lambda name: rates[name])
    memory = psutil.Process().memory_info().rss / 1e6
    return {"rates": rates, "best": best, "cpu_ms": cpu[best], "steps_ms": steps, "megabytes": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", default=PHOTOS, help="files (default: the photos of images/)")
    parser.add_argument("--model", type=Path, default=MODEL, help="a model's folder with its versions")
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    paths = [path for path in options.photos if path.suffix.lower() in SUFFIXES]
    if not paths:
        parser.error("no photos among the files")
    photos = [path.read_bytes() for path in paths]
    print(json.dumps(measure(photos, read_config(None), newest_version(options.model), options.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
