"""Imports the flat modules of tools/, for tests that look inside them, and starts them as the programs that they are.

They bring the preprocess service's modules along, whose ``utils`` is not the tests' own: that is set aside meanwhile.
TensorFlow is never imported here, because other tests hold only its message modules: what needs it runs as a program.
"""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
FOLDER = PROJECT / "tools"

_own_utils = sys.modules.pop("utils", None)
_path = list(sys.path)
sys.path.insert(0, str(FOLDER))
try:
    import animals
    import bench
    import bench_photos
    import bench_report
    import candidates
    import closed_loop
    import contestants
    import domain
    import efficientnet_lite
    import evaluate
    import export
    import features
    import heads
    import limit
    import load
    import lock
    import logistic
    import measures
    import open_loop
    import overload
    import photos
    import predictors
    import running
    import samples
    import scaling
    import service
    import soak
    import train
    import trial
    import turns
    import views
finally:
    sys.path[:] = _path
    del sys.modules["utils"]
    if _own_utils is not None:
        sys.modules["utils"] = _own_utils

__all__ = [
    "FOLDER",
    "PROJECT",
    "animals",
    "bench",
    "bench_photos",
    "bench_report",
    "candidates",
    "closed_loop",
    "contestants",
    "domain",
    "efficientnet_lite",
    "evaluate",
    "export",
    "features",
    "heads",
    "limit",
    "load",
    "lock",
    "logistic",
    "measures",
    "open_loop",
    "overload",
    "photos",
    "predictors",
    "run_tool",
    "running",
    "samples",
    "scaling",
    "service",
    "soak",
    "train",
    "trial",
    "turns",
    "views",
]


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run tools/<name>.py with these arguments and keep what it prints."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
