"""Which version is used: the newest that fits and passes its golden check, whatever comes and goes meanwhile."""

import asyncio
import base64
import logging
import unittest
from collections.abc import Mapping
from typing import Any
from unittest import mock

from preprocess_service.app import errors
from preprocess_service.app.inference import model_versions
from preprocess_service.app.recipe import parse_recipe
from preprocess_service.app.serving_client import predict_response
from preprocess_service.app.serving_client.model_version import AnotherVersion
from unit_test.preprocess_service.recipes import model_version

PHOTO = base64.b64encode(b"a photo").decode()


class FakeSource:
    """A model server with the versions that the test sets, and what each says of its golden photo."""

    def __init__(self) -> None:
        self.says: dict[int, float | Exception] = {1: 0.9}
        self.expected = 0.9
        self.refused: Mapping[int, Exception] = {}
        self.loaded: list[int] = []
        self.approved: list[int] = []
        self.pinned: list[bool] = []

    async def available(self, timeout: float) -> list[int]:
        if not self.says:
            raise errors.ModelUnavailable
        return sorted(self.says, reverse=True)

    async def load(self, version: int, timeout: float) -> Any:
        self.loaded.append(version)
        if version in self.refused:
            raise self.refused[version]
        golden = {"name": "golden_1.jpg", "photo": PHOTO, "probabilities": {"Sparrow": self.expected}}
        config = {"size": {"width": 4, "height": 4}}
        labels = ["Pigeon", "Sparrow"]
        document = {"preprocessor_config": config, "labels": labels, "golden": [golden]}
        return model_version(version, parse_recipe(document))

    async def classify(self, golden: Any, model: Any, timeout: float) -> Any:
        self.pinned.append(model.is_pinned)
        await asyncio.sleep(0)
        said = self.says.get(model.version, AnotherVersion())
        if isinstance(said, Exception):
            raise said
        return predict_response.Prediction({"Pigeon": 1 - said, "Sparrow": said}, model.version)

    def approve(self, model: Any) -> None:
        self.approved.append(model.version)

    def disapprove(self, version: int) -> None: ...


class ModelVersionsTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.source = FakeSource()
        self.models = model_versions.ModelVersions(self.source, self.source.classify, "M")
        logging.getLogger(model_versions.__name__).setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger(model_versions.__name__).setLevel, logging.NOTSET)

    async def test_a_version_is_read_once_and_its_golden_photos_are_asked_of_it_alone(self) -> None:
        answers = await asyncio.gather(*(self.models.current(5) for _ in range(50)))
        self.assertEqual({(answer.version, answer.is_pinned) for answer in answers}, {(1, False)})
        await self.models.refresh(5)
        self.assertEqual((self.source.loaded, self.source.approved, self.source.pinned), ([1], [1], [True]))

    async def test_a_newer_version_that_passes_takes_over_and_one_that_fails_does_not(self) -> None:
        await self.models.refresh(5)
        self.source.says = {1: 0.9, 2: 0.905}
        self.assertEqual((await self.models.refresh(5)).version, 2)
        self.source.says = {2: 0.905, 3: 0.61}
        self.source.expected = 0.95
        used = await self.models.refresh(5)
        self.assertEqual((used.version, used.is_pinned), (2, True))
        self.assertIn("golden_1.jpg: Sparrow 0.61, expected 0.95", str(self.models.rejected))
        # Photos that are prepared for one object travel together.
        self.assertIs(await self.models.refresh(5), used)
        self.assertNotIn(3, self.source.approved)
        self.source.says[4] = 0.95
        used = await self.models.refresh(5)
        self.assertEqual((used.version, used.is_pinned, self.models.rejected), (4, False, None))

    async def test_a_version_that_can_not_be_used_is_passed_over_too(self) -> None:
        self.source.says = {1: 0.9, 2: 0.9}
        self.source.refused = {2: errors.ModelError("model_one_value", labels=2)}
        used = await self.models.refresh(5)
        self.assertEqual((used.version, used.is_pinned), (1, True))
        self.assertIn("sigmoid", str(self.models.rejected))

    async def test_with_nothing_but_a_bad_version_photos_are_refused_with_the_reason(self) -> None:
        self.source.says = {1: 0.61}
        for _ in range(3):
            with self.assertRaisesRegex(errors.GoldenMismatch, r"golden_1\.jpg: Sparrow 0\.61, expected 0\.90"):
                await self.models.current(5)
        # Not read anew for each photo.
        self.assertEqual(self.source.loaded, [1])
        with mock.patch.object(model_versions, "RETRY_SECONDS", 0):
            self.source.says = {1: 0.9}
            self.assertEqual((await self.models.current(5)).version, 1)

    async def test_a_golden_photo_that_can_not_be_read_fails_the_check(self) -> None:
        self.source.says = {1: errors.InvalidImage("image_broken")}
        with self.assertRaisesRegex(errors.GoldenMismatch, r"golden_1\.jpg: The picture is truncated"):
            await self.models.current(5)

    async def test_what_passes_is_no_fault_of_the_version(self) -> None:
        for error in (errors.Overloaded(), errors.DeadlineExceeded(), errors.ModelUnavailable()):
            with self.subTest(error.code):
                self.source.says = {1: error}
                with self.assertRaises(type(error)):
                    await self.models.current(5)
                self.source.says = {1: 0.9}
                self.assertEqual((await self.models.current(5)).version, 1)
                self.models._forget()

    async def test_while_an_older_version_is_used_a_newer_one_is_looked_for_without_being_waited_for(self) -> None:
        self.source.says = {1: 0.9, 2: 0.1}
        self.assertEqual((await self.models.current(5)).version, 1)
        self.source.says = {1: 0.9, 2: 0.1, 3: 0.9}
        self.assertEqual((await self.models.current(5)).version, 1)
        with mock.patch.object(model_versions, "RETRY_SECONDS", 0):
            self.assertEqual((await self.models.current(5)).version, 1)
            for _ in range(100):
                await asyncio.sleep(0.01)
                if (await self.models.current(5)).version == 3:
                    break
        self.assertEqual((await self.models.current(5)).version, 3)

    async def test_after_the_model_server_was_away_all_is_read_anew(self) -> None:
        await self.models.current(5)
        says, self.source.says = self.source.says, {}
        with self.assertRaises(errors.ModelUnavailable):
            await self.models.refresh(5)
        self.source.says = says
        await self.models.current(5)
        self.assertEqual(self.source.loaded, [1, 1])

    async def test_a_photo_that_is_refused_lets_it_look_once_and_a_full_server_is_not_read_anew(self) -> None:
        used = await self.models.current(5)
        with mock.patch.object(model_versions, "RETRY_SECONDS", 0):
            for _ in range(10):
                self.models.suspect()
            await self.models.refresh(5)
        self.assertIs(await self.models.current(5), used)
        self.assertEqual(self.source.loaded, [1])
        self.source.says = {}
        with mock.patch.object(model_versions, "RETRY_SECONDS", 0):
            self.models.suspect()
            while self.models._current is not None:
                await asyncio.sleep(0.01)

    async def test_who_waits_too_long_is_late_and_the_others_get_their_answer(self) -> None:
        gate = asyncio.Event()

        async def classify(*arguments: Any) -> Any:
            await gate.wait()
            return await self.source.classify(*arguments)

        models = model_versions.ModelVersions(self.source, classify, "M")
        patient = asyncio.create_task(models.current(5))
        with self.assertRaises(errors.DeadlineExceeded):
            await models.current(0.01)
        gate.set()
        self.assertEqual((await patient).version, 1)

    async def test_few_versions_are_remembered(self) -> None:
        for version in range(1, 30):
            self.source.says = {version: 0.9}
            await self.models.refresh(5)
        self.assertLessEqual(len(self.models._known), 8)


if __name__ == "__main__":
    unittest.main()
