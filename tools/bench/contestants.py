"""The contestants of the bench: their commands and settings. The other servers are in tools/bench/rivals/."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.environments import ENVIRONMENTS, RIVALS, install_all, python_of
from tools.bench.limit import names_of
from tools.model_folder import read_recipe
from tools.service import PROJECT, Config

OURS = "this project"
TUTORIAL = "the tutorial's way"
BARE = "tools.bench.bare"


@dataclass(frozen=True)
class Part:
    """One process: its command, with {http}, {grpc} and {rest} for the ports, and additional environment variables."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """One way to serve the model: its processes by name, and the route for photos.

    `packages` is the requirements file in tools/bench/rivals/, without suffix, if it needs an environment of its own.
    """

    name: str
    settings: str
    route: str
    parts: Mapping[str, Part]
    packages: str | None = None


def contestants(config: Config, model: Path, cores: int) -> list[Contestant]:
    """Return all contestants, ours first, for one version folder of a model."""
    input_name, output_name = names_of(model)
    asked = {
        "name": config.service.experiment_id,
        "model": str(model),
        "labels": read_recipe(model).labels,
        "picture": _picture(config),
        "input": input_name,
        "output": output_name,
    }
    found = [_ours(config, model), _bare(config, model), *_tutorials(config, model, asked)]
    for runtime in ("tensorflow", "openvino"):
        found += [_litserve(asked, runtime, cores), _bentoml(asked, runtime, cores)]
    return [*found, _fastapi_inside(asked, cores)]


def _picture(config: Config) -> dict[str, object]:
    """The recipe for those who know nothing of ours: crop, bilinear, and one scale and offset."""
    geometry, (scale, offset) = config.picture.geometry(), config.picture.scaling()
    return geometry.model_dump() | {"scale": scale[0], "offset": offset[0]}


def named(everybody: Sequence[Contestant], words: Sequence[str]) -> list[Contestant]:
    """Return the contestants whose name contains one of the words."""
    return [one for one in everybody if any(word in one.name for word in words)]


def install_packages_of(chosen: Sequence[Contestant]) -> dict[str, str]:
    """Create the missing environments; return the reasons for those that failed, by contestant."""
    failures = install_all(sorted({one.packages for one in chosen if one.packages}))
    return {one.name: failures[one.packages] for one in chosen if one.packages in failures}


def _model_server(program: Path, config: Config, model: Path) -> Part:
    return Part(
        [
            sys.executable,
            str(program),
            "--port={grpc}",
            "--rest_api_port={rest}",
            "--bind_address=127.0.0.1",
            f"--model_name={config.service.experiment_id}",
            f"--model_base_path={model.parent}",
        ]
    )


def _embedded_server(config: Config, model: Path, root: Path = PROJECT) -> Part:
    return _model_server(root / "app" / "model_service" / "model_server.py", config, model)


def _pair(app: Sequence[str], config: Config, model: Path, root: Path = PROJECT, **more: str) -> dict[str, Part]:
    environment = {
        "SERVICE_MODEL_HOST": "127.0.0.1",
        "SERVICE_MODEL_PORT": "{grpc}",
        "SERVICE_HOST": "127.0.0.1",
        "SERVICE_PORT": "{http}",
        **more,
    }
    service = Part([sys.executable, *app], environment)
    return {"preprocess service": service, "model server": _embedded_server(config, model, root)}


def _ours(config: Config, model: Path) -> Contestant:
    return checkout(PROJECT, OURS, config, model)


def checkout(root: Path, name: str, config: Config, model: Path) -> Contestant:
    """Return the pair of another checkout of this project; it runs with this environment and model."""
    app_server = root / "app" / "preprocess_service" / "app" / "app_server.py"
    return Contestant(name, "as it comes", "/predict", _pair([str(app_server)], config, model, root))


def _bare(config: Config, model: Path) -> Contestant:
    settings = "the same ModelRunner and model server behind a bare ASGI app without validation, limits and logs"
    return Contestant(
        "the bare pair", settings, "/predict", _pair(["-m", BARE], config, model, PYTHONPATH=str(PROJECT))
    )


def _rival(program: str, asked: Mapping[str, object], packages: str | None, *arguments: str) -> Part:
    command = [python_of(packages), str(RIVALS / program), *arguments]
    return Part(command, {"RIVAL": json.dumps(asked), "PYTHONPATH": str(RIVALS)})


def _tutorials(config: Config, model: Path, asked: Mapping[str, object]) -> list[Contestant]:
    gateway = _rival("tutorial.py", asked, None, "{http}", "{grpc}")
    servers = {
        "TensorFlow's runtime": _model_server(RIVALS / "tensorflow_server.py", config, model),
        "our model server": _embedded_server(config, model),
    }
    return [
        Contestant(
            f"{TUTORIAL}, {name}",
            "the course's service: blocking call in async def, one process, all of TensorFlow imported",
            "/predict",
            {"gateway": gateway, "model server": server},
        )
        for name, server in servers.items()
    ]


def _litserve(asked: Mapping[str, object], runtime: str, cores: int) -> Contestant:
    # Measured answers per second with OpenVINO on 2 cores that were also busy otherwise: one worker with two threads
    # and batches of 8: 10; two workers with one thread: 18, with batches of 4: 17, with the fast queue: 18; three
    # workers: 24, with the fast queue: 24. The order is the same with TensorFlow: one worker 17, two workers 31.
    best = {"workers": cores + 1, "threads": 1, "streams": 1, "batch": 1, "batch_timeout": 0.0, "fast_queue": False}
    part = _rival("litserve_server.py", {**asked, **best, "runtime": runtime}, "litserve", "{http}")
    settings = f"{cores + 1} workers with one thread each, no batches"
    return Contestant(f"LitServe, {RUNTIMES[runtime]}", settings, "/predict", {"server": part}, "litserve")


def _bentoml(asked: Mapping[str, object], runtime: str, cores: int) -> Contestant:
    # Measured as above: one worker with two streams and three calls: 29; two workers with one call each: 17, with two:
    # 31, with four: fewer.
    best = {"workers": cores, "calls": 2, "threads": 1, "streams": 1}
    rival = _rival("", {**asked, **best, "runtime": runtime}, "bentoml")
    command = [python_of("bentoml"), "-m", "bentoml", "serve", "bentoml_service:Classifier"]
    part = Part(
        [*command, "--host", "127.0.0.1", "--port", "{http}", "--working-dir", str(RIVALS)],
        {**rival.environment, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(ENVIRONMENTS / "bentoml" / "home")},
    )
    settings = f"{cores} workers, each with one engine thread and two calls"
    return Contestant(f"BentoML, {RUNTIMES[runtime]}", settings, "/predict", {"server": part}, "bentoml")


def _fastapi_inside(asked: Mapping[str, object], cores: int) -> Contestant:
    best = {"threads": 1, "streams": cores, "runtime": "openvino"}
    part = _rival("fastapi_inside.py", {**asked, **best}, None, "{http}")
    settings = f"{cores} streams, {cores + 1} threads for decoding and the engine"
    return Contestant("one FastAPI process, OpenVINO inside", settings, "/predict", {"server": part})


RUNTIMES = {"tensorflow": "TensorFlow", "openvino": "OpenVINO"}
