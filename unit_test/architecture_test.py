"""Imports point one way, one file knows each library, and nothing heavy comes along."""

import ast
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parent.parent
PREPROCESS_SERVICE = ROOT / "app" / "preprocess_service" / "app"
MODEL_SERVICE = ROOT / "app" / "model_service"

# Each module of the preprocess service and the ones of ours that it may import.
LADDER = {
    "memory_budget": set(),
    "image_cost": set(),
    "downscale": {"config"},
    "channel": set(),
    "config": set(),
    "logs": set(),
    "messages": set(),
    "metrics": set(),
    "page": set(),
    "processors": set(),
    "serving_messages": set(),
    "errors": {"messages"},
    "tracing": set(),
    "otlp": {"metrics", "tracing"},
    "telemetry": {"otlp", "tracing"},
    "job": {"errors", "tracing"},
    "utils": {"config", "downscale", "errors", "image_cost"},
    "decoder_process": {"allocator", "errors", "image_cost", "utils"},
    "decoder_pool": {
        "config",
        "errors",
        "image_cost",
        "intake",
        "job",
        "memory_budget",
        "metrics",
        "processors",
    },
    "edge": {"client_address", "metrics", "tracing"},
    "batcher": set(),
    "signature": {"config", "errors", "serving_messages"},
    "envelope": {"serving_messages", "signature"},
    "predictions": {"errors", "serving_messages", "signature"},
    "model_runner": {
        "batcher",
        "channel",
        "config",
        "envelope",
        "errors",
        "predictions",
        "processors",
        "serving_messages",
        "signature",
        "tracing",
        "utils",
    },
    "bodies": {"config", "errors"},
    "client_address": set(),
    "gate": {"bodies", "config", "errors", "metrics", "processors"},
    "intake": {"config", "errors"},
    "answers": {"config", "errors", "messages", "predictions"},
    "handlers": {"answers", "errors", "messages"},
    "keys": {"errors"},
    "allocator": set(),
    "openapi": {"answers", "errors", "intake", "keys"},
    "listener": {"config"},
    "refusal": {"answers", "edge", "errors", "messages"},
    "connections": {"client_address", "config", "errors", "gate", "metrics", "refusal"},
    "flow": set(),
    "received": {"config"},
    "connection": {"bodies", "connections", "flow", "received", "refusal"},
    "server": {"config", "connection", "connections"},
    "probe": {"config", "errors", "metrics"},
    "pipeline": {
        "batcher",
        "config",
        "decoder_pool",
        "errors",
        "gate",
        "image_cost",
        "intake",
        "job",
        "metrics",
        "predictions",
        "probe",
        "processors",
        "signature",
        "utils",
    },
    "predict": {"answers", "bodies", "errors", "gate", "handlers", "intake", "job", "pipeline"},
}
LADDER["app_server"] = set(LADDER) - {
    "batcher",
    "bodies",
    "channel",
    "connection",
    "connections",
    "decoder_pool",
    "decoder_process",
    "downscale",
    "envelope",
    "errors",
    "flow",
    "image_cost",
    "intake",
    "job",
    "memory_budget",
    "messages",
    "otlp",
    "predictions",
    "processors",
    "received",
    "refusal",
    "serving_messages",
    "signature",
    "utils",
}
# The one module of the preprocess service that knows each library; of the HTTP server the three that make it.
ALONE = {
    "fastapi": "app_server",
    "uvicorn": "connection flow server",
    "httptools": "connection connections",
    "grpc": "model_runner",
    "tensorflow": "serving_messages",
    "tensorflow_serving": "serving_messages",
    "pi_heif": "utils",
    "puremagic": "utils",
    "pybase64": "utils",
    "yaml": "config",
    "prometheus_client": "metrics",
    "opentelemetry": "otlp",
}


def imports(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def modules(folder: Path) -> dict[str, set[str]]:
    return {path.stem: imports(path) for path in folder.glob("*.py")}


class ArchitectureTest(unittest.TestCase):
    def test_imports_of_the_preprocess_service_point_one_way(self) -> None:
        found = modules(PREPROCESS_SERVICE)
        self.assertEqual(set(found), set(LADDER))
        for name, imported in found.items():
            with self.subTest(name):
                self.assertEqual(imported & set(LADDER), LADDER[name])

    def test_one_module_knows_each_library(self) -> None:
        found = modules(PREPROCESS_SERVICE)
        for library, owner in ALONE.items():
            with self.subTest(library):
                owners = sorted(name for name, imported in found.items() if library in imported)
                self.assertEqual(owners, owner.split())

    def test_the_two_services_share_no_python_and_no_module_name(self) -> None:
        front, back = modules(PREPROCESS_SERVICE), modules(MODEL_SERVICE)
        self.assertFalse(set(front) & set(back))
        self.assertFalse(set(front) & set().union(*back.values()))
        self.assertFalse(set(back) & set().union(*front.values()))

    def test_nothing_of_the_project_imports_the_tools(self) -> None:
        packages = {path.parent.name for path in (ROOT / "tools").glob("*/__init__.py")}
        self.assertTrue(packages)
        tools = packages | set(modules(ROOT / "tools"))
        for folder in (PREPROCESS_SERVICE, MODEL_SERVICE):
            own = modules(folder)
            with self.subTest(folder.name):
                self.assertFalse((tools - set(own)) & set().union(*own.values()))

    def test_neither_service_loads_tensorflow(self) -> None:
        for folder, module in ((PREPROCESS_SERVICE, "app_server"), (MODEL_SERVICE, "model_server")):
            with self.subTest(module):
                program = f"import sys, {module}; print([n for n in sys.modules if n.startswith('tensorflow.')])"
                loaded = subprocess.run(
                    [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
                ).stdout
                self.assertIn("'tensorflow.core.framework.tensor_pb2'", loaded)
                self.assertNotIn("'tensorflow.python'", loaded)
