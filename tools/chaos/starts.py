"""Starts the embedded model server, has it compute for several callers at once, ends it meanwhile; again and again.

    python run.py chaos --starts 500

A program of a few lines, two threads that call ``infer()`` on one compiled OpenVINO model, has been seen to stop for
good once in some forty runs: OpenVINO's bindings look for numpy when they meet their first array, and two threads that
bring one at once wait for each other. The server brings one before it has threads (see engines/openvino.py); that
nothing else stops it is what is tried here, with two streams at every second start. A server counts as stuck when it
is asked for something, a prediction or its end, and all of its threads sleep for ``IDLE_S``: on a busy machine no clock
would tell that from waiting for a processor. What it sleeps in is printed.
"""

import contextlib
import random
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import psutil
from tqdm import tqdm

from serving_common import tensorflow_protos as messages
from tools import service
from tools.chaos.stage import NotReady, Process, Stage, free_port

CALLERS = 4
# No machine is so busy that it takes this long.
CALL_S = 600.0
IDLE_S = 20.0
LOOK_S = 0.5
# What callers are told when the server ends under them.
ENDING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Outputs of the same picture may differ by the order of a sum.
CLOSE = 1e-5


@dataclass
class Tally:
    """What became of all starts, and of the calls: answered, cut off by the end, failed."""

    starts: int = 0
    answered: int = 0
    cut_off: int = 0
    longest_stop: float = 0.0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, answered: int = 0, cut_off: int = 0, failure: str = "") -> None:
        with self._lock:
            self.answered += answered
            self.cut_off += cut_off
            if failure:
                self.failures.append(f"start {self.starts + 1}: {failure}")


def run(count: int, seed: int = 1) -> Tally:
    """Do it ``count`` times, each for a random time under load between none and a second; or until Ctrl-C."""
    tally, chance = Tally(), random.Random(seed)
    with contextlib.suppress(KeyboardInterrupt):
        for number in tqdm(range(count), unit="start", desc="starts", mininterval=1):
            flags = ["--tensorflow_inter_op_parallelism=2"] if number % 2 else []
            with Stage() as stage:
                start(stage, flags, chance.uniform(0, 1), tally)
            tally.starts = number + 1
    return tally


def start(stage: Stage, flags: Sequence[str], seconds: float, tally: Tally) -> None:
    port = free_port()
    server = stage.model_server(port, *flags)
    try:
        server.start()
    except NotReady as exc:
        tally.count(failure=f"did not start: {exc}")
    else:
        work(server, port, seconds, tally)


def work(server: Process, port: int, seconds: float, tally: Tally) -> None:
    """Have the server compute for so long, end it while it does, and count what came of it."""
    is_ending = threading.Event()
    callers = [threading.Thread(target=call, args=(port, is_ending, tally)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    time.sleep(seconds)
    is_ending.set()
    began = time.monotonic()
    server.ask_to_end()
    if is_stuck(server):
        tally.count(failure=f"stuck; its threads: {threads_of(server.pid)}")
        server.kill()
    elif status := server.wait():
        tally.count(failure=f"ended with {status}: {server.output()[-500:]}")
    tally.longest_stop = max(tally.longest_stop, time.monotonic() - began)
    for caller in callers:
        caller.join()


def is_stuck(server: Process) -> bool:
    """Wait until the process has ended, only sleeps, or has taken longer than any machine would."""
    latest = time.monotonic() + CALL_S
    asleep_since, used = time.monotonic(), 0.0
    process = psutil.Process(server.pid)
    while not server.has_ended():
        with contextlib.suppress(psutil.NoSuchProcess):
            now, times = time.monotonic(), process.cpu_times()
            if times.user + times.system > used or process.status() != psutil.STATUS_SLEEPING:
                asleep_since, used = now, times.user + times.system
            if now - asleep_since > IDLE_S or now > latest:
                return True
        time.sleep(LOOK_S if asleep_since + LOOK_S < time.monotonic() else 0.02)
    return False


def call(port: int, is_ending: threading.Event, tally: Tally) -> None:
    """Ask for predictions without a pause until the server ends."""
    request, first = picture(), None
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        predict = messages.prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        while True:
            try:
                values = list(predict(request, timeout=CALL_S).outputs["probabilities"].float_val)
            except grpc.RpcError as exc:
                if exc.code() in ENDING and is_ending.is_set():
                    tally.count(cut_off=1)
                else:
                    tally.count(failure=f"{exc.code().name}: {exc.details()}")
                return
            first = first or values
            if not np.allclose(values, first, atol=CLOSE):
                tally.count(failure=f"{values} for what was {first}")
            tally.count(answered=1)


def picture() -> Any:
    request = messages.predict_pb2.PredictRequest()
    request.model_spec.name = "CAT-DOG"
    tensor = request.inputs["image"]
    tensor.dtype = messages.types_pb2.DT_FLOAT
    shape = (1, *service.read_config(None).size, 3)
    for side in shape:
        tensor.tensor_shape.dim.add(size=side)
    tensor.tensor_content = np.random.default_rng(0).uniform(-1, 1, shape).astype("<f4").tobytes()
    return request


def threads_of(pid: int) -> str:
    """Where each thread of a process waits, as far as the kernel tells (proc(5), wchan)."""
    command = f"for t in /proc/{pid}/task/*; do echo $(cat $t/comm $t/wchan 2>/dev/null); done"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False).stdout.replace("\n", "; ")
