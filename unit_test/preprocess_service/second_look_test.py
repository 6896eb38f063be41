"""Tests when a second look is taken, what it shows, and that it never costs a client the answer of the first one."""

import asyncio
import base64
import io
import math
import signal
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import requests
from PIL import Image

from preprocess_service.app import app_server, errors
from preprocess_service.app import utils as service_utils
from preprocess_service.app.imaging.resize import resize
from preprocess_service.app.inference import decoder_pool, decoder_process, pipeline
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.second_look import combine, find_box
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.recipe import Geometry, RecipeError, SecondLook
from preprocess_service.app.served_models import ServedModels
from preprocess_service.app.serving_client.model_version import AnotherVersion
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.serving_client.signature import Signature
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner, settings
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.recipes import SHIPPED, model_version, recipe

SETTINGS = SecondLook(max_confidence=0.9)
# The upper right quarter stands out.
ATTENTION = np.zeros((8, 8), np.float32)
ATTENTION[1:3, 5:7] = 2
JPEG = base64.b64decode(CAT)
WITH_ATTENTION = Signature("pixels", "probabilities", accepts_uint8=True, attention_output_name="attention")
LEAST_SCORE = 0.25
ASKED = SETTINGS.model_copy(update={"min_domain_score": LEAST_SCORE})
CONFIG = SHIPPED.preprocessor_config.model_copy(update={"second_look": ASKED})
RECIPE = SHIPPED.model_copy(update={"preprocessor_config": CONFIG})
GEOMETRY = CONFIG.geometry()


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PNG = save(Image.open(io.BytesIO(JPEG)), "PNG")


def said(cat: float, attention: Any = None, version: int = 3, score: float | None = None) -> Prediction:
    return Prediction({"CAT": cat, "DOG": 1 - cat}, version, score, attention=attention)


class BoxTest(unittest.TestCase):
    """Where the second look is."""

    def test_it_is_around_what_stands_out_and_lies_in_the_first_look(self) -> None:
        for name, places, expected in (
            ("one place", [(3, 4)], (0.3625, 0.2375, 0.7625, 0.6375)),
            ("a corner", [(0, 0)], (0, 0, 0.4, 0.4)),
            ("the other corner", [(7, 7)], (0.6, 0.6, 1, 1)),
            ("two places far apart", [(1, 1), (1, 6)], (0.125, 0, 0.875, 0.4)),
            ("everything", [(row, column) for row in range(8) for column in range(8)], (0, 0, 1, 1)),
            ("nothing", [], (0, 0, 1, 1)),
        ):
            with self.subTest(name):
                attention = np.zeros((8, 8), np.float32)
                for place in places:
                    attention[place] = 7
                np.testing.assert_allclose(find_box(attention, SETTINGS), expected, atol=1e-6)

    def test_places_below_the_threshold_do_not_count_and_the_map_may_have_any_shape(self) -> None:
        attention = np.array([[0.1, 0.1, 0.49, 0.1], [0.1, 0.1, 0.1, 1]], np.float32)
        settings = SETTINGS.model_copy(update={"min_side": 0.1})
        np.testing.assert_allclose(find_box(attention, settings), (0.75, 0.5, 1, 1))
        lower = settings.model_copy(update={"attention_threshold": 0.4})
        np.testing.assert_allclose(find_box(attention, lower), (0.5, 0, 1, 1))

    def test_it_shows_the_same_part_as_a_first_look_of_more_pixels_in_each_mode(self) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
        photo = Image.fromarray(noise).resize((600, 450), Image.Resampling.BICUBIC)
        part = (0.25, 0.5, 0.75, 1.0)
        size = {"width": 48, "height": 40}
        twice = {"width": 96, "height": 80}
        for mode in (
            {"mode": "crop"},
            {"mode": "crop", "crop": 0.8},
            {"mode": "stretch"},
            {"mode": "pad", "pad_color": (9, 99, 199)},
            {"mode": "shortest_edge", "shortest_edge": 60},
        ):
            for how in (
                {},
                {"antialias": False, "dtype": "float32"},
                {"dtype": "float32", "resampling": "bicubic"},
                {"decode": "fast"},
                {"grayscale": True},
            ):
                for image in (photo, photo.transpose(Image.Transpose.ROTATE_90)):
                    with self.subTest(**mode, **how, size=image.size):
                        again: dict[str, Any] = mode | how
                        larger = again | twice
                        if "shortest_edge" in again:
                            larger["shortest_edge"] = 120
                        found = resize(image, Geometry(**again, **size, box=part))
                        whole = resize(image, Geometry(**larger)).astype(float)
                        self.assertEqual((found.shape, found.dtype), ((40, 48, 3), np.dtype(again.get("dtype", "u1"))))
                        self.assertLess(np.abs(found - whole[40:80, 24:72]).mean(), 3)
                        # Another part differs by far more.
                        self.assertGreater(np.abs(found - whole[0:40, 24:72]).mean(), 15)

    def test_a_part_outside_a_padded_photo_has_the_colour_of_the_padding(self) -> None:
        photo = Image.new("RGB", (400, 100), "white")
        geometry = Geometry(width=40, height=40, mode="pad", pad_color=(1, 2, 3), box=(0, 0, 0.3, 0.3))
        np.testing.assert_array_equal(resize(photo, geometry), np.full((40, 40, 3), (1, 2, 3), np.uint8))

    def test_it_is_cut_from_the_photo_and_not_from_the_first_look(self) -> None:
        # Lines that are one pixel wide in the second look, and grey in the first one.
        lines = np.zeros((600, 600, 3), np.uint8)
        lines[:, ::2] = 255
        for kind, options in (("JPEG", {"quality": 95}), ("PNG", {})):
            with self.subTest(kind):
                data = save(Image.fromarray(lines), kind, **options)
                geometry = CONFIG.model_copy(update={"crop_pct": 1.0}).geometry()
                first = resize(service_utils.decode_image(data, 10**6, geometry), geometry)
                part = geometry.model_copy(update={"box": (0.3, 0.3, 0.7, 0.7)})
                second = resize(service_utils.decode_image(data, 10**6, part), part)
                self.assertLess(first.std(), 10)
                self.assertGreater(second.std(), 90)


