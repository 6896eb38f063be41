"""Starts the embedded model server, sends calls from several clients, and stops it meanwhile; again and again.

    python run.py chaos --starts 500

This looks for deadlocks. A short program with two threads that call ``infer()`` on one compiled OpenVINO model stopped
for ever in about one of forty runs: OpenVINO's bindings import numpy at their first array, and two threads that do this
at the same time deadlock. The server makes one array before it starts threads (see engines/openvino.py). Here every
second start has two streams, to find other deadlocks. A server counts as stuck if all its threads sleep for ``IDLE_S``
while it should answer or stop. On a busy machine a time limit could not tell that from waiting for a CPU. The report
says where the threads sleep.
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
# Longer than any call takes, even on a very busy machine.
CALL_S = 600.0
IDLE_S = 20.0
CHECK_S = 0.5
# The status of calls when the server stops.
ENDING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Tolerance between outputs for the same picture: sums may be added in another order.
CLOSE = 1e-5


@dataclass
class Tally:
    """Counts all starts and calls: answered, cut off by the stop, failed."""

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
    """Run ``count`` starts or until Ctrl-C, each with a random time under load between 0 and 1 s."""
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
    """Send calls for ``seconds``, stop the server during them, and count the results."""
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
    """Wait for the end of the process; return whether it only sleeps, or takes longer than ``CALL_S``."""
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
        time.sleep(CHECK_S if asleep_since + CHECK_S < time.monotonic() else 0.02)
    return False


def call(port: int, is_ending: threading.Event, tally: Tally) -> None:
    """Send one prediction after another until the server stops."""
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
                tally.count(failure=f"{values}, but the first answer was {first}")
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
    """Return where each thread of a process waits, as far as the kernel shows it (proc(5), wchan)."""
    command = f"for t in /proc/{pid}/task/*; do echo $(cat $t/comm $t/wchan 2>/dev/null); done"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False).stdout.replace("\n", "; ")
