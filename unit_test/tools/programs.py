"""Imports the modules of tools/, for tests that look inside them, and starts them as the programs that they are.

They bring the preprocess service's modules along, whose ``utils`` is not the tests' own: that is set aside meanwhile.
TensorFlow is never imported here, because other tests hold only its message modules: what needs it runs as a program.
"""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "tools"

_own_utils = sys.modules.pop("utils", None)
_path = list(sys.path)
sys.path.insert(0, str(FOLDER))
try:
    import animals
    import calibration
    import candidates
    import domain
    from tools.training import efficientnet_lite
    import evaluate
    from tools.training import export
    import features
    import heads
    import load
    import lock
    import logistic
    import measures
    import photos
    import predictors
    import quantization
    import service
    import train
    import views
    from bench import (
        closed_loop,
        comparison,
        contestants,
        environments,
        limit,
        open_loop,
        overload,
        running,
        samples,
        scaling,
        side_by_side,
        turns,
    )
    from bench import photos as bench_photos
    from bench import report as bench_report
    from chaos import hostile, soak, stage, trial
    from chaos.attacks import attack, refused, watch, wire
    from chaos.attacks import pair as attack_pair
    from chaos.attacks import suite as _attack_suite  # noqa: F401 - registers the cases
finally:
    sys.path[:] = _path
    del sys.modules["utils"]
    if _own_utils is not None:
        sys.modules["utils"] = _own_utils

__all__ = [
    "FOLDER",
    "PROJECT",
    "animals",
    "attack",
    "attack_pair",
    "bench_photos",
    "bench_report",
    "calibration",
    "candidates",
    "closed_loop",
    "comparison",
    "contestants",
    "domain",
    "efficientnet_lite",
    "environments",
    "evaluate",
    "export",
    "features",
    "heads",
    "hostile",
    "limit",
    "load",
    "lock",
    "logistic",
    "measures",
    "open_loop",
    "overload",
    "photos",
    "predictors",
    "quantization",
    "refused",
    "run_tool",
    "running",
    "samples",
    "scaling",
    "service",
    "side_by_side",
    "soak",
    "stage",
    "train",
    "trial",
    "turns",
    "views",
    "watch",
    "wire",
]


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `train.py`, the package `bench`, or what else of tools/ is a program, and keep what it prints."""
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