class CombineTest(unittest.TestCase):
    """Both looks give one answer."""

    def test_it_is_the_weighted_mean_of_the_log_probabilities_for_any_number_of_labels(self) -> None:
        generator = np.random.default_rng(2)
        for count in (2, 3, 1000):
            for weight, temperature in ((0.5, 1.0), (0.25, 2.0), (1.0, 0.5)):
                with self.subTest(count=count, weight=weight, temperature=temperature):
                    rows = generator.dirichlet(np.ones(count), 2)
                    looks = [Prediction({f"L{n}": float(p) for n, p in enumerate(row)}, 3, 0.7, 0.3) for row in rows]
                    chosen = SecondLook(max_confidence=1, weight=weight, temperature=temperature)
                    found = combine(*looks, chosen)
                    products = (rows[0] ** (1 - weight) * rows[1] ** weight) ** (1 / temperature)
                    np.testing.assert_allclose(list(found.probabilities.values()), products / products.sum(), rtol=1e-6)
                    self.assertEqual(list(found.probabilities), list(looks[0].probabilities))
                    self.assertEqual((found.looks, found.domain_score, found.model_version), (2, 0.7, 3))

    def test_a_probability_of_zero_is_no_error(self) -> None:
        found = combine(said(0.0), said(1.0), SETTINGS)
        self.assertAlmostEqual(found.probabilities["CAT"], 0.5)
        found = combine(said(0.0), said(0.0), SETTINGS)
        self.assertEqual((found.label, found.confidence), ("DOG", 1))


