"""Tests that a SavedModel is found and read, and that a missing, incomplete or broken one is named in one line."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from model_service import errors
from model_service.lifecycle import versions
from model_service.models import saved_model, tensors
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import copy_of_model, saved_models


class FindVersionsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.base_path = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_the_highest_number_wins(self) -> None:
        """Versions are compared as numbers, without leading zeros. Other names are not versions."""
        for name in ("2", "00010", "9", "latest", "-11", "1.5", str(2**63)):
            (self.base_path / name).mkdir()
        (self.base_path / "99").write_text("a file is no version")
        found = versions.find_versions("M", self.base_path)
        self.assertEqual((max(found), found[10]), (10, [self.base_path / "00010"]))

    def test_only_digits_make_a_version(self) -> None:
        for name in ("+5", " 5", "5 ", "-5", "\u0661", "\u00b2", "0x5", "5e1", str(2**63), "9" * 200):
            (self.base_path / name).mkdir()
        (self.base_path / "3").touch()
        (self.base_path / "4").symlink_to(self.base_path / "nowhere")
        self.assertEqual(versions.find_versions("M", self.base_path), {})
        for name in (str(2**63 - 1), "0"):
            (self.base_path / name).mkdir()
        self.assertEqual(versions.find_versions("M", self.base_path).keys(), {2**63 - 1, 0})

    def test_of_two_folders_with_one_number_the_shorter_name_counts_and_both_are_named(self) -> None:
        for name in ("0001", "01", "1"):
            (self.base_path / name).mkdir()
        found = versions.find_versions("M", self.base_path)
        self.assertEqual(found[1][0], self.base_path / "1")
        self.assertRegex(
            versions.duplicates(found)[0], r"Version 1 will be loaded from .*/1, and not from .*/01, .*/0001"
        )

    def test_a_link_to_a_folder_is_a_version(self) -> None:
        elsewhere = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.base_path / "2").symlink_to(elsewhere)
        self.assertEqual(versions.find_versions("M", self.base_path), {2: [self.base_path / "2"]})

    def test_a_missing_folder_is_named(self) -> None:
        missing = self.base_path / "nothing"
        with self.assertRaisesRegex(errors.StartError, "Could not find base path .*nothing for servable M"):
            versions.find_versions("M", missing)


class ReadSavedModelTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def test_of_two_types_that_of_the_graph_counts(self) -> None:
        """TensorFlow Serving's half_plus_three says that its serialized examples are floats."""
        folder = copy_of_model("two_inputs", self.folder)
        message = saved_model.read_message(folder)
        inputs = message.meta_graphs[0].signature_def["serving_default"].inputs
        inputs["values"].dtype = tensorflow_protos.types_pb2.DT_STRING
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        model = saved_model.read_saved_model(folder, 1)
        self.assertEqual(tensors.type_name(model.signatures["serving_default"].inputs["values"].dtype), "float")
        told = model.signature_defs.signature_def["serving_default"].inputs["values"].dtype
        self.assertEqual(tensors.type_name(told), "string")

    def test_signatures_are_read_with_names_types_and_shapes(self) -> None:
        model = saved_model.read_saved_model(saved_models() / "two_inputs" / "1", 1)
        inputs = model.signatures["serving_default"].inputs
        self.assertEqual(
            {alias: (tensors.type_name(spec.dtype), spec.shape) for alias, spec in inputs.items()},
            {"values": ("float", (-1, 3)), "counts": ("int32", (-1,))},
        )

    def test_a_read_only_system_without_a_temporary_folder_is_named(self) -> None:
        message = saved_model.read_message(saved_models() / "image" / "1")
        self.enterContext(mock.patch.object(tempfile, "tempdir", str(Path(self.folder, "missing"))))
        with self.assertRaisesRegex(errors.StartError, "temporary files .*No such file.* mount one at /tmp"):
            self.enterContext(saved_model.rewritten(saved_models() / "image" / "1", message))

    def test_the_entry_that_only_initialises_is_no_servable_signature(self) -> None:
        model = saved_model.read_saved_model(saved_models() / "two_signatures" / "1", 1)
        servable = {name for name, signature in model.signatures.items() if signature.is_servable}
        self.assertEqual(servable, {"serving_default", "features"})
        self.assertIn("__saved_model_init_op", model.signatures)

    def test_defaults_of_inputs_are_read(self) -> None:
        folder = copy_of_model("two_inputs", self.folder)
        message = saved_model.read_message(folder)
        signature = saved_model.serving_graph(message, folder).signature_def["serving_default"]
        signature.defaults["counts"].CopyFrom(tensors.to_tensor(np.array([7], np.int32), 3))
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        model = saved_model.read_saved_model(folder, 1)
        self.assertEqual(model.signatures["serving_default"].defaults["counts"], [7])

    def test_a_default_that_cannot_be_read_is_named(self) -> None:
        folder = copy_of_model("two_inputs", self.folder)
        message = saved_model.read_message(folder)
        saved_model.serving_graph(message, folder).signature_def["serving_default"].defaults["counts"].SetInParent()
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        with self.assertRaisesRegex(errors.StartError, "Signature serving_default has a default that can't be read"):
            saved_model.read_saved_model(folder, 1)

    def test_a_default_of_a_few_bytes_cannot_ask_for_much_memory(self) -> None:
        folder = copy_of_model("two_inputs", self.folder)
        message = saved_model.read_message(folder)
        default = saved_model.serving_graph(message, folder).signature_def["serving_default"].defaults["counts"]
        default.dtype = tensorflow_protos.types_pb2.DT_INT32
        default.tensor_shape.dim.add(size=2**40)
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        with self.assertRaisesRegex(errors.StartError, "takes more than 67108864 bytes"):
            saved_model.read_saved_model(folder, 1)

    def test_an_unfinished_or_broken_copy_is_named_in_one_line(self) -> None:
        def truncate(folder: Path) -> None:
            content = (folder / "saved_model.pb").read_bytes()
            (folder / "saved_model.pb").write_bytes(content[: len(content) // 2])

        def retag(folder: Path) -> None:
            message = saved_model.read_message(folder)
            message.meta_graphs[0].meta_info_def.tags[:] = ["train"]
            (folder / "saved_model.pb").write_bytes(message.SerializeToString())

        cases: dict[str, tuple[Any, str]] = {
            "no_graph_file": (lambda folder: (folder / "saved_model.pb").unlink(), "saved_model.pb can't be read"),
            "empty_graph_file": (lambda folder: (folder / "saved_model.pb").write_bytes(b""), "holds no graph"),
            "half_a_graph_file": (truncate, "saved_model.pb is broken"),
            "text": (lambda folder: (folder / "saved_model.pb").write_text("version https://git-lfs"), "is broken"),
            "graph_for_training_only": (retag, 'no graph with the tag "serve"'),
            "no_variables": (lambda folder: (folder / "variables/variables.index").unlink(), "is incomplete"),
        }
        for case, (spoil, text) in cases.items():
            with self.subTest(case), tempfile.TemporaryDirectory() as base:
                folder = copy_of_model("image", base)
                spoil(folder)
                with self.assertRaisesRegex(errors.StartError, text) as caught:
                    saved_model.read_saved_model(folder, 1)
                self.assertNotIn("\n", str(caught.exception))


class TensorSpecTest(unittest.TestCase):
    def test_known_dimensions_must_agree_and_unknown_ones_need_not(self) -> None:
        float_type = tensorflow_protos.types_pb2.DT_FLOAT
        cases = {
            "batch_of_one": ((-1, 3), (1, 3), True),
            "empty_batch": ((-1, 3), (0, 3), True),
            "other_width": ((-1, 3), (1, 4), False),
            "too_few_dimensions": ((-1, 3), (3,), False),
            "too_many_dimensions": ((-1, 3), (1, 1, 3), False),
            "scalar": ((), (), True),
            "unknown_rank": (None, (1, 2, 3), True),
        }
        for case, (known, sent, accepted) in cases.items():
            with self.subTest(case):
                spec = saved_model.TensorSpec("x", "x:0", float_type, known)
                self.assertEqual(spec.accepts(sent), accepted)


if __name__ == "__main__":
    unittest.main()
