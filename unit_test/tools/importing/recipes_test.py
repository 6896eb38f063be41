"""The way of preparing photos is found from what is said of them, asked for, or the usual one; without a framework."""

import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.importing import network, recipes, ways
from tools.importing.import_model import Options, Report, _read_output, _said
from tools.importing.photos import made_photos, numbered, smaller
from tools.importing.source import Source

WIDTH, HEIGHT = 24, 20
LABELS = ["ant", "bee", "cow"]


class NumpyNetwork:
    """A network whose answers tell every pixel and colour apart, if `weight` is not too large to leave any doubt."""

    format = framework = "numpy"
    scales_itself: str | None = None
    is_quantised = False

    def __init__(self, weight: float = 0.02, channels: int = 3) -> None:
        self.spec = network.InputSpec(HEIGHT, WIDTH, channels)
        self.outputs = {"answer": (-1, 3)}
        self.last: dict[str, network.Activation] = {"answer": "none"}
        self.notes: list[str] = []
        self._weights = np.random.default_rng(1).normal(size=(HEIGHT * WIDTH * channels, 3)) * weight

    def run(self, values: Any) -> dict[str, Any]:
        return {"answer": network.probabilities(values.reshape(len(values), -1) @ self._weights, "softmax")}

    def first_norm(self, values: Any) -> network.NormStatistics:
        # Trained on photos of -1 to 1.
        axes = (0, 1, 2)
        return network.NormStatistics(np.full(3, -0.1), np.full(3, 0.25), values.mean(axis=axes), values.var(axis=axes))


