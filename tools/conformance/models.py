"""Writes the models of the checks, and the config files of a server that serves them."""

import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import google_crc32c

from serving_common.tensorflow_protos import load_prediction_log, tensor_pb2
from tools.conformance.graphs import (
    BOOL,
    CLASSIFY,
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    REGRESS,
    STRING,
    Model,
    tensor,
)

# The version of the models in TensorFlow Serving's manual, and its folder.
MANUAL_VERSION, MANUAL_FOLDER = 123, "00000123"
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")

# The models that are served from the start, and their version policy.
CONFIGURED = {
    "half_plus_two": "",
    "half_plus_three": "",
    "pair": "",
    "numbers": "",
    "text": "",
    "three": "",
    "matrices": "",
    "warmed": "",
    "coming": "",
    "versions": "all {}",
    "latest_two": "latest { num_versions: 2 }",
    "chosen": "specific { versions: 1 versions: 2 }",
}


def plus(number: float) -> Model:
    """Return a model that adds a number to `x` of any length."""
    model = Model()
    result = model.same("y", model.placeholder("x", FLOAT, (-1,)), "AddV2", model.constant("number", number))
    model.signature("serving_default", {"x": "x"}, {"y": result})
    return model


def half_plus(number: float, with_examples: bool) -> Model:
    """Return the model of TensorFlow Serving's manual: x / 2 + `number`; also for tf.Examples, and plus 3."""
    model = Model()
    sources = {"": model.placeholder("x", FLOAT, (-1, 1))}
    half = model.constant("half", 0.5)
    if with_examples:
        sources |= model.parsed_examples("examples", {"x": None, "x2": 0.0})
    for key, source in sources.items():
        model.same(f"half_{key}", source, "Mul", half)
        for name, added in ("y", number), ("y2", number + 1):
            model.same(f"{name}{key}", f"half_{key}", "AddV2", model.constant(f"number_{name}{key}", added))
    model.signature("serving_default", {"x": "x"}, {"y": "y"})
    model.signature("again", {"x": "x"}, {"y": "y2"})
    if with_examples:
        for name, output in ("regress_x_to_y", "yx"), (REGRESS, "yx"), ("regress_x_to_y2", "y2x"):
            model.signature(name, {"inputs": "examples"}, {"outputs": output}, REGRESS)
        model.signature("regress_x2_to_y", {"inputs": "examples"}, {"outputs": "yx2"}, REGRESS)
        model.signature("classify_x_to_y", {"inputs": "examples"}, {"scores": "yx"}, CLASSIFY)
    return model


def _pair() -> Model:
    model = Model()
    for name in "ab":
        model.placeholder(name, FLOAT, (-1,))
    model.same("sum", "a", "AddV2", "b")
    model.same("product", "a", "Mul", "b")
    both, results = {"a": "a", "b": "b"}, {"sum": "sum", "product": "product"}
    model.signature("serving_default", both, results)
    model.signature("with_default", both, {"sum": "sum"}, defaults={"b": tensor([10.0])})
    return model


def _numbers() -> Model:
    model = Model()
    for name, dtype in ("int32", INT32), ("int64", INT64), ("double", DOUBLE):
        model.placeholder(name, dtype, (-1,))
        model.same(f"next_{name}", name, "AddV2", model.constant(f"one_{name}", 1, dtype))
        model.signature(name, {"n": name}, {"next": f"next_{name}"})
    model.same("opposite", model.placeholder("flag", BOOL, (-1,)), "LogicalNot")
    model.signature("bool", {"flag": "flag"}, {"opposite": "opposite"})
    model.same("echo", model.placeholder("floats", FLOAT, (-1,)), "Neg")
    model.signature("serving_default", {"floats": "floats"}, {"negative": "echo"})
    return model


def _text() -> Model:
    model = Model()
    model.placeholder("s", STRING, (-1,))
    for output in ("echo", "echo_bytes"):
        model.same(output, "s")
        model.signature("serving_default" if output == "echo" else "bytes", {"s": "s"}, {output: output})
    return model


