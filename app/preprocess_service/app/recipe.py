"""The recipe of a model version: its preprocessing, its labels, and golden photos whose answers are known.

The recipe is part of the version. In the version folder it is a set of files (``docs/models.md``). In the model it is
one JSON document, which the signature ``preprocessor_config`` returns:

    {"preprocessor_config": {...}, "labels": ["CAT", "DOG"],
     "golden": [{"name": "golden_1.jpg", "photo": "<base64>", "probabilities": {"CAT": 0.98, "DOG": 0.02}}]}

``preprocessor_config`` has the keys of Hugging Face's image processors, and additional keys of this service.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

# The signature that returns the document. It has one input (int32 [n], any values) and one output (string [n]).
SIGNATURE = "preprocessor_config"
SIGNATURE_INPUT = "count"
SIGNATURE_OUTPUT = "document"
# Golden photos with this prefix are generated patterns. They are checked like others, but not offered as samples.
MADE = "made_"

# In the order of Pillow's filter numbers, which Hugging Face's `resample` uses.
Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
RESAMPLING: tuple[Resampling, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Hugging Face writes these keys too. They have no effect here.
_IGNORED_KEYS = {
    "image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "do_convert_rgb", "data_format",
    "input_data_format", "return_tensors", "device", "disable_grouping", "default_to_square", "_valid_processor_keys",
    "_processor_class",
}  # fmt: skip

Side = Annotated[int, Field(ge=1, le=4096)]
Probability = Annotated[float, Field(ge=0, le=1)]
Three = tuple[float, float, float]
# Left, top, right and bottom, as shares of a width and a height.
Box = tuple[float, float, float, float]


class RecipeError(Exception):
    """The recipe can't be used. The message names the key and the value."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Geometry(_Frozen):
    """How a photo is resized to the model's size.

    Attributes:
        width, height: the size of the model's input, in pixels.
        mode: ``crop``: the largest centre rectangle of the model's aspect ratio is cut out and resized. ``stretch``:
            the photo is resized and its aspect ratio ignored. ``pad``: the whole photo is resized to fit, and
            ``pad_color`` fills the rest. ``shortest_edge``: the shorter side is resized to ``shortest_edge``, then the
            centre is cut out.
        crop: for the mode ``crop``: the part of the centre rectangle that is kept; 1.0 keeps all of it.
        resampling: one of ``RESAMPLING``.
        antialias: whether the filter is widened when the photo is reduced. Pillow does so; TensorFlow by default not.
        dtype: ``uint8``: resized values are rounded, as in Pillow. ``float32``: they are not, as in TensorFlow.
        decode: ``fast``: large photos may be decoded at a reduced scale. ``exact``: never.
        grayscale: whether the photo is first converted to grey, with 8 bits, as Pillow's ``convert("L")`` does.
        box: for a second look: the part of the model's input that is shown larger, cut from the photo itself: left,
            top, right and bottom as shares (0 to 1) of the input's width and height. None: all of it.
    """

    width: Side
    height: Side
    mode: Literal["crop", "stretch", "pad", "shortest_edge"] = "stretch"
    crop: float = Field(default=1.0, gt=0, le=1)
    shortest_edge: Side | None = None
    pad_color: tuple[int, int, int] = (0, 0, 0)
    resampling: Resampling = "bilinear"
    antialias: bool = True
    dtype: Literal["uint8", "float32"] = "uint8"
    decode: Literal["exact", "fast"] = "exact"
    grayscale: bool = False
    box: Box | None = None


class Golden(_Frozen):
    """A photo whose answer is known. ``photo``: its file. ``probabilities``: the largest ones, by label."""

    name: str = Field(min_length=1, max_length=100)
    photo: Base64Bytes
    probabilities: dict[str, Probability] = Field(min_length=1)


class SecondLook(_Frozen):
    """When a photo is looked at a second time, where, and how both looks become one answer."""

    max_confidence: Probability = Field(
        description="A second look is taken if the confidence of the first one is lower."
    )
    min_domain_score: Probability = Field(
        default=0.0,
        description="No second look is taken if the `domain_score` of the first one is lower. Without `domain_score` "
        "it has no effect.",
    )
    attention_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="The box is drawn around the places above this share of the attention's maximum.",
    )
    # The photo is decoded with 1 / min_side as many pixels on each side.
    min_side: float = Field(
        default=0.4,
        ge=0.1,
        le=1,
        description="The sides of the box are at least this share of the sides of the model's input.",
    )
    weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Of the second look's log probabilities. Those of the first look have the rest, `1 - weight`.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="The sum is divided by it before the softmax. It calibrates the confidence.",
    )


class _Size(_Frozen):
    height: Side | None = None
    width: Side | None = None
    shortest_edge: Side | None = None


