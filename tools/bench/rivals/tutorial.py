"""The way of most tutorials: the service of the course, course/app_server.py, with the bench's model and ports.

    python tutorial.py PORT MODEL_SERVER_PORT

It imports all of TensorFlow for a few messages, and its `async def` waits for the model server in a blocking call.
"""

import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import classifier
import yaml

COURSE = Path(__file__).resolve().parents[3] / "course"


def config(asked: dict[str, Any], port: int, model_port: int) -> dict[str, Any]:
    """Return the settings of the course's service."""
    picture = asked["picture"]
    return {
        "port": port,
        "model_host": "127.0.0.1",
        "model_port": model_port,
        "timeout_seconds": 30,
        "experiment_id": asked["name"],
        "input_layer": asked["input"],
        "output_layer": asked["output"],
        "labels": asked["labels"],
        "size": picture["width"],
        "resampling": picture["resampling"].upper(),
        "crop": picture["crop"],
        "scale": float(picture["scale"]),
        "offset": float(picture["offset"]),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        wanted = config(classifier.settings(), int(sys.argv[1]), int(sys.argv[2]))
        path.write_text(yaml.safe_dump(wanted), encoding="utf-8")
        os.environ["COURSE_CONFIG"] = str(path)
        sys.path.insert(0, str(COURSE))
        runpy.run_path(str(COURSE / "app_server.py"), run_name="__main__")
