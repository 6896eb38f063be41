"""Tests that 8-bit numbers are multiplied as integers only where the processor can't overflow."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from model_service.engines import integer_overflow
from model_service.engines import openvino as openvino_engine
from model_service.engines.parallelism import Threads
from model_service.models import saved_model
from unit_test.model_service.ir_test import write_version

WEIGHTS = np.array([[1, -1, 1], [1, -1, -1], [1, 1, 1]], np.float32)


def product(image: Any, largest: float) -> Any:
    """An image times WEIGHTS. Both have 8 bits; `largest` is the value of the weights' last step."""
    from openvino import opset13 as ops

    pixels = ops.fake_quantize(image, *np.float32([0, 1, 0, 1]), levels=256)
    limits = np.float32([-largest, largest, -largest, largest])
    return ops.matmul(pixels, ops.fake_quantize(ops.constant(WEIGHTS), *limits, levels=255), False, False)


class MayOverflowTest(unittest.TestCase):
    def setUp(self) -> None:
        self.openvino = openvino_engine.import_openvino()

    def check(self, answer: Any, *images: Any) -> bool:
        return integer_overflow.may_overflow(self.openvino.Model([answer], list(images)))

    def test_rounded_weights_may_use_half_of_their_steps(self) -> None:
        from openvino import opset13 as ops

        for largest, expected in ((1.0, True), (1.5, True), (2.0, False), (3.0, False)):
            with self.subTest(largest=largest):
                image = ops.parameter([-1, 3], np.float32)
                self.assertIs(self.check(product(image, largest), image), expected)

    def test_weights_that_are_stored_in_16_bits_count_too(self) -> None:
        from openvino import opset13 as ops

        stored = ops.convert(ops.constant(WEIGHTS.astype(np.float16)), "f32")
        for largest, expected in ((1.0, True), (2.0, False)):
            with self.subTest(largest=largest):
                limits = np.float32([-largest, largest, -largest, largest])
                self.assertIs(self.check(ops.fake_quantize(stored, *limits, levels=255)), expected)

    def test_so_may_integers(self) -> None:
        from openvino import opset13 as ops

        for kind, rows, expected in (
            (np.int8, [[-127, 127]], True),
            (np.int8, [[-64, 64]], False),
            (np.uint8, [[0, 255]], True),
            (np.uint8, [[64, 192]], False),
            (np.uint8, [0, 255], False),
            (np.int32, [[-127, 127]], False),
        ):
            with self.subTest(kind=kind, rows=rows):
                self.assertIs(self.check(ops.convert(ops.constant(np.array(rows, kind)), "f32")), expected)

    def test_the_shipped_model_is_computed_with_integers(self) -> None:
        (version,) = (Path(__file__).parents[2] / "prev_trained_models" / "CAT-DOG").glob("[0-9]*")
        network = self.openvino.Core().read_model(str(version))
        self.assertIn("FakeQuantize", {node.get_type_name() for node in network.get_ops()})
        self.assertFalse(integer_overflow.may_overflow(network))


class ProcessorTest(unittest.TestCase):
    def ask(self, machine: str, flags: str | None) -> bool:
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "cpuinfo"
        if flags is not None:
            path.write_text(f"processor : 0\nflags : fpu {flags} sse\n", encoding="utf-8")
        with mock.patch.object(integer_overflow.platform, "machine", return_value=machine):
            return integer_overflow.adds_in_16_bits(path)

    def test_x86_without_vnni_adds_in_16_bits(self) -> None:
        self.assertTrue(self.ask("x86_64", "avx2"))
        self.assertFalse(self.ask("x86_64", "avx2 avx_vnni"))
        self.assertFalse(self.ask("x86_64", "avx512f avx512_vnni"))
        self.assertFalse(self.ask("aarch64", "asimddp"))

    def test_one_that_does_not_say_so_may_do_it(self) -> None:
        self.assertTrue(self.ask("AMD64", None))
        self.assertFalse(self.ask("arm64", None))


class OverflowTest(unittest.TestCase):
    def load(self, largest: float) -> openvino_engine.OpenVinoEngine:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "m" / "1"
        model = saved_model.read_saved_model(write_version(folder, lambda image: product(image, largest)), 1)
        (signature,) = model.signatures.values()
        return openvino_engine.load(model, signature, Threads(compute=1, streams=1))

    def test_the_answer_is_right_on_every_processor(self) -> None:
        for largest in (1.0, 2.0):
            with self.subTest(largest=largest):
                answer = self.load(largest).run({"image": np.ones((1, 3), np.float32)}, ["answer"])["answer"]
                np.testing.assert_allclose(answer, [[3, -1, 1]], atol=0.03)

    def test_without_vnni_float32_is_used_where_integers_may_overflow(self) -> None:
        for adds, largest, integers in ((True, 1.0, False), (True, 2.0, True), (False, 1.0, True)):
            with (
                self.subTest(adds=adds, largest=largest),
                mock.patch.object(openvino_engine, "adds_in_16_bits", return_value=adds),
                mock.patch.object(openvino_engine, "_settings", wraps=openvino_engine._settings) as settings,
            ):
                self.load(largest)
                self.assertEqual({call.args[2] for call in settings.call_args_list}, {integers})


if __name__ == "__main__":
    unittest.main()
