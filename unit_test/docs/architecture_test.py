"""Tests of the layers, of which module may import which library, and that nothing heavy is imported."""

import ast
import os
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
SERVICE = "preprocess_service.app"

# The modules of all three packages that may import each library.
KNOWN_BY = {
    "uvicorn": {
        f"{SERVICE}.server.uvicorn_server",
        "model_service.api.rest_server",
        "serving_common.uvicorn_protocol",
    },
    "tensorflow": {"serving_common.tensorflow_protos"},
    "tensorflow_serving": {"serving_common.tensorflow_protos"},
    "pi_heif": {f"{SERVICE}.imaging.opening"},
    "markdown_it": {f"{SERVICE}.api.course.markdown"},
    "pybase64": {f"{SERVICE}.imaging.base64_text"},
    "yaml": {f"{SERVICE}.config"},
    "prometheus_client": {f"{SERVICE}.observability.metrics", "model_service.observability.metrics"},
    "openvino": {"model_service.engines.openvino"},
}


def imports(path: Path) -> set[str]:
    """Return the top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


MODULES = {
    ".".join(path.relative_to(APP).with_suffix("").parts): imports(path)
    for path in APP.rglob("*.py")
    if path.name != "__init__.py"
}


class ArchitectureTest(unittest.TestCase):
    def test_packages_import_only_those_of_the_layers_below(self) -> None:
        # pyproject.toml lists the layers.
        program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
        environment = os.environ | {"PYTHONPATH": str(APP)}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_few_modules_know_each_library(self) -> None:
        for library, modules in KNOWN_BY.items():
            with self.subTest(library):
                self.assertEqual({name for name, imported in MODULES.items() if library in imported}, modules)

    def test_the_services_import_neither_tools_nor_tests(self) -> None:
        for name, imported in MODULES.items():
            with self.subTest(name):
                self.assertFalse(imported & {"tools", "unit_test", "run"})

    def test_neither_service_loads_tensorflow(self) -> None:
        for module in ("preprocess_service.app.app_server", "model_service.model_server"):
            with self.subTest(module):
                program = f"import sys, {module}; print([n for n in sys.modules if n.startswith('tensorflow.')])"
                loaded = subprocess.run(
                    [sys.executable, "-c", program], cwd=APP, capture_output=True, text=True, check=True
                ).stdout
                self.assertIn("'tensorflow.core.framework.tensor_pb2'", loaded)
                self.assertNotIn("'tensorflow.python'", loaded)


if __name__ == "__main__":
    unittest.main()
