"""Tests that a new list of models replaces the old one, and when the answer comes."""

import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from grpc import StatusCode

from model_service import errors
from model_service.lifecycle import model_config, served_models, version_poller
from model_service.models import saved_model, servables
from serving_common import tensorflow_protos

TIMEOUT_S = 30


class ServedModelsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("A", "B"):
            for version in (1, 2):
                (self.folder / name / str(version)).mkdir(parents=True)
        self.config_file = self.folder / "models.config"
        self.servables = servables.Servables()
        self.broken: dict[str, errors.StartError] = {}
        self.may_load = threading.Event()
        self.may_load.set()

    def load(self, name: str, version: int, _folder: Path) -> Any:
        self.assertTrue(self.may_load.wait(TIMEOUT_S))
        if name in self.broken:
            raise self.broken[name]
        definitions = tensorflow_protos.get_model_metadata_pb2.SignatureDefMap()
        return servables.Servable(name, saved_model.SavedModel(Path(), version, {}, definitions), {})

    def start(self, config: Any, poll_s: float = 0, any_new_label: bool = False, retries: int = 0) -> None:
        changes = served_models.Changes(str(self.config_file), poll_s, any_new_label)
        schedule = version_poller.Schedule(0, retries, 0.05)
        self.models = served_models.ServedModels(self.servables, self.load, schedule, changes)
        self.models.load_first(config)
        self.models.start()
        self.addCleanup(self.models.stop)

    def text_of(self, *models: str, **more: str) -> str:
        entries = (
            f'config {{ name: "{name}" base_path: "{self.folder / name}" model_platform: "tensorflow"'
            f" {more.get(name, '')} }}"
            for name in models
        )
        return f"model_config_list {{ {' '.join(entries)} }}"

    def config(self, *models: str, **more: str) -> Any:
        """Return a ModelServerConfig; `more` has further fields of a model in text form."""
        return tensorflow_protos.text_format.Parse(self.text_of(*models, **more), model_config.ModelServerConfig())

    def reload(self, *models: str, **more: str) -> None:
        self.models.reload(self.config(*models, **more)).result(TIMEOUT_S)

    def refused(self, *models: str, **more: str) -> tuple[StatusCode, str]:
        with self.assertRaises(errors.ServingError) as caught:
            self.reload(*models, **more)
        return caught.exception.code, caught.exception.message

    def use(self, name: str, label: str = "") -> int:
        spec = tensorflow_protos.model_pb2.ModelSpec(name=name)
        if label:
            spec.version_label = label
        with self.servables.use(spec) as servable:
            return servable.version

    def eventually(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_a_model_is_added_when_the_answer_comes_and_one_left_out_is_gone(self) -> None:
        self.start(self.config("A"))
        self.reload("A", "B")
        self.assertEqual(self.servables.loaded(), {"A": 2, "B": 2})
        self.reload("B")
        self.assertEqual(self.servables.loaded(), {"B": 2})
        self.assertEqual(self.servables.missing(), [])
        self.reload()
        self.assertEqual((self.servables.loaded(), self.servables.missing()), ({}, None))

    def test_the_answer_waits_for_the_new_model(self) -> None:
        self.start(self.config("A"))
        self.may_load.clear()
        answer = self.models.reload(self.config("A", "B"))
        self.eventually(lambda: self.models.is_loading)
        self.assertFalse(answer.done())
        self.may_load.set()
        answer.result(TIMEOUT_S)
        self.assertEqual(self.use("B"), 2)

    def test_a_policy_changes_what_is_served(self) -> None:
        self.start(self.config("A"))
        self.reload("A", A="model_version_policy { all {} }")
        self.eventually(lambda: sorted(self.servables.available("A")) == [1, 2])
        self.reload("A", A="model_version_policy { specific { versions: 1 } }")
        self.eventually(lambda: self.servables.available("A") == [1])

    def test_a_model_that_cannot_be_loaded_is_named_and_the_others_serve(self) -> None:
        self.start(self.config("A"), retries=1)
        self.broken["B"] = errors.StartError(f"{self.folder}/B/2/x is broken", StatusCode.DATA_LOSS)
        code, text = self.refused("A", "B")
        self.assertEqual(code, StatusCode.UNKNOWN)
        self.assertEqual(
            text,
            "1 model(s) did not become available: {{{name: B version: 2} due to error: DATA_LOSS: 2/x is broken}, }",
        )
        self.assertEqual((self.use("A"), self.servables.missing()), (2, []))

    def test_a_model_without_versions_or_folder_is_answered_at_once(self) -> None:
        self.start(self.config("A"))
        (self.folder / "C").mkdir()
        for name, reason in {"C": "No versions of servable C found", "D": "Could not find base path"}.items():
            with self.subTest(name):
                code, text = self.refused("A", name)
                self.assertEqual(code, StatusCode.UNKNOWN)
                self.assertIn(f"{{name: {name}}} due to error: NOT_FOUND: {reason}", text)
                self.assertNotIn(str(self.folder), text)

    def test_a_wrong_list_changes_nothing(self) -> None:
        self.start(self.config("A"))
        self.assertEqual(
            self.refused("B", "B"),
            (StatusCode.INVALID_ARGUMENT, "Illegal to list model B multiple times in config list"),
        )
        self.assertEqual(self.servables.loaded(), {"A": 2})

    def test_labels(self) -> None:
        both = "model_version_policy { all {} }"
        self.start(self.config("A", A=both))
        self.reload("A", A=f"{both} version_labels {{ key: 'stable' value: 1 }}")
        self.assertEqual(self.use("A", "stable"), 1)
        text = "Request to assign label to version 9 of model A, which is not currently available for inference"
        wrong = f"{both} version_labels {{ key: 'stable' value: 9 }}"
        self.assertEqual(self.refused("A", "B", A=wrong), (StatusCode.FAILED_PRECONDITION, text))
        self.assertEqual((self.use("A", "stable"), self.servables.loaded()), (1, {"A": 2}))
        with self.assertRaisesRegex(errors.ServingError, "Unrecognized servable version label: canary"):
            self.use("A", "canary")

    def test_a_new_label_of_a_version_that_is_not_there_needs_the_flag(self) -> None:
        labelled = "version_labels { key: 'stable' value: 9 }"
        with self.assertRaisesRegex(errors.StartError, "Request to assign label to version 9 of model A"):
            self.start(self.config("A", A=labelled))
        self.start(self.config("A", A=labelled), any_new_label=True)
        with self.assertRaisesRegex(errors.ServingError, r"Servable not found for request: Specific\(A, 9\)"):
            self.use("A", "stable")
        # A label in use is not moved to a version that is not there.
        self.assertEqual(self.refused("A", A=labelled.replace("9", "8"))[0], StatusCode.FAILED_PRECONDITION)
        self.reload("A", A=labelled.replace("9", "2"))
        self.assertEqual(self.use("A", "stable"), 2)

    def test_the_file_is_followed_and_a_mistake_in_it_changes_nothing(self) -> None:
        self.config_file.write_text(self.text_of("A"))
        self.start(model_config.read(str(self.config_file)), poll_s=0.05)
        read = self.enterContext(mock.patch.object(model_config, "read", wraps=model_config.read))
        with self.assertLogs(served_models.logger, "ERROR") as logs:
            for text in ("improper", ""):
                self.config_file.write_text(text)
                before = read.call_count
                self.eventually(lambda before=before: read.call_count > before + 3)
        self.assertEqual(self.servables.loaded(), {"A": 2})
        self.config_file.write_text(self.text_of("B"))
        self.eventually(lambda: self.servables.loaded() == {"B": 2})
        self.assertEqual(len([line for line in logs.output if "The models stay as they are" in line]), 1)

    def test_a_flood_of_changes_is_refused(self) -> None:
        self.start(self.config("A"))
        self.may_load.clear()
        self.addCleanup(self.may_load.set)
        self.models.reload(self.config("B"))
        self.eventually(lambda: self.models.is_loading)
        with self.assertRaises(errors.ServingError) as caught:
            for _ in range(100):
                self.models.reload(self.config("B"))
        self.assertEqual(caught.exception.code, StatusCode.RESOURCE_EXHAUSTED)


if __name__ == "__main__":
    unittest.main()