class RecipeTest(unittest.TestCase):
    def test_keys_that_make_no_sense_are_refused(self) -> None:
        self.assertIsNone(recipe().preprocessor_config.second_look)
        self.assertEqual(recipe(second_look={"max_confidence": 0.9}).preprocessor_config.second_look, SETTINGS)
        for values in (
            {},
            {"max_confidence": 1.5},
            {"max_confidence": 0.9, "min_domain_score": 1.1},
            {"max_confidence": 0.9, "min_side": 0},
            {"max_confidence": 0.9, "min_side": 0.01},
            {"max_confidence": 0.9, "attention_threshold": 1},
            {"max_confidence": 0.9, "weight": 1.1},
            {"max_confidence": 0.9, "temperature": 0},
            {"max_confidence": 0.9, "boxes": 2},
        ):
            with self.subTest(**values), self.assertRaisesRegex(RecipeError, "second_look"):
                recipe(second_look=values)


class Looks(FakeRunner):
    """A model whose answers to each look the test sets: predictions, exceptions, or functions that wait."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)
        self.seen: list[Any] = []
        self.model = model_version(3, RECIPE, WITH_ATTENTION)

    async def load(self, version: int, timeout: float) -> Any:
        return self.model

    async def predict(self, pixels: Any, model: Any, timeout: float, request_id: str = "") -> Any:
        self.seen.append(pixels)
        answer = self.answers.pop(0)
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


class PipelineTest(unittest.IsolatedAsyncioTestCase):
    """The first answer is given wherever a second look can't be taken."""

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().slow_callback_duration = 60
        self.config = settings()

    async def open(self, *answers: Any, **limits: Any) -> pipeline.Pipeline:
        self.runner = Looks(*answers)
        limits = self.config.limits.model_copy(update=limits)
        self.metrics = Metrics()
        models = ServedModels(self.config.model_copy(update={"limits": limits}), [self.runner], self.metrics)
        self.addAsyncCleanup(models.close)
        return models.first

    def results(self, service: pipeline.Pipeline) -> dict[str, float]:
        found = {
            result: self.metrics.registry.get_sample_value("catdog_second_looks_total", {"result": result})
            for result in service.metrics.second_looks
        }
        return {result: value for result, value in found.items() if value}

    async def check(
        self, service: pipeline.Pipeline, cat: float, looks: int, result: str | None, **context: Any
    ) -> Any:
        request = RequestContext("one", context.pop("seconds", 60), **context)
        found = await service.classify(JPEG, request)
        self.assertAlmostEqual(found.probabilities["CAT"], cat)
        self.assertEqual((found.looks, found.box is None), (looks, looks == 1))
        self.assertEqual(self.results(service), {result: 1} if result else {})
        return request

    async def test_a_first_look_that_is_not_sure_gets_a_second_one_whose_answer_counts(self) -> None:
        for result, first, second, score in (
            ("kept", 0.5001, 0.9, None),
            ("changed", 0.6, 0.1, None),
            ("kept", 0.6, 0.9, LEAST_SCORE),
        ):
            with self.subTest(result, score=score):
                service = await self.open(said(first, ATTENTION, score=score), said(second))
                odds = math.sqrt(first * second / ((1 - first) * (1 - second)))
                cat = odds / (1 + odds)
                request = await self.check(service, cat, 2, result)
                # Both looks are one photo: its formats, its stages and its label are counted once.
                self.assertEqual(len(request.images), 1)
                self.assertIn("second_look", request.timings())
                self.assertLess(request.timings()["model"] + request.timings()["second_look"], request.total())
                # The second look shows the part that stands out.
                box = find_box(ATTENTION, SETTINGS)
                geometry = GEOMETRY.model_copy(update={"box": box})
                image = service_utils.decode_image(JPEG, 10**6, geometry)
                np.testing.assert_array_equal(self.runner.seen[1], resize(image, geometry))
                self.assertEqual(len(self.runner.seen), 2)

    async def test_one_look_is_enough_where_nothing_asks_for_a_second_one(self) -> None:
        silent = CONFIG.model_copy(update={"second_look": None})
        unasked = RECIPE.model_copy(update={"preprocessor_config": silent})
        for name, answer, change in (
            ("sure", said(0.95, ATTENTION), {}),
            ("at the limit", said(0.9, ATTENTION), {}),
            ("a photo of something else", said(0.6, ATTENTION, score=LEAST_SCORE - 0.01), {}),
            ("no attention in the answer", said(0.6), {}),
            ("no attention in the model", said(0.6, ATTENTION), {"model": model_version(3, RECIPE)}),
            ("no recipe for it", said(0.6, ATTENTION), {"model": model_version(3, unasked, WITH_ATTENTION)}),
            ("another version has answered", said(0.6, ATTENTION, 4), {}),
            ("switched off", said(0.6, ATTENTION), {"config": False}),
        ):
            with self.subTest(name):
                self.config = settings().model_copy(update={"second_look": change.get("config", True)})
                service = await self.open(answer)
                self.runner.model = change.get("model", self.runner.model)
                request = await self.check(service, answer.probabilities["CAT"], 1, None)
                self.assertNotIn("second_look", request.timings())

    async def test_an_error_of_the_second_look_is_none_of_the_client(self) -> None:
        for error in (
            errors.ModelError(),
            errors.ModelUnavailable(),
            errors.Overloaded(),
            errors.ImageTooLarge("image_memory"),
            AnotherVersion(4),
        ):
            with self.subTest(error):
                await self.check(await self.open(said(0.6, ATTENTION), error), 0.6, 1, "failed")

    async def test_two_looks_by_two_versions_are_not_one_answer(self) -> None:
        service = await self.open(said(0.6, ATTENTION), said(0.99, version=4))
        await self.check(service, 0.6, 1, "failed")

    async def test_none_is_taken_while_the_service_is_busy(self) -> None:
        held = asyncio.Event()

        async def answer() -> Prediction:
            await held.wait()
            return said(0.99)

        for others, looks, result in ((2, 2, "kept"), (3, 1, "busy")):
            with self.subTest(others=others):
                held.clear()
                service = await self.open(*[answer] * others, said(0.6, ATTENTION), said(0.6), in_flight=4)
                waiting = [
                    asyncio.create_task(service.classify(JPEG, RequestContext("other", 60))) for _ in range(others)
                ]
                while len(self.runner.seen) < others:
                    await asyncio.sleep(0.01)
                await self.check(service, 0.6, looks, result)
                held.set()
                await asyncio.gather(*waiting)

    async def test_none_is_taken_just_after_the_model_server_was_full(self) -> None:
        service = await self.open(errors.Overloaded(), said(0.6, ATTENTION), said(0.6, ATTENTION), said(0.6))
        with self.assertRaises(errors.Overloaded):
            await service.classify(JPEG, RequestContext("one", 60))
        await self.check(service, 0.6, 1, "busy")
        service.preparation.busy_until = time.monotonic()
        self.assertEqual((await service.classify(JPEG, RequestContext("one", 60))).looks, 2)

    async def test_one_that_takes_too_long_is_given_up_in_time_for_the_first_answer(self) -> None:
        async def endless() -> Prediction:
            await asyncio.sleep(600)
            raise AssertionError

        async def little_time(_: RequestContext) -> RequestContext:
            return RequestContext("one", 0.2)

        service = await self.open(said(0.6, ATTENTION), endless)
        with patch.object(RequestContext, "second_looks", little_time):
            await self.check(service, 0.6, 1, "late")
        self.assertEqual(service.preparation.in_flight, 0)

    async def test_none_is_begun_with_less_time_than_the_first_look_took(self) -> None:
        request = RequestContext("one", 600)

        async def slow() -> Prediction:
            await asyncio.sleep(0.3)
            request._deadline = time.monotonic() + 0.5
            return said(0.6, ATTENTION)

        service = await self.open(slow, said(0.9))
        found = await service.classify(JPEG, request)
        self.assertEqual((found.looks, self.results(service), len(self.runner.seen)), (1, {"late": 1}, 1))

    async def test_second_looks_may_take_half_of_the_time_that_is_left(self) -> None:
        request = RequestContext("one", 600)
        with request.first_look():
            waiting = asyncio.create_task(request.second_looks())
            await asyncio.sleep(0.05)
            self.assertFalse(waiting.done())
        again = await waiting
        self.assertLessEqual(again.remaining(), 300)
        self.assertGreater(again.remaining(), 200)
        self.assertIs(await request.second_looks(), again)

    async def test_second_looks_of_a_batch_wait_for_all_its_first_looks(self) -> None:
        count = 6
        is_first: list[bool] = []

        def look(first: bool) -> Callable[[], Any]:
            async def answer() -> Prediction:
                is_first.append(first)
                return said(0.6, ATTENTION)

            return answer

        service = await self.open(*[look(True)] * count, *[look(False)] * count, in_flight=8)
        request = RequestContext("one", 60)
        found = await asyncio.gather(*(service.classify(JPEG, request) for _ in range(count)))
        self.assertEqual([answer.looks for answer in found], [2] * count)
        boxes = [pixels.tobytes() == self.runner.seen[0].tobytes() for pixels in self.runner.seen]
        self.assertEqual(boxes, [True] * count + [False] * count)

    async def test_a_photo_of_a_batch_that_is_refused_keeps_no_other_waiting(self) -> None:
        service = await self.open(said(0.6, ATTENTION), said(0.6))
        request = RequestContext("one", 60)
        broken, found = await asyncio.gather(
            service.classify(JPEG[:1000], request), service.classify(JPEG, request), return_exceptions=True
        )
        self.assertIsInstance(broken, errors.InvalidImage)
        self.assertIsInstance(found, Prediction)
        self.assertEqual(getattr(found, "looks", 0), 2)

    async def test_a_client_that_leaves_during_the_second_look_ends_it(self) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def held() -> Prediction:
            begun.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.set()
            raise AssertionError

        service = await self.open(said(0.6, ATTENTION), held)
        task = asyncio.create_task(service.classify(JPEG, RequestContext("one", 60)))
        await begun.wait()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertTrue(ended.is_set())
        self.assertEqual(service.preparation.in_flight, 0)

    async def test_golden_photos_are_checked_with_one_look(self) -> None:
        golden = {"name": "one.jpg", "photo": CAT, "probabilities": {"CAT": 0.6}}
        checked = type(RECIPE).model_validate(RECIPE.model_dump() | {"golden": [golden]})
        service = await self.open(said(0.6, ATTENTION))
        self.runner.model = model_version(3, checked, WITH_ATTENTION)
        self.assertEqual((await service.models.current(10)).version, 3)
        self.assertEqual(len(self.runner.seen), 1)


