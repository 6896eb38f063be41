"""Tests hostile models with the real TensorFlow: what each does without the graph check, and that it is rejected."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from model_service.models import allowed_operations
from unit_test.model_service.graph_check_test import PROJECT

PROGRAM = "unit_test.model_service.hostile_models"
# Harmless models: they read only their own files (variables, an asset).
SOUND = {"harmless", "vocabulary", "version_2"}
ARGUMENTS = """
import sys
sys.path.insert(0, sys.argv[1])
import json, tensorflow as tf
from tensorflow.python.framework import op_def_registry
from allowed_operations import ALLOWED
found = {name: op_def_registry.get(name) for name in sorted(ALLOWED)}
print(json.dumps({name: one and [part.name for part in (*one.input_arg, *one.attr)] for name, one in found.items()}))
"""


class WithTensorFlowTest(unittest.TestCase):
    """Shows what each model does on a server without the check, and that a server with the check rejects it."""

    found: dict[str, dict[str, str | None]]

    @classmethod
    def setUpClass(cls) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", PROGRAM, folder]
            done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError(done.stderr)
        cls.found = json.loads(done.stdout.splitlines()[-1])

    def test_every_hostile_model_does_harm_where_it_is_not_checked(self) -> None:
        for name in self.found.keys() - SOUND:
            with self.subTest(name):
                self.assertIsNotNone(self.found[name]["harm"], self.found[name]["unchecked"])

    def test_it_does_none_where_it_is(self) -> None:
        for name in self.found.keys() - SOUND:
            with self.subTest(name):
                self.assertIsNone(self.found[name]["harm_checked"])

    def test_it_is_refused_with_the_operation_and_the_flag(self) -> None:
        operations = {
            "reads_at_a_call": "ReadFile",
            "reads_in_a_function": "ReadFile",
            "writes_at_the_load": "WriteFile",
            "calls_python": "PyFunc",
            "ends_the_process": "Abort",
            "prints_into_a_file": "PrintV2",
            "saves_while_restoring": "SaveV2",
            "restores_from_elsewhere": "RestoreV2",
            "reads_a_table_of_no_asset": "InitializeTableFromTextFileV2",
        }
        for name, operation in operations.items():
            with self.subTest(name):
                refused = str(self.found[name]["refused"])
                self.assertIn(f'"{operation}"', refused)
                self.assertIn("--refuse_unsafe_operations", refused)
        for name in self.found.keys() - SOUND - {"two_graphs"}:
            with self.subTest(name):
                self.assertTrue(self.found[name]["refused"])

    def test_of_two_graphs_for_serving_the_one_that_would_be_loaded_is_checked(self) -> None:
        self.assertEqual(self.found["two_graphs"]["harm"], "wrote ['written']")
        self.assertIn('"WriteFile"', str(self.found["two_graphs"]["refused"]))
        self.assertIsNone(self.found["two_graphs"]["harm_checked"])

    def test_models_with_variables_and_assets_of_their_own_are_loaded(self) -> None:
        for name in SOUND:
            with self.subTest(name):
                self.assertIsNone(self.found[name]["refused"])

    def test_what_is_allowed_is_known_and_names_no_file(self) -> None:
        module = Path(allowed_operations.__file__).parent
        done = subprocess.run([sys.executable, "-c", ARGUMENTS, module], capture_output=True, text=True, timeout=600)
        arguments = json.loads(done.stdout)
        self.assertEqual([name for name, found in arguments.items() if found is None], [])
        self.assertGreater(len(arguments), 600)
        names = "file|path|url|address|descriptor|memory_region|token|directory|output_stream|debug_ops|server|prefix"
        for name in arguments.keys() - {"ShardedFilename"}:
            with self.subTest(name):
                # ShardedFilename only builds a file name.
                for argument in set(arguments[name]) - {"top_paths"}:
                    self.assertNotRegex(argument, names)


if __name__ == "__main__":
    unittest.main()
