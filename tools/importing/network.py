"""The common interface of all formats, and the meaning of a network's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Three = tuple[float, float, float]

# What an output still needs, and so its content. none: a probability for each class. softmax: a logit for each class.
# binary: one probability. sigmoid: one logit.
Activation = Literal["none", "softmax", "binary", "sigmoid"]


# How an activation is known if no layer tells it.
SEEN = "its answers for sample photos"


class ImportProblem(Exception):
    """The model can't be imported as asked. The message is one line that says what to do."""


class OpenQuestion(ImportProblem):
    """A question that only the user can answer: `option` needs one of `choices`."""

    def __init__(self, message: str, option: str, choices: Sequence[str]) -> None:
        super().__init__(message)
        self.option = option
        self.choices = list(choices)


@dataclass(frozen=True)
class InputSpec:
    """The network's input. A height or width of None is open. ``batch`` is None if any number of photos is accepted."""

    height: int | None
    width: int | None
    channels: int
    channels_first: bool = False
    batch: int | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class Numbers:
    """The values that the network gets: ``(pixel * factor - mean) / std`` for red, green and blue.

    A network with one channel gets grey, with the first mean and std.

    Attributes:
        bgr: whether the channels are then in the order blue, green, red.
        grey_photo: whether the photo is converted to grey before all other steps.
    """

    factor: float = 1.0
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)
    bgr: bool = False
    grey_photo: bool = False

    @property
    def grey(self) -> Three:
        """The weights of red, green and blue in grey, as in TensorFlow. With them, a grey photo does not change."""
        return (0.299, 0.587, 0.114) if self.grey_photo else (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Export:
    """The parts of the exported graph around the network: size and dtype of the pixels, scaling, output, batch.

    `model` is the model's name. `classes` is the number of values of the output.
    """

    model: str
    height: int
    width: int
    pixels: str
    numbers: Numbers
    output: str
    activation: Activation
    classes: int
    batch: int | None = None


@dataclass(frozen=True)
class NormStatistics:
    """The statistics of the first batch normalisation: from training, and for the current values, ``[channels]``."""

    expected_mean: Array
    expected_variance: Array
    mean: Array
    variance: Array


class Network(Protocol):
    """A model as its framework loads it.

    Attributes:
        format: the format's name for people, e.g. "Keras h5 (tf_keras)".
        framework: the framework that computes `run`.
        outputs: the shape of each output; -1: open.
        last: the activation that each output still needs, if its last operation shows it.
        scales_itself: why the network scales pixels of 0 to 255 itself; None if it is not known to do so.
        is_quantised: whether it computes in 8 bits.
    """

    format: str
    framework: str
    spec: InputSpec
    outputs: dict[str, tuple[int, ...]]
    last: dict[str, Activation]
    scales_itself: str | None
    is_quantised: bool
    notes: list[str]

    def run(self, values: NDArray[np.float32]) -> dict[str, Array]:
        """Return the framework's own answer for prepared values, ``[n, height, width, channels]``."""

    def first_norm(self, values: NDArray[np.float32]) -> NormStatistics | None:
        """Return the statistics of the first batch normalisation for such values, or None if it is not found."""

    def write(self, folder: Path, export: Export) -> None:
        """Write the version folder without its recipe."""


def counted(number: int, noun: str) -> str:
    """Return for example "1 photo", "2 photos"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def prepare(pixels: Array, numbers: Numbers, channels: int) -> NDArray[np.float32]:
    """Compute what the exported graph does before the network: from ``[..., 3]`` pixels to ``[..., channels]``."""
    values = pixels.astype(np.float32)
    if channels == 1:
        values = (values @ np.array(numbers.grey, np.float32))[..., None]
    mean, std = (np.array(three[:channels], np.float32) for three in (numbers.mean, numbers.std))
    values = np.asarray((values * np.float32(numbers.factor) - mean) / std, np.float32)
    return np.ascontiguousarray(values[..., ::-1] if numbers.bgr else values)


def probabilities(output: Array, activation: Activation) -> Array:
    """Compute what the exported graph does after the network: from ``[n, ...]`` to ``[n, classes]``."""
    values = np.asarray(output, np.float64).reshape(len(output), -1)
    if activation == "softmax":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(values / values.sum(axis=1, keepdims=True))
    if activation == "sigmoid":
        values = 1 / (1 + np.exp(-values))
    return np.hstack([1 - values, values]) if activation in ("sigmoid", "binary") else values


def in_layout(values: NDArray[np.float32], spec: InputSpec) -> Array:
    """Return the values in the layout and dtype of the network's own input."""
    if np.dtype(spec.dtype).kind in "ui":
        limits = np.iinfo(spec.dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    values = values.astype(spec.dtype)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if spec.channels_first else values


def spec_of(shape: Sequence[int | None], dtype: str) -> InputSpec:
    """Read an input's shape; None or -1: open. Raises ImportProblem if it is not a picture."""
    sides = [None if side is None or side < 0 else int(side) for side in shape]
    if len(sides) != 4:
        raise ImportProblem(
            f"its input has the shape {list(shape)} and is not a picture: it needs [batch, height, width, channels]"
        )
    batch, *rest = sides
    first = rest[2] not in (1, 3) and rest[0] in (1, 3)
    if first:
        rest = [*rest[1:], rest[0]]
    height, width, channels = rest
    if channels is None and height is None:
        channels = 3
    if channels not in (1, 3):
        raise ImportProblem(f"its input has the shape {list(shape)}: only 1 or 3 channels can be made from a photo")
    return InputSpec(height, width, channels, first, batch, dtype)


def classes_of(shape: Sequence[int]) -> int | None:
    """Return the number of values that an output has per photo; None if it is open, or if the output is a map."""
    known = [side for side in shape[1:] if side != 1]
    if len(shape) < 1 or len(known) > 1 or any(side < 1 for side in known):
        return None
    return known[0] if known else 1


def choose_output(network: Network, wanted: str | None, labels: int | None, answers: Mapping[str, Array]) -> str:
    """Return the output with the classes.

    Args:
        wanted: the output that the user named.
        labels: the number of labels, if known.
        answers: the values of each output for sample photos.

    Raises:
        ImportProblem: there is no such output, or it has not one value for each class.
        OpenQuestion: several outputs could be the one.
    """
    listed = "; ".join(f"{name} {list(shape)}" for name, shape in network.outputs.items())
    if wanted is not None:
        if wanted not in network.outputs:
            raise ImportProblem(f"there is no output {wanted!r}; there are: {listed}")
        if classes_of(answers[wanted].shape) is None:
            raise ImportProblem(f"its output {_no_classes(wanted, answers)}")
        return wanted
    counts = {name: count for name in network.outputs if (count := classes_of(answers[name].shape)) is not None}
    if not counts:
        kind = "its output" if len(answers) == 1 else "none of its outputs fits:"
        raise ImportProblem(f"{kind} {'; '.join(_no_classes(name, answers) for name in network.outputs)}")
    fitting = list(counts)
    kinds = {name: activation_of(answers[name]) for name in fitting}
    # The strongest hint first: as many values as labels, then probabilities, then a softmax or sigmoid at the end.
    for likely in (
        {name for name in fitting if counts[name] == labels},
        {name for name in fitting if kinds[name] == "none"},
        {name for name in fitting if network.last.get(name) in ("none", "binary")},
    ):
        fitting = [name for name in fitting if name in likely] or fitting
    if len(fitting) != 1:
        text = f"it has several outputs: name the one with the classes, by --output NAME ({listed})"
        raise OpenQuestion(text, "--output", list(network.outputs))
    return fitting[0]


def _no_classes(name: str, answers: Mapping[str, Array]) -> str:
    sides = ", ".join(str(side) for side in answers[name].shape[1:])
    kind = ", a map" if answers[name].ndim == 4 else ""
    return (
        f"{name} is [batch, {sides}]{kind}, and not [batch, classes]: only models with one value per class are served"
    )


def activation_of(answers: Array) -> Activation | None:
    """Return what the rows of an output are, ``[n, ...]``; None for values of 0 to 1 whose sum is not 1."""
    rows = np.asarray(answers, np.float64).reshape(len(answers), -1)
    within = bool(np.all((rows >= -1e-6) & (rows <= 1 + 1e-6)))
    if rows.shape[1] == 1:
        return "binary" if within else "sigmoid"
    if within and np.allclose(rows.sum(axis=1), 1, atol=2e-2):
        return "none"
    return None if within else "softmax"


def choose_activation(network: Network, output: str, wanted: str | None, answers: Array) -> tuple[Activation, str]:
    """Return the function that turns the output into probabilities, and how it is known; raises ImportProblem."""
    single = classes_of(answers.shape) == 1
    if not np.all(np.isfinite(answers)):
        raise ImportProblem("its answers for sample photos are not finite numbers: its weights may be broken")
    seen = activation_of(answers)
    told = network.last.get(output)
    independent = ImportProblem(
        "its outputs are independent of each other (values of 0 to 1 whose sum is not 1), but the services need "
        "probabilities whose sum is 1: train it with softmax"
    )
    if told == "binary" and not single:
        raise independent
    if wanted is not None:
        choices: dict[str, Activation] = (
            {"none": "binary", "sigmoid": "sigmoid"} if single else {"none": "none", "softmax": "softmax"}
        )
        if wanted not in choices:
            raise ImportProblem(f"--activation {wanted} does not fit this output; choose {' or '.join(choices)}")
        if told in ("binary", "none") and seen == told != choices[wanted]:
            raise ImportProblem(f"its values are probabilities already, without --activation {wanted}: leave it out")
        return choices[wanted], "as asked"
    if told in ("binary", "none") and seen == told:
        return told, "the last layer"
    if told == "softmax" and seen != "none":
        return ("sigmoid" if single else "softmax"), "the last layer"
    if seen is None:
        raise independent
    return seen, SEEN