class SearchTest(unittest.TestCase):
    network = NumpyNetwork()

    def candidates(self, **wanted: Any) -> list[ways.Candidate]:
        return ways.candidates(self.network.spec, WIDTH, HEIGHT, ways.Wanted(**wanted), reverse=False)

    def said(self, way: ways.Candidate, count: int = 3, digits: int = 2) -> list[recipes.Said]:
        """What somebody's script prints who prepares photos this way."""
        found = []
        for photo in made_photos(count):
            values = network.prepare(way.pixels(photo.image)[None], way.numbers, 3)
            answer = self.network.run(values)["answer"][0]
            best = int(answer.argmax())
            found.append(_said(photo, f"{LABELS[best]} {100 * answer[best]:.{digits}f}", LABELS))
        return found

    def errors(self, candidates: list[ways.Candidate], said: list[recipes.Said]) -> Any:
        return recipes.measure(self.network, "answer", "none", candidates, LABELS, said)

    def test_every_way_is_found_from_three_photos(self) -> None:
        candidates = self.candidates(scale="-1..1")
        self.assertEqual(len(candidates), len(ways.WAYS) * 3 * 2)
        for way in candidates:
            with self.subTest(f"{way.resize} {way.numbers}"):
                found, assumed = recipes.search(candidates, self.errors(candidates, self.said(way)), None)
                self.assertEqual((found.resize, found.numbers), (way.resize, way.numbers))
                self.assertEqual(assumed, [])

    def test_every_scale_and_order_is_found(self) -> None:
        candidates = self.candidates(resize="stretch-bilinear")
        for way in candidates:
            # Pixels of 0 to 255 leave these weights no doubt.
            if way.scale in ("0..255", "caffe"):
                continue
            with self.subTest(f"{way.numbers}"):
                found, _ = recipes.search(candidates, self.errors(candidates, self.said(way)), None)
                self.assertEqual(found.numbers, way.numbers)

    def test_what_no_way_gives_is_told_with_the_nearest(self) -> None:
        candidates = self.candidates()
        said = [replace(one, probability=1 - one.probability) for one in self.said(candidates[0])]
        with self.assertRaisesRegex(network.ImportProblem, "the nearest is --resize .* off by 0"):
            recipes.search(candidates, self.errors(candidates, said), None)

    def test_answers_without_doubt_leave_it_open_and_the_options_that_decide_are_named(self) -> None:
        self.network = NumpyNetwork(weight=3.0)
        candidates = self.candidates()
        said = self.said(candidates[0], digits=0)
        with self.assertRaisesRegex(network.OpenQuestion, "--resize .*crop.*") as caught:
            recipes.search(candidates, self.errors(candidates, said), None)
        self.assertEqual(caught.exception.option, "--resize")
        self.assertIn("crop", caught.exception.choices)

    def test_one_photo_is_enough_only_for_the_usual_way_or_if_few_ways_are_left(self) -> None:
        candidates = self.candidates()
        usual = next(way for way in candidates if (way.resize, way.order) == ("crop-lanczos", "rgb"))
        other = next(way for way in candidates if (way.resize, way.order) == ("resize-crop-bilinear", "bgr"))
        said = self.said(other, count=2)
        with self.assertRaisesRegex(network.OpenQuestion, "chance: .* 170 ways .*second one.*--resize") as caught:
            recipes.check_evidence(other, usual, candidates, said[:1])
        self.assertIn("crop", caught.exception.choices)
        # The same photo twice is one photo.
        with self.assertRaises(network.OpenQuestion):
            recipes.check_evidence(other, usual, candidates, [said[0], said[0]])
        recipes.check_evidence(other, usual, candidates, said)
        recipes.check_evidence(usual, usual, candidates, said[:1])
        few = self.candidates(resize="resize-crop", order="bgr")
        recipes.check_evidence(other, usual, few, said[:1])
        # Without decimals the same few ways are too many.
        filters = self.candidates(resize="stretch", order="rgb", scale="0..1")
        with self.assertRaises(network.OpenQuestion) as caught:
            recipes.check_evidence(filters[1], usual, filters, self.said(filters[1], count=1, digits=0))
        self.assertIn("stretch-nearest", caught.exception.choices)

    def test_of_several_filters_that_fit_one_photo_the_usual_one_is_chosen(self) -> None:
        candidates = self.candidates(scale="0..1", order="rgb", resize="crop")
        errors = np.array([[5e-5], [0.0], [0.5], [0.5]])
        found, _ = recipes.search(candidates, errors, None, candidates[0])
        self.assertIs(found, candidates[0])
        self.assertIs(recipes.search(candidates, np.hstack([errors] * 2), None, candidates[0])[0], candidates[1])

    def test_an_option_leaves_the_rest_to_be_found(self) -> None:
        candidates = self.candidates(resize="crop", order="rgb")
        self.assertEqual({way.order for way in candidates}, {"rgb"})
        way = next(way for way in candidates if way.resize == "crop-bicubic" and way.scale == "0..1")
        found, _ = recipes.search(candidates, self.errors(candidates, self.said(way)), None)
        self.assertEqual(found, way)

    def test_a_percentage_is_as_exact_as_its_digits(self) -> None:
        (photo,) = made_photos(1)
        for text, probability, half in (
            ("ant 95", 0.95, 0.005),
            ("ant 95.16 %", 0.9516, 0.00005),
            ("ant 95,2%", 0.952, 0.0005),
        ):
            with self.subTest(text):
                said = _said(photo, text, LABELS)
                self.assertAlmostEqual(said.probability, probability)
                self.assertAlmostEqual(said.half_digit, half)
        for text in ("ant", "95", "ant 101", "ant -1", "ant nan", "dog 50", ""):
            with self.subTest(text), self.assertRaises(network.ImportProblem):
                _said(photo, text, LABELS)

    def test_a_batch_normalisation_tells_the_scale(self) -> None:
        images = [photo.image for photo in made_photos()]
        found = recipes.scale_by_statistics(self.network, images, WIDTH, HEIGHT)
        self.assertEqual(found and found[0], "-1..1")


class GreyTest(unittest.TestCase):
    def test_a_photo_that_is_made_grey_first_is_pillows(self) -> None:
        spec = network.InputSpec(HEIGHT, WIDTH, 1)
        wanted = ways.Wanted(resize="stretch-bilinear", scale="0..255")
        plain, grey = ways.candidates(spec, WIDTH, HEIGHT, wanted, reverse=False)
        self.assertEqual((plain.config.get("do_grayscale"), grey.config["do_grayscale"]), (None, True))
        for photo in made_photos():
            pillow = photo.image.convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
            values = network.prepare(grey.pixels(photo.image), grey.numbers, 1)[..., 0]
            np.testing.assert_allclose(values, np.asarray(pillow), atol=1e-3)


class UsualTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def usual(
        self, network_: NumpyNetwork, kind: str = ".keras", measured: Any = None
    ) -> tuple[ways.Candidate, Any, Any]:
        source = Source(self.folder / f"model{kind}", kind, self.folder, "model")
        wanted = ways.wanted_of(ways.Wanted(), source)
        candidates = ways.candidates(network_.spec, WIDTH, HEIGHT, wanted, reverse=False)
        return recipes.usual(network_, source, candidates, wanted, measured)

    def test_the_frameworks_way_is_assumed_and_told(self) -> None:
        way, found, assumed = self.usual(NumpyNetwork())
        self.assertEqual((way.resize, way.scale, way.order), ("stretch-tensorflow", "0..1", "rgb"))
        self.assertEqual((found, len(assumed)), ([], 3))

    def test_what_the_network_tells_of_its_numbers_is_found(self) -> None:
        itself = NumpyNetwork()
        itself.scales_itself = "a Rescaling layer"
        self.assertEqual(self.usual(itself)[0].scale, "0..255")
        self.assertEqual(self.usual(NumpyNetwork(), measured=("-1..1", "why"))[0].scale, "-1..1")
        whole = NumpyNetwork()
        whole.spec = replace(whole.spec, dtype="int8")
        self.assertEqual(self.usual(whole)[0].numbers, network.Numbers(mean=(128.0,) * 3))

    def test_onnx_with_channels_first_is_prepared_as_in_pytorch(self) -> None:
        torch = NumpyNetwork()
        torch.format = "ONNX"
        torch.spec = replace(torch.spec, channels_first=True)
        way, _, _ = self.usual(torch, ".onnx")
        self.assertEqual((way.resize, way.scale), ("resize-crop-bilinear", "imagenet"))

    def test_a_preprocessor_config_beside_the_model_is_what_it_says(self) -> None:
        config = {"size": {"shortest_edge": 26}, "crop_size": 20, "do_center_crop": True, "resample": 3}
        config |= {"do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
        config["crop_size"] = {"width": WIDTH, "height": HEIGHT}
        (self.folder / "preprocessor_config.json").write_text(json.dumps(config))
        way, _, assumed = self.usual(NumpyNetwork())
        self.assertEqual(way.numbers, network.Numbers(1 / 255, (0.5,) * 3, (0.25,) * 3))
        self.assertEqual((way.config["size"], way.config["do_rescale"]), ({"shortest_edge": 26}, False))
        self.assertEqual(assumed, [])
        (self.folder / "preprocessor_config.json").write_text('{"size": 0}')
        with self.assertRaises(network.ImportProblem):
            self.usual(NumpyNetwork())


class NetworkTest(unittest.TestCase):
    def test_the_shape_of_an_input_tells_its_layout(self) -> None:
        self.assertEqual(network.spec_of([None, 20, 24, 3], "float32"), network.InputSpec(20, 24, 3))
        self.assertEqual(network.spec_of([1, 3, 20, 24], "float32"), network.InputSpec(20, 24, 3, True, 1))
        self.assertEqual(network.spec_of([-1, -1, -1, 1], "uint8"), network.InputSpec(None, None, 1, dtype="uint8"))
        for shape in ([None, 10], [None, 20, 24, 4], [3, 20, 24]):
            with self.subTest(shape), self.assertRaises(network.ImportProblem):
                network.spec_of(shape, "float32")

    def test_rows_tell_what_an_output_lacks(self) -> None:
        rows = {
            "none": [[0.2, 0.8], [1, 0]],
            "softmax": [[2, -1], [0.5, 0.5]],
            "binary": [[0.3], [1.0]],
            "sigmoid": [[-3.0], [0.5]],
            None: [[0.9, 0.8], [0.1, 0.2]],
        }
        for activation, values in rows.items():
            with self.subTest(activation):
                self.assertEqual(network.activation_of(np.array(values)), activation)

    def test_a_last_layer_without_an_activation_gives_logits_whatever_their_range(self) -> None:
        made = NumpyNetwork()
        small = np.array([[0.1, 0.2, 0.1], [0.3, 0.1, 0.2]])
        made.last = {"answer": "softmax"}
        self.assertEqual(network.choose_activation(made, "answer", None, small)[0], "softmax")
        self.assertEqual(network.choose_activation(made, "answer", None, small[:, :1])[0], "sigmoid")
        made.last = {}
        with self.assertRaisesRegex(network.ImportProblem, "independent"):
            network.choose_activation(made, "answer", None, small)
        self.assertEqual(network.choose_activation(made, "answer", "softmax", small), ("softmax", "as asked"))

    def test_a_function_that_the_last_layer_makes_wrong_is_refused(self) -> None:
        made = NumpyNetwork()
        several, one, sure = np.array([[0.1, 0.2]]), np.array([[0.1]]), np.array([[0.9, 0.1]])
        for told, wanted, answers, reason in (
            # Sigmoids stay independent, whatever is added.
            ("binary", None, several, "train it with softmax$"),
            ("binary", "softmax", several, "train it with softmax$"),
            ("binary", "none", several, "train it with softmax$"),
            ("binary", "sigmoid", one, "probabilities already"),
            ("none", "softmax", sure, "probabilities already"),
        ):
            made.last = {"answer": told}
            with self.subTest(told, wanted=wanted), self.assertRaisesRegex(network.ImportProblem, reason):
                network.choose_activation(made, "answer", wanted, answers)
        made.last = {"answer": "none"}
        self.assertEqual(network.choose_activation(made, "answer", "none", sure)[0], "none")

    def test_a_map_is_told_as_a_map(self) -> None:
        made = NumpyNetwork()
        made.outputs = {"mask": (-1, 4, 5, 3)}
        answers = {"mask": np.ones((2, 4, 5, 3))}
        for wanted in (None, "mask"):
            with self.subTest(wanted), self.assertRaises(network.ImportProblem) as caught:
                network.choose_output(made, wanted, 3, answers)
            self.assertIn("its output mask is [batch, 4, 5, 3], a map, and not [batch, classes]", str(caught.exception))
            self.assertNotIsInstance(caught.exception, network.OpenQuestion)
        made.outputs["rows"], answers["rows"] = (-1, 7, 2), np.ones((2, 7, 2))
        with self.assertRaisesRegex(network.ImportProblem, "none of its outputs fits: .*; rows is .batch, 7, 2., and"):
            network.choose_output(made, None, 3, answers)

    def test_what_only_sample_photos_tell_is_assumed_until_known_answers_confirm_it(self) -> None:
        made = NumpyNetwork()
        made.run = lambda values: {"answer": np.full((len(values), 3), 2.0)}  # type: ignore[method-assign]
        photo = (Path("a.jpg"), "ant 95")
        for told, said, kind in (("softmax", [], "found"), (None, [], "assumed"), (None, [photo], "found")):
            with self.subTest(told, said=said):
                made.last = {"answer": "softmax"} if told else {}
                report = Report("numpy", "m", Path("m"), [])
                options = Options(Path("m"), Path("models"), said=said)
                _read_output(options, made, (LABELS, "labels.txt"), (WIDTH, HEIGHT), report)
                self.assertRegex(" ".join(getattr(report, kind)), "logits, softmax is added")

    def test_the_output_of_the_classes_is_chosen_or_asked_for(self) -> None:
        made = NumpyNetwork()
        made.last = {}
        answers = {"boxes": np.ones((2, 5)), "classes": np.full((2, 3), 1 / 3), "map": np.ones((2, 4, 4, 3))}
        made.outputs = {name: answer.shape for name, answer in answers.items()}
        self.assertEqual(network.choose_output(made, None, 3, answers), "classes")
        self.assertEqual(network.choose_output(made, None, None, answers), "classes")
        self.assertEqual(network.choose_output(made, "boxes", 3, answers), "boxes")
        answers["also"] = answers["classes"]
        made.outputs = {name: answer.shape for name, answer in answers.items()}
        with self.assertRaises(network.OpenQuestion):
            network.choose_output(made, None, None, answers)

    def test_photos_are_made_the_same_each_time_and_get_smaller(self) -> None:
        self.assertEqual([photo.data for photo in made_photos()], [photo.data for photo in made_photos()])
        self.assertEqual([photo.name for photo in numbered(made_photos(2))], ["golden_1.jpg", "golden_2.jpg"])
        (photo,) = made_photos(1)
        large = replace(photo, image=photo.image.resize((3000, 2000)))
        self.assertEqual(smaller(large).image.size, (640, 427))


if __name__ == "__main__":
    unittest.main()
