"""Shows what it costs to import TensorFlow for a few messages.

    python course/breaks/tensorflow_weight.py

It starts three processes, one after the other. Each imports one thing and tells how long that took, and its memory: all
of TensorFlow; only the messages, as the real service does; course/model_runner.py.
"""

import os
import subprocess
import sys
from pathlib import Path

COURSE = Path(__file__).parents[1]
IMPORTS = {
    "all of TensorFlow": (COURSE, "tensorflow"),
    "only the messages": (COURSE.parent / "app", "serving_common.tensorflow_protos"),
    "course/model_runner.py": (COURSE, "model_runner"),
}
MEASURE = """
import sys, time
start = time.monotonic()
__import__(sys.argv[1])
seconds = time.monotonic() - start
import psutil
print(f"{seconds:6.2f} s {psutil.Process().memory_info().rss / 1e6:6.0f} MB")
"""


def main() -> None:
    # TensorFlow writes lines about the computer that nobody needs here.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    for name, (folder, module) in IMPORTS.items():
        command = [sys.executable, "-c", MEASURE, module]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        print(f"{name:<24}{done.stdout.strip()}")


if __name__ == "__main__":
    main()
