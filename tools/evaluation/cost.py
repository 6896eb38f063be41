"""Measures the time of the network for one photo on one core, in OpenVINO and in TensorFlow. Nothing else is timed.

python -m tools.evaluation.cost MODEL [MODEL ...]       version folders, measured in turn under the same conditions
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
CALLS = 200
WARM_UP_CALLS = 10

# A process can set TensorFlow's threads only once, and OpenVINO's threads would use the same core. So a new process.
_TENSORFLOW = "import sys; from tools.evaluation import cost; cost.time_tensorflow(sys.argv[1], sys.argv[2])"


def time_in_turn(calls: Mapping[str, Callable[[], object]], rounds: int = CALLS) -> dict[str, float]:
    """Return the milliseconds of each call: the median of `rounds`, measured in turn."""
    for call in calls.values():
        for _ in range(WARM_UP_CALLS):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: float(np.median(taken)) for name, taken in times.items()}


def openvino_call(model: Path) -> Callable[[], object]:
    """Return a function that computes one random float32 picture in one thread."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    shape = [1, *(side.get_length() for side in list(compiled.inputs[0].partial_shape)[1:])]
    picture = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    request = compiled.create_infer_request()
    return lambda: request.infer([picture])


def openvino_milliseconds(models: Mapping[str, Path], rounds: int = CALLS) -> dict[str, float]:
    """Return the milliseconds of each of `models`, measured in one run."""
    return time_in_turn({name: openvino_call(path) for name, path in models.items()}, rounds)


def time_tensorflow(model: str, rounds: str) -> None:
    """Print the milliseconds of one inference in one thread; run it in a process of its own."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    signature = tf.saved_model.load(model).signatures["serving_default"]
    (name, spec), *_ = signature.structured_input_signature[1].items()
    shape = [1, *spec.shape[1:]]
    picture = tf.constant(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
    taken = time_in_turn({"": lambda: signature(**{name: picture})}, int(rounds))
    print(json.dumps(taken[""]))


def tensorflow_milliseconds(model: Path, rounds: int = CALLS) -> float | None:
    """Return the milliseconds of one inference in TensorFlow; None if it is not installed or fails."""
    command = [sys.executable, "-c", _TENSORFLOW, str(model.resolve()), str(rounds)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=PROJECT)
    return float(json.loads(done.stdout)) if done.returncode == 0 else None


def main(arguments: list[str] | None = None) -> int:
    """Print the milliseconds in OpenVINO for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="version folders")
    options = parser.parse_args(arguments)
    for name, taken in openvino_milliseconds({str(path): path for path in options.models}).items():
        print(f"{taken:7.2f} ms  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
