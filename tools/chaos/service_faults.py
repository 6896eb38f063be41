"""Cases of the fault suite: the services are restarted, get a new model, or get too many requests."""

import json
import shutil
import signal
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from tools.chaos.model_faults import pair
from tools.chaos.stage import MODELS, answers, free_port
from tools.chaos.trial import Trial, case
from tools.load import Load

# Below limits.in_flight on any machine.
IN_FLIGHT = 4
# Drain time of the services in the cases. After it, no client still sends requests to a service that is stopping.
DRAIN_S = 1
FLOOD = 200
FLOOD_S = 5


class Fronts:
    """A model server, two preprocess services, and nginx in front of them with the shipped configuration."""

    def __init__(self, trial: Trial) -> None:
        self.port, grpc_port = free_port(), free_port()
        trial.stage.model_server(grpc_port).start()
        ports = [free_port(), free_port()]
        self.services = [
            trial.stage.app_server("127.0.0.1", grpc_port, port, SERVICE_DRAIN_SECONDS=str(DRAIN_S)) for port in ports
        ]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        for service in self.services:
            service.start()
        trial.stage.nginx(self.port, ports).start()


@case("proxy: one of two services restarted", short=True)
def rolling(trial: Trial) -> None:
    """As in a rolling release: the second service is restarted when the first is ready again."""
    fronts = Fronts(trial)
    with trial.under_load(fronts.port):
        for service, url in list(zip(fronts.services, fronts.urls, strict=True)) * trial.pace.rounds:
            trial.go_on()
            trial.fault("SIGTERM, started again")
            service.ask_to_end()
            trial.wait_until(partial(is_not_ready, url), "/readyz did not change after SIGTERM")
            status = service.wait()
            trial.promise(status in (0, -signal.SIGTERM), f"the service ended with {status}")
            service.start()
            trial.wait_until(partial(answers, f"{url}/readyz"), "/readyz did not become ready again")
            trial.recovered()
        trial.go_on()


def is_not_ready(url: str) -> bool:
    return not answers(f"{url}/readyz")


@case("proxy: one of two services killed", ("service_lost",))
def front_killed(trial: Trial) -> None:
    """Its requests fail. They are not sent to the other service, which they could crash too. Others are answered."""
    fronts = Fronts(trial)
    with trial.under_load(fronts.port):
        for service in fronts.services:
            trial.go_on()
            trial.fault("SIGKILL")
            service.kill()
            trial.go_on()
            service.start()
            trial.recovered()
        trial.go_on()


@case("service ends with requests in flight", short=True)
def in_flight(trial: Trial) -> None:
    """All of them wait for the model server when SIGTERM comes; none may be lost."""
    port, grpc_port = free_port(), free_port()
    model_server = trial.stage.model_server(grpc_port)
    model_server.start()
    service = trial.stage.app_server("127.0.0.1", grpc_port, port)
    service.start()
    trial.aim(port)
    for _ in range(trial.pace.rounds):
        for thread in trial.load.ask_at_once(2):
            thread.join()
        model_server.pause()
        threads = trial.load.ask_at_once(IN_FLIGHT)
        trial.wait_until(lambda: photos_in_flight(port) == IN_FLIGHT, "not all requests were accepted")
        trial.fault("SIGTERM")
        service.ask_to_end()
        time.sleep(0.3)
        model_server.resume()
        for thread in threads:
            thread.join()
        status = service.wait()
        trial.promise(status in (0, -signal.SIGTERM), f"the service ended with {status}")
        service.start()
    trial.judge()


def photos_in_flight(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("catdog_in_flight ")))


@case("new model version, and a broken one")
def new_version(trial: Trial) -> None:
    models = trial.stage.folder / "CAT-DOG"
    newest = max(int(folder.name) for folder in MODELS.iterdir() if folder.name.isdecimal())
    shutil.copytree(MODELS / str(newest), models / str(newest))
    port, grpc_port, rest_port = free_port(), free_port(), free_port()
    trial.stage.model_server(grpc_port, "--max_num_load_retries=0", rest_port=rest_port, models=models).start()
    trial.stage.app_server("127.0.0.1", grpc_port, port).start()

    def states() -> dict[int, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/v1/models/CAT-DOG", timeout=10) as answer:
            found: list[Any] = json.load(answer)["model_version_status"]
        return {int(one["version"]): f"{one['state']} {one['status']['error_code']}" for one in found}

    with trial.under_load(port):
        trial.go_on()
        trial.fault("a new version")
        deliver(trial, models / str(newest + 1), broken=False)
        wanted = {newest + 1: "AVAILABLE OK", newest: "END OK"}
        trial.wait_until(lambda: states() == wanted, "the new version did not replace the old one")
        trial.recovered()
        trial.go_on()
        trial.fault("a broken version")
        deliver(trial, models / str(newest + 2), broken=True)
        wanted |= {newest + 2: "END DATA_LOSS"}
        trial.wait_until(lambda: states() == wanted, "the broken version is not reported as such")
        trial.recovered()
        trial.go_on()


def deliver(trial: Trial, folder: Path, broken: bool) -> None:
    """Add a version as docs/model_server.md says: copied to another folder, then renamed."""
    beside = trial.stage.folder / "delivery"
    shutil.copytree(MODELS / str(max(int(one.name) for one in MODELS.iterdir() if one.name.isdecimal())), beside)
    if broken:
        (beside / "saved_model.pb").write_bytes(b"broken")
    beside.rename(folder)


@case("service flooded", ("overloaded",))
def flooded(trial: Trial) -> None:
    """Many more requests than the concurrency limit: the others are rejected at once, and later all are answered."""
    _, port, _ = pair(trial)
    with trial.under_load(port):
        trial.go_on()
        trial.fault(f"{FLOOD} connections without a pause")
        flood = Load(f"http://127.0.0.1:{port}", rate=1e6, clients=FLOOD)
        with flood.going_on():
            time.sleep(FLOOD_S)
        trial.load.outcomes.extend(flood.outcomes)
        trial.recovered()
        trial.go_on()
    trial.promise("overloaded" in trial.report.refused, "the load was too low: nothing was rejected")