def _three() -> Model:
    """Return the model of the manual's example with several inputs."""
    model = Model()
    shapes = {"tag": (STRING, (-1,)), "signal": (INT32, (-1, 5)), "sensor": (INT32, (-1, 2, 2))}
    for name, (dtype, shape) in shapes.items():
        model.same(f"{name}_out", model.placeholder(name, dtype, shape))
    names = {name: name for name in shapes}
    model.signature("serving_default", names, {name: f"{name}_out" for name in shapes})
    return model


def _matrices() -> Model:
    model = Model()
    model.same("doubled", model.placeholder("m", FLOAT, (-1, 1, 2)), "Mul", model.constant("two", 2.0))
    model.signature("serving_default", {"m": "m"}, {"doubled": "doubled"})
    return model


def write_warmup(folder: Path, inputs: Mapping[str, tensor_pb2.TensorProto], spoil: bool = False) -> None:
    """Write a warm-up file with one Predict request, or with a wrong checksum."""
    log = load_prediction_log().PredictionLog()
    for alias, value in inputs.items():
        log.predict_log.request.inputs[alias].CopyFrom(value)
    record = log.SerializeToString()
    (folder / WARMUP_FILE).parent.mkdir()
    content = b"".join(part + _checksum(part) for part in (struct.pack("<Q", len(record)), record))
    (folder / WARMUP_FILE).write_bytes(content[:-1] if spoil else content)


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


_SINGLE: Mapping[str, Callable[[], Model]] = {
    "pair/1": _pair,
    "numbers/1": _numbers,
    "text/1": _text,
    "three/1": _three,
    "matrices/1": _matrices,
    "warmed/1": lambda: plus(1),
    "coming/1": lambda: plus(1),
    "spare/1": lambda: plus(1),
    "bad_warmup/1": lambda: plus(1),
    f"half_plus_two/{MANUAL_FOLDER}": lambda: half_plus(2, with_examples=False),
    f"half_plus_three/{MANUAL_FOLDER}": lambda: half_plus(3, with_examples=True),
}


def write(folder: Path, served_as: str) -> None:
    """Write all models and the config files into an empty folder, which the server sees as `served_as`."""
    for name, make in _SINGLE.items():
        make().write(folder / name)
    for name in ("versions", "latest_two", "chosen"):
        for version in (1, 2, 3):
            plus(version).write(folder / name / str(version))
    write_warmup(folder / "warmed" / "1", {"x": tensor([1.0])})
    write_warmup(folder / "bad_warmup" / "1", {"x": tensor([1.0])}, spoil=True)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "saved_model.pb").write_bytes(b"no model")
    (folder / "empty").mkdir()
    (folder / "models.config").write_text(config_text(served_as), encoding="utf-8")
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }\n", encoding="utf-8")


def config_text(served_as: str, names: Iterable[str] = CONFIGURED, labels: Mapping[str, int] | None = None) -> str:
    """Return a ModelServerConfig in text form; `labels` are those of the model `versions`."""
    entries = []
    for name in names:
        policy = f" model_version_policy {{ {CONFIGURED[name]} }}" if CONFIGURED.get(name) else ""
        given = labels if name == "versions" and labels else {}
        labelled = "".join(f' version_labels {{ key: "{key}" value: {value} }}' for key, value in given.items())
        entries.append(
            f'  config {{ name: "{name}" base_path: "{served_as}/{name}" model_platform: "tensorflow"'
            f"{policy}{labelled} }}\n"
        )
    return f"model_config_list {{\n{''.join(entries)}}}\n"


def flags(served_as: str) -> list[str]:
    """Return the flags of a server with these models."""
    return [
        f"--model_config_file={served_as}/models.config",
        f"--monitoring_config_file={served_as}/monitoring.config",
        "--max_num_load_retries=0",
        "--enable_grpc_healthcheck_service=true",
    ]
