"""Cases of the fault suite: the model server is stopped, restarted, or replaced by another program."""

import sys
import time
from pathlib import Path

from tools.chaos.stage import Name, Process, free_port
from tools.chaos.trial import Trial, case

IMPOSTOR = "tools.chaos.impostor"
AWAY = ("model_unavailable", "deadline_exceeded")
# Half of the deadline. An error within this time does not make the client wait.
AT_ONCE_S = 5.0
# A stopped model server is noticed by a ping and has refused a new connection after 7 s (channel.py), plus a margin.
NOTICED_S = 8.0

TWO = ("127.0.0.2", "127.0.0.3")


def pair(trial: Trial) -> tuple[Process, int, int]:
    """Start a model server and a preprocess service; return the server and the ports of HTTP and gRPC."""
    port, grpc_port = free_port(), free_port()
    model_server = trial.stage.model_server(grpc_port)
    model_server.start()
    trial.stage.app_server("127.0.0.1", grpc_port, port).start()
    return model_server, port, grpc_port


@case("model server killed", AWAY, short=True)
def killed(trial: Trial) -> None:
    model_server, port, _ = pair(trial)
    with trial.under_load(port):
        trial.go_on()
        for _ in range(trial.pace.rounds):
            trial.fault("SIGKILL")
            model_server.kill()
            trial.suffer()
            model_server.start()
            trial.recovered()
            trial.go_on()
    trial.promise(trial.median_refusal() < AT_ONCE_S, f"rejected only after {trial.median_refusal():.1f} s")


@case("model server restarted", AWAY)
def restarted(trial: Trial) -> None:
    model_server, port, _ = pair(trial)
    with trial.under_load(port):
        for _ in range(trial.pace.rounds):
            trial.go_on()
            trial.restart(model_server)
        trial.go_on()


@case("model server stopped", AWAY)
def stopped(trial: Trial) -> None:
    model_server, port, _ = pair(trial)
    with trial.under_load(port):
        trial.go_on()
        trial.fault(f"SIGSTOP for {NOTICED_S + 4:.0f} s")
        model_server.pause()
        time.sleep(NOTICED_S)
        noticed = time.monotonic()
        time.sleep(4)
        model_server.resume()
        trial.recovered()
        trial.go_on()
    late = trial.median_refusal(noticed)
    trial.promise(late < AT_ONCE_S, f"still rejected only after {late:.1f} s, long after the stop")


@case("model server not there at start", AWAY)
def absent(trial: Trial) -> None:
    port, grpc_port = free_port(), free_port()
    trial.stage.app_server("127.0.0.1", grpc_port, port).start()
    with trial.under_load(port):
        trial.fault("not started")
        trial.suffer()
        trial.stage.model_server(grpc_port).start()
        trial.recovered()
        trial.go_on()


@case("model server moved to another address", AWAY)
def moved(trial: Trial) -> None:
    name = Name(trial.stage, TWO[0])
    port, grpc_port = free_port(), free_port(*TWO)
    first, second = (trial.stage.model_server(grpc_port, host=host) for host in TWO)
    first.start()
    trial.stage.app_server(Name.HOST, grpc_port, port, name.prefix).start()
    with trial.under_load(port):
        trial.go_on()
        trial.fault("SIGKILL, another one behind the name")
        first.kill()
        trial.suffer()
        second.start()
        name.set(TWO[1])
        trial.recovered()
        trial.go_on()


def impostor(trial: Trial, mode: str, refusals: int | None = None) -> None:
    """Start an impostor in place of the model server, and later the model server itself."""
    port, grpc_port = free_port(), free_port()
    command: list[str | Path] = [sys.executable, "-m", IMPOSTOR, str(grpc_port), mode]
    process = trial.stage.process("impostor", command, {}, lambda: "ready" in process.output())
    process.start()
    trial.stage.app_server("127.0.0.1", grpc_port, port).start()
    with trial.under_load(port):
        trial.fault(mode)
        trial.suffer(refusals)
        process.kill()
        trial.stage.model_server(grpc_port).start()
        trial.recovered()
        trial.go_on()


@case("nonsense for an answer", ("model_error", *AWAY), short=True)
def nonsense(trial: Trial) -> None:
    impostor(trial, "nonsense")
    trial.promise("model_error" in trial.report.refused, "none was rejected with model_error")


@case("every refusal that gRPC knows", ("model_error", "overloaded", *AWAY))
def refusing(trial: Trial) -> None:
    impostor(trial, "refusing", max(trial.pace.answers, 40))
    missing = {"model_error", "overloaded", *AWAY} - set(trial.report.refused)
    trial.promise(not missing, f"no request was rejected with {', '.join(missing)}")


@case("no gRPC on its port", AWAY)
def no_grpc(trial: Trial) -> None:
    impostor(trial, "no_grpc")


@case("model server too slow", AWAY)
def slow(trial: Trial) -> None:
    """The answers come after the deadline of the requests. Pings must not make the server close the connection."""
    trial.timeout_ms = 1000
    impostor(trial, "slow")
    trial.promise("deadline_exceeded" in trial.report.refused, "none was rejected with deadline_exceeded")
