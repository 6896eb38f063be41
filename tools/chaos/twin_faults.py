"""Cases of the fault suite: one of two model servers behind one host name fails, and no request is lost."""

import contextlib
import re
import subprocess
import sys
import time
import urllib.request
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from tools.chaos.model_faults import NOTICED_S, TWO
from tools.chaos.stage import MODELS, Missing, Name, free_port
from tools.chaos.trial import Trial, case
from tools.load import Client

STUCK_MODEL = Path(__file__).with_name("stuck_model.py")
METRICS = "/monitoring/prometheus/metrics"


class Twins:
    """Two model servers behind one host name, and a preprocess service that uses this name."""

    def __init__(self, trial: Trial, *flags: str, models: Path = MODELS, start: int = 2) -> None:
        monitoring = trial.stage.folder / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }", encoding="ascii")
        self.name = Name(trial.stage, *TWO[:start])
        self.port, grpc_port = free_port(), free_port(*TWO)
        self._rest_port = free_port(*TWO)
        flags = (f"--monitoring_config_file={monitoring}", *flags)
        self.servers = [
            trial.stage.model_server(grpc_port, *flags, host=host, rest_port=self._rest_port, models=models)
            for host in TWO
        ]
        for server in self.servers[:start]:
            server.start()
        trial.stage.app_server(Name.HOST, grpc_port, self.port, self.name.prefix).start()
        self._trial = trial

    def answered(self, number: int) -> float:
        """Return how many calls this server has answered since its start."""
        url = f"http://{TWO[number]}:{self._rest_port}{METRICS}"
        with urllib.request.urlopen(url, timeout=10) as page:
            found = re.search(r'request_count\{model_name="CAT-DOG",status="OK"\} (\S+)', page.read().decode())
        return float(found[1]) if found else 0.0

    def share(self) -> None:
        """Wait until both servers have answered a few more calls."""
        counts = [self.answered(number) for number in range(2)]
        for number, count in enumerate(counts):
            takes_part = partial(self._has_answered, number, count + 3)
            self._trial.wait_until(takes_part, f"the model server at {TWO[number]} got no calls")

    def _has_answered(self, number: int, count: float) -> bool:
        return self.answered(number) > count


@case("a second model server joins the first")
def one_joins(trial: Trial) -> None:
    twins = Twins(trial, start=1)
    with trial.under_load(twins.port):
        trial.go_on()
        trial.fault("another one, its address added to the name")
        twins.servers[1].start()
        twins.name.set(*TWO)
        twins.share()
        trial.recovered()
        trial.go_on()


@case("one of two model servers killed", short=True)
def one_killed(trial: Trial) -> None:
    twins = Twins(trial)
    with trial.under_load(twins.port):
        trial.go_on()
        for server in twins.servers:
            twins.share()
            trial.fault("SIGKILL")
            server.kill()
            trial.go_on()
            server.start()
            trial.recovered()
        twins.share()
    trial.promise(not trial.report.refused, "not every request was answered")


@case("one of two model servers restarted")
def one_restarted(trial: Trial) -> None:
    twins = Twins(trial)
    with trial.under_load(twins.port):
        for server in twins.servers * trial.pace.rounds:
            trial.go_on()
            twins.share()
            trial.restart(server)
        twins.share()


@case("one of two model servers stopped")
def one_stopped(trial: Trial) -> None:
    twins = Twins(trial)
    with trial.under_load(twins.port):
        for server in twins.servers:
            trial.go_on()
            twins.share()
            trial.fault(f"SIGSTOP for {NOTICED_S:.0f} s")
            server.pause()
            time.sleep(NOTICED_S)
            server.resume()
            trial.recovered()
        trial.go_on()
        twins.share()


@case("one of two model servers stuck", ("deadline_exceeded",))
def one_stuck(trial: Trial) -> None:
    """A call computes without end and delays the calls behind it, until the server reports this and exits."""
    models = trial.stage.folder / "CAT-DOG"
    written = subprocess.run([sys.executable, STUCK_MODEL, models / "1"], capture_output=True, text=True, check=False)
    if written.returncode:
        raise Missing(f"the model for this case could not be written: {written.stderr[-300:]}")
    twins = Twins(trial, "--stuck_call_seconds=2", "--exit_when_stuck", models=models)
    trial.timeout_ms = 3000
    with trial.under_load(twins.port):
        trial.go_on()
        twins.share()
        trial.fault("a picture that keeps the model busy")
        with contextlib.closing(Client(f"http://127.0.0.1:{twins.port}", timeout_ms=1000)) as client:
            status, _, _ = client.send("POST", "/predict", black_picture(), "image/png")
        trial.promise(status == 504, f"the picture was answered with {status}")
        trial.wait_until(lambda: any(server.has_ended() for server in twins.servers), "no model server exited")
        (ended,) = [server for server in twins.servers if server.has_ended()]
        trial.promise(ended.wait() == 1, f"it ended with {ended.wait()}")
        trial.recovered()
        trial.go_on()
        ended.start()
        twins.share()
        trial.go_on()


def black_picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (224, 224)).save(file, "PNG")
    return file.getvalue()