class LimitsTest(unittest.IsolatedAsyncioTestCase):
    """A hostile photo gets no more from two looks than twice what it gets from one."""

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().slow_callback_duration = 60
        self.tasks: list[dict[str, Any]] = []
        self.end_at = 100
        decode = decoder_process.DecoderProcess.decode

        def record(process: Any, task: dict[str, Any], data: bytes, size: int) -> Any:
            self.tasks.append(task)
            if len(self.tasks) >= self.end_at:
                raise decoder_process.DecoderEnded(-signal.SIGPROF)
            return decode(process, task, data, size)

        self.enterContext(patch.object(decoder_process.DecoderProcess, "decode", record))

    async def classify(self, photo: bytes, context: RequestContext | None = None, count: int = 1) -> list[Prediction]:
        answers = [said(0.6, ATTENTION)] * count + [said(0.6)] * count
        models = ServedModels(settings(decode_threads=1), [Looks(*answers)], Metrics())
        self.addAsyncCleanup(models.close)
        context = context or RequestContext("one", 120)
        return await asyncio.gather(*(models.first.classify(photo, context) for _ in range(count)))

    async def test_the_second_look_has_every_limit_of_the_first_one(self) -> None:
        for name, photo in (("small", PNG), ("large", save(Image.new("RGB", (2600, 1700)), "PNG"))):
            with self.subTest(name):
                self.tasks.clear()
                (found,) = await self.classify(photo)
                self.assertEqual(found.looks, 2)
                half = len(self.tasks) // 2
                for first, second in zip(self.tasks[:half], self.tasks[half:], strict=True):
                    self.assertIsNotNone(second["geometry"]["box"])
                    limits = [
                        {key: task[key] for key in ("max_pixels", "max_memory", "pixels", "seconds")}
                        for task in (first, second)
                    ]
                    self.assertEqual(*limits)
                    # A larger part is resized, so more memory may be granted and is reserved.
                    self.assertLessEqual(second["memory"], 2 * first["memory"])

    async def test_a_photo_that_ends_its_decoder_in_the_second_look_has_the_first_answer(self) -> None:
        self.end_at = 2
        (found,) = await self.classify(PNG)
        self.assertEqual((found.looks, len(self.tasks)), (1, 2))

    async def test_pixels_of_a_second_look_are_limited_per_request_too_and_do_not_count_twice(self) -> None:
        photo = save(Image.new("RGB", (2000, 1500)), "PNG")
        claimed: list[int] = []
        claim = RequestContext.claim_pixels

        def record(context: RequestContext, pixels: int, limit: int) -> None:
            claimed.append(context._claimed_pixels)
            claim(context, pixels, limit)

        # Exactly as many as the first looks need.
        with (
            patch.object(decoder_pool, "REQUEST_PIXELS", 6_000_000 / settings().limits.pixels),
            patch.object(RequestContext, "claim_pixels", record),
        ):
            found = await self.classify(photo, count=2)
        self.assertEqual([answer.looks for answer in found], [2, 2])
        self.assertEqual(claimed, [0, 3_000_000] * 2)


