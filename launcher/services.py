"""Starts the model server and the preprocess service, and stops both when run.py ends for any reason."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from launcher import Problem
from launcher.environment import ROOT, python
from launcher.ports import refuse_taken
from launcher.supervise import STOP_SECONDS

PREPROCESS_SERVICE = ROOT / "app" / "preprocess_service" / "app"
MODEL_SERVICE = ROOT / "app" / "model_service"
MODELS = ROOT / "prev_trained_models"
START_SECONDS = 60
# Where a new version fails its golden check, the preprocess service goes on with the old one, and asks for that one.
UNLOAD_DELAY_SECONDS = 10


def model_names(wanted: Sequence[str] = ()) -> list[str]:
    """The models to serve: `wanted`, else those that MODEL_NAME names, else the preprocess service's own settings.

    Raises Problem if `prev_trained_models` has no version of one, with a list of those that there are; or if one is
    named twice.
    """
    sent = wanted or (os.environ.get("MODEL_NAME") or _configured()).split(",")
    names = [name.strip() for name in sent if name.strip()]
    found = sorted(path.name for path in MODELS.iterdir() if any(_is_version(child) for child in _children(path)))
    for name in names or [",".join(sent)]:
        if name not in found:
            raise Problem(f"there is no model {name!r} in {MODELS.name}/; there are: {', '.join(found) or 'none'}")
        if names.count(name) > 1:
            raise Problem(f"the model {name!r} is named more than once")
    return names


def _configured() -> str:
    """The names of the settings file, separated by commas."""
    # Without a package for YAML: run.py needs nothing but Python.
    path = Path(os.environ.get("SERVICE_CONFIG") or PREPROCESS_SERVICE / "config.yaml")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        match = re.search(r"^experiment_id:([^#\n]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        names = re.sub(r"[\[\]\"']", "", match[1]).strip() if match else ""
        if names:
            return names
    # The service says itself what is wrong with its settings.
    return "CAT-DOG"


def _children(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and path.is_dir()


@contextlib.contextmanager
def pair(
    http_port: int, grpc_port: int, rest_port: int, models: Sequence[str], canaries: Sequence[str] = ()
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start both services on these ports of 127.0.0.1; yield when all `models` predict; stop both after the block.

    Each of `canaries` is a version that answers a share of the photos: `CAT-DOG/2=10%`.

    Raises Problem if a port is used already, or if a service does not start.
    """
    of_model_server = {"--grpc-port": grpc_port, "--rest-port": rest_port}
    own = {"--port": http_port}
    if len({http_port, grpc_port, rest_port}) < 3:
        raise Problem("--port, --grpc-port and --rest-port need three different ports")
    _refuse_taken(own | of_model_server)
    model_server = [
        str(MODEL_SERVICE / "model_server.py"),
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--bind_address=127.0.0.1",
        f"--unload_delay_seconds={UNLOAD_DELAY_SECONDS}",
    ]
    place = {"SERVICE_MODEL_HOST": "127.0.0.1", "SERVICE_MODEL_PORT": str(grpc_port)}
    place |= {"SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(http_port), "MODEL_NAME": ",".join(models)}
    place |= {"SERVICE_CANARY": ",".join(canaries)} if canaries else {}
    processes: list[subprocess.Popen[bytes]] = []
    with _ended_by_one_signal():
        try:
            # The model server reads the list of models only when it starts.
            with tempfile.TemporaryDirectory() as folder:
                processes.append(
                    _start([*model_server, *_model_flags(models, canary_versions(models, canaries), Path(folder))], {})
                )
                # One after the other. Otherwise the preprocess service would log warnings while the model server loads.
                _wait_for_last(rest_port, of_model_server, processes)
            processes.append(_start([str(PREPROCESS_SERVICE / "app_server.py")], place))
            _wait_for_last(http_port, own, processes)
            yield processes
        finally:
            # The preprocess service first: it finishes its requests, which need the model server.
            for process in reversed(processes):
                _stop(process)


def canary_versions(models: Sequence[str], canaries: Sequence[str]) -> dict[str, list[str]]:
    """The versions that are served of each model with a canary: the canary, and the newest other one.

    Raises Problem if one of `canaries` has another form than `CAT-DOG/2=10%`, or names no version that there is.
    """
    served: dict[str, list[str]] = {}
    for canary in canaries:
        match = re.fullmatch(r"(.+)/0*(\d+)=[\d.]+%", canary, re.ASCII)
        if match is None or match[1] not in models:
            raise Problem(f"--canary {canary}: give one of the models, a version and a share, e.g. {models[0]}/2=10%")
        name, version = match.groups()
        versions = sorted((int(path.name) for path in _children(MODELS / name) if _is_version(path)), reverse=True)
        others = [one for one in versions if one != int(version)]
        if int(version) not in versions or not others:
            found = ", ".join(map(str, versions))
            raise Problem(f"--canary {canary}: a canary is a version beside another one; {name} has: {found}")
        served[name] = [str(others[0]), version]
    return served


def _model_flags(models: Sequence[str], versions: Mapping[str, Sequence[str]], folder: Path) -> list[str]:
    """The model server's flags for these models. For several models or versions, a list is written into `folder`.

    `versions` are those to serve of a model; the newest if it is not in it.
    """
    if len(models) == 1 and not versions:
        return [f"--model_name={models[0]}", f"--model_base_path={MODELS / models[0]}"]
    configs = []
    for name in models:
        wanted = " ".join(f"versions: {version}" for version in versions.get(name, ()))
        policy = f"model_version_policy {{ specific {{ {wanted} }} }}" if wanted else ""
        place = f"name: {_quoted(name)} base_path: {_quoted(str(MODELS / name))}"
        configs.append(f'config {{ {place} model_platform: "tensorflow" {policy} }}')
    path = folder / "models.config"
    path.write_text(f"model_config_list {{ {' '.join(configs)} }}", encoding="utf-8")
    return [f"--model_config_file={path}"]


def _quoted(text: str) -> str:
    # Quotes and escapes of JSON mean the same in the text form of a message.
    return json.dumps(text, ensure_ascii=False)


def _refuse_taken(ports: Mapping[str, int]) -> None:
    for option, port in ports.items():
        refuse_taken(port, option)


def _wait_for_last(port: int, ports: Mapping[str, int], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the service that was started last, which is asked at `port`; `ports` are all of it by option."""
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", processes)
    except Problem:
        if processes[-1].poll() is not None:
            # One may have been taken since the first check. The service names an option of its own.
            _refuse_taken(ports)
        raise


def wait_until_ready(address: str, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return when a GET of `address` succeeds; raises Problem if one of `processes` ends first, or after 60 s."""
    end = time.monotonic() + START_SECONDS
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    reason = "see their output above"
    while time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            raise Problem("a service could not start; see its output above")
        try:
            with direct.open(address, timeout=5):
                return
        except urllib.error.HTTPError as exc:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
                reason = " ".join(json.load(exc)["failing"].values()) or reason
            exc.close()
        except OSError:
            pass
        time.sleep(0.1)
    raise Problem(f"the services were not ready within {START_SECONDS} s; {reason}")


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a service under its supervisor, which stops it when this process ends."""
    # The terminal sends Ctrl-C to its whole process group. The services are in other groups, so we can stop them in
    # order.
    return subprocess.Popen(
        [python(), str(Path(__file__).with_name("supervise.py")), *command],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        start_new_session=os.name != "nt",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _stop(supervisor: subprocess.Popen[bytes]) -> None:
    assert supervisor.stdin
    supervisor.stdin.close()
    try:
        # The supervisor kills a service that takes longer than STOP_SECONDS.
        supervisor.wait(STOP_SECONDS + 5)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


@contextlib.contextmanager
def _ended_by_one_signal() -> Iterator[None]:
    """Make the first SIGTERM or Ctrl-C in the block raise KeyboardInterrupt. Later ones have no effect."""
    interrupted = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        # After a signal the program is ending. A second signal must not interrupt that.
        if not interrupted:
            for number, handler in former.items():
                signal.signal(number, handler)