def _per_channel(value: object) -> object:
    return (value,) * 3 if isinstance(value, (int, float)) else value


class PreprocessorConfig(_Frozen):
    """``preprocessor_config.json``: the keys of Hugging Face's image processors, then the keys of this service."""

    do_resize: Literal[True] = True
    do_grayscale: bool = False
    size: _Size
    do_center_crop: bool = False
    crop_size: _Size | None = None
    resample: int = Field(default=2, ge=0, lt=len(RESAMPLING))
    do_rescale: bool = False
    rescale_factor: float = 1 / 255
    do_normalize: bool = False
    image_mean: Three = (0.0, 0.0, 0.0)
    image_std: Three = (1.0, 1.0, 1.0)
    # Keys of this service.
    resize_mode: Literal["crop", "stretch", "pad"] = "stretch"
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    pad_color: tuple[int, int, int] = (0, 0, 0)
    antialias: bool = True
    resize_dtype: Literal["uint8", "float32"] = "uint8"
    decode: Literal["exact", "fast"] = "exact"
    domain_threshold: Probability = 0.0
    second_look: SecondLook | None = None

    _spread = field_validator("image_mean", "image_std", mode="before")(_per_channel)

    @model_validator(mode="before")
    @classmethod
    def _without_ignored_keys(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kept = {key: value for key, value in values.items() if key not in _IGNORED_KEYS and value is not None}
        if isinstance(kept.get("size"), int):
            kept["size"] = {"shortest_edge": kept["size"]}
        if isinstance(kept.get("crop_size"), int):
            kept["crop_size"] = {"height": kept["crop_size"], "width": kept["crop_size"]}
        return kept

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if 0 in self.image_std:
            raise ValueError("image_std must not be 0")
        whole = self.size.height is not None and self.size.width is not None
        if self.size.shortest_edge is None and not whole:
            raise ValueError("size needs height and width, or shortest_edge")
        if self.size.shortest_edge is not None:
            crop = self.crop_size
            if not self.do_center_crop or crop is None or crop.height is None or crop.width is None:
                raise ValueError("size.shortest_edge needs do_center_crop and a crop_size with height and width")
            if max(crop.height, crop.width) > self.size.shortest_edge:
                raise ValueError("crop_size must not be larger than size.shortest_edge")
        elif self.do_center_crop and self.crop_size not in (None, self.size):
            raise ValueError("do_center_crop needs size.shortest_edge, or a crop_size that is equal to size")
        return self

    def geometry(self) -> Geometry:
        edge = self.size.shortest_edge
        target = self.size if edge is None else self.crop_size
        assert target is not None and target.width is not None and target.height is not None
        return Geometry(
            width=target.width,
            height=target.height,
            mode=self.resize_mode if edge is None else "shortest_edge",
            crop=self.crop_pct,
            shortest_edge=edge,
            pad_color=self.pad_color,
            resampling=RESAMPLING[self.resample],
            antialias=self.antialias,
            dtype=self.resize_dtype,
            decode=self.decode,
            grayscale=self.do_grayscale,
        )

    def scaling(self) -> tuple[Three, Three]:
        """Return ``scale`` and ``offset`` for each channel. The model's input is ``pixel * scale + offset``."""
        factor = self.rescale_factor if self.do_rescale else 1.0
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else ((0.0,) * 3, (1.0,) * 3)
        scale = (factor / std[0], factor / std[1], factor / std[2])
        return scale, (-mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2])


class Recipe(_Frozen):
    """The recipe of one model version: preprocessing, labels in the order of the model's outputs, golden photos."""

    preprocessor_config: PreprocessorConfig
    labels: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2)
    golden: tuple[Golden, ...] = ()

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        label, count = Counter(self.labels).most_common(1)[0]
        if count > 1:
            raise ValueError(f"labels must differ from each other; {label!r} is there more than once")
        for golden in self.golden:
            if unknown := sorted(set(golden.probabilities) - set(self.labels)):
                raise ValueError(f"{golden.name} names the label {unknown[0]!r}, which is not in labels")
        return self


def parse_recipe(document: str | bytes | Mapping[str, Any]) -> Recipe:
    """Parse a recipe from its JSON document or from the parsed document.

    Raises:
        RecipeError: it is not JSON, or a key is missing, unknown, or has an invalid value.
    """
    try:
        values = document if isinstance(document, Mapping) else json.loads(document)
        return Recipe.model_validate(values)
    except ValidationError as exc:
        reasons = [f"{'.'.join(map(str, error['loc'])) or 'recipe'}: {error['msg']}" for error in exc.errors()]
        raise RecipeError("; ".join(reasons)) from exc
    except (ValueError, RecursionError) as exc:
        raise RecipeError(f"it is not JSON: {exc}") from exc