class AnswerTest(unittest.TestCase):
    """What the client and the operator see."""

    def test_the_answer_its_header_and_the_metrics_tell_of_two_looks(self) -> None:
        runner = Looks(said(0.6, ATTENTION), said(0.3), said(0.99), said(0.6, ATTENTION), said(0.9))
        url = self.enterContext(serving(app_server.create_app(settings(), runner)))
        answer = requests.post(f"{url}/predict", json={"image_b64": CAT}, timeout=60)
        self.assertEqual((answer.json()["label"], answer.json()["looks"]), ("DOG", 2))
        stages = [part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")]
        self.assertEqual(stages, ["read", "queue", "decode", "resize", "model", "second_look", "total"])
        answer = requests.post(f"{url}/predict/batch", json={"images_b64": [CAT, CAT]}, timeout=60)
        self.assertEqual(sorted(photo["looks"] for photo in answer.json()["predictions"]), [1, 2])
        text = requests.get(f"{url}/metrics", timeout=60).text
        for line in (
            'catdog_second_looks_total{result="changed"} 1.0',
            'catdog_second_looks_total{result="kept"} 1.0',
            'catdog_second_looks_total{result="busy"} 0.0',
            'catdog_stage_duration_seconds_count{stage="second_look"} 2.0',
            'catdog_stage_duration_seconds_count{stage="model"} 2.0',
            'catdog_predictions_total{label="DOG"} 1.0',
            "catdog_in_flight 0.0",
        ):
            with self.subTest(line):
                self.assertIn(line, text)


class SizeTest(unittest.IsolatedAsyncioTestCase):
    """The size of the upright photo comes with its pixels."""

    async def test_it_is_upright_and_whole_wherever_the_photo_is_decoded(self) -> None:
        asyncio.get_running_loop().slow_callback_duration = 60
        turned = Image.Exif()
        turned[0x0112] = 6
        for name, size, kind, options, upright in (
            ("a thread", (400, 300), "JPEG", {}, 4 / 3),
            ("a thread, turned", (400, 300), "JPEG", {"exif": turned}, 3 / 4),
            ("a process", (400, 300), "PNG", {}, 4 / 3),
            ("a process, turned", (400, 300), "PNG", {"exif": turned}, 3 / 4),
            ("TIFF, which Pillow turns", (400, 300), "TIFF", {"tiffinfo": {0x0112: 6}}, 3 / 4),
            ("a panorama, which is cropped first", (4000, 300), "PNG", {}, 4000 / 300),
            ("a panorama, turned", (4000, 300), "JPEG", {"exif": turned, "progressive": True}, 300 / 4000),
        ):
            with self.subTest(name):
                data = save(Image.new("RGB", size, "red"), kind, **options)
                models = ServedModels(settings(decode_threads=1), [Looks(said(0.95))], Metrics())
                found = await models.first.classify(data, RequestContext("one", 120))
                await models.close()
                assert found.size is not None
                self.assertAlmostEqual(found.size[0] / found.size[1], upright, delta=0.01 * upright)
