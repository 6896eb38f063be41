"""Versions that come and go in the folder of the model `coming`. The checks build on each other."""

import shutil
from pathlib import Path

from tools.conformance.models import plus
from tools.conformance.suite import Code, Server, check, contains, equal, predict_request, status_request

_NAME = "coming"


def _deliver(server: Server, version: int) -> Path:
    """Write a version under another name, then rename it."""
    target = server.folder / _NAME / str(version)
    if target.exists():
        shutil.rmtree(target)
    shutil.rmtree(target.with_name("delivery"), ignore_errors=True)
    plus(version).write(target.with_name("delivery"))
    return target.with_name("delivery").rename(target)


def _answer(server: Server) -> list[float]:
    return list(server.predict(predict_request(_NAME, {"x": [0.0]})).outputs["y"].float_val)


def _serves(server: Server, *states: tuple[int, str]) -> None:
    server.eventually(lambda: list(server.states(_NAME).items()) == list(states), f"{_NAME} is {states}")


@check("A version that appears is served; no call fails meanwhile, and the old one ends with OK")
def _(server: Server) -> None:
    _deliver(server, 2)
    answers = []

    def is_served() -> bool:
        answers.append(_answer(server))
        return answers[-1] == [2.0]

    server.eventually(is_served, "version 2 answers")
    equal([one for one in answers if one not in ([1.0], [2.0])], [])
    _serves(server, (2, "AVAILABLE"), (1, "END"))
    (one,) = server.call(server.models.GetModelStatus, status_request(_NAME, version=1)).model_version_status
    equal((one.status.error_code, one.status.error_message), (0, ""))


@check("A version that ended is NOT_FOUND")
def _(server: Server) -> None:
    server.folder  # noqa: B018  # without the folder version 1 is still served
    request = predict_request(_NAME, {"x": [0.0]}, version=1)
    text = "Servable not found for request: Specific(coming, 1)"
    server.refused(server.predictions.Predict, request, Code.NOT_FOUND, text)


@check("A broken version ends with its error, and the old one goes on")
def _(server: Server) -> None:
    broken = server.folder / _NAME / "3"
    broken.mkdir()
    _serves(server, (3, "END"), (2, "AVAILABLE"), (1, "END"))
    (one,) = server.call(server.models.GetModelStatus, status_request(_NAME, version=3)).model_version_status
    equal((one.status.error_code != 0, one.status.error_message != ""), (True, True))
    equal(_answer(server), [2.0])
    status = server.rest("GET", "/v1/models/coming/versions/3").json["model_version_status"][0]
    equal(status["state"], "END")
    broken.rmdir()


@check("A name that is no number is no version")
def _(server: Server) -> None:
    plus(9).write(server.folder / _NAME / "9.tmp")
    _deliver(server, 4)
    _serves(server, (4, "AVAILABLE"), (3, "END"), (2, "END"), (1, "END"))
    shutil.rmtree(server.folder / _NAME / "9.tmp")


@check("Without the newest version the one before is loaded again")
def _(server: Server) -> None:
    shutil.rmtree(server.folder / _NAME / "4")
    server.eventually(lambda: server.states(_NAME).get(2) == "AVAILABLE", "version 2 is back")
    server.eventually(lambda: server.states(_NAME).get(4) == "END", "version 4 is END")
    equal(_answer(server), [2.0])


@check("Without any version the model is unloaded, and is back with one")
def _(server: Server) -> None:
    for version in (1, 2):
        shutil.rmtree(server.folder / _NAME / str(version), ignore_errors=True)
    server.eventually(lambda: "AVAILABLE" not in server.states(_NAME).values(), "nothing is served")
    request = predict_request(_NAME, {"x": [0.0]})
    text = server.refused(server.predictions.Predict, request, Code.NOT_FOUND)
    contains(text, "Servable not found for request: Latest(coming)")
    _deliver(server, 1)
    server.eventually(lambda: server.states(_NAME).get(1) == "AVAILABLE", "version 1 is back")
    equal(_answer(server), [1.0])
