"""The bodies of all answers of this service."""

from heapq import nlargest
from operator import itemgetter
from typing import Literal

from pydantic import BaseModel, Field

from preprocess_service.app.errors import ServiceError
from preprocess_service.app.recipe import SecondLook
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.translations import Language

# The number of labels in an answer if the client does not set ``top_k``. A model may have thousands.
DEFAULT_TOP_K = 5
# How many rows or columns of a model's attention an answer has. A larger one is reduced.
LONGEST_SIDE = 32


class ModelInUse(BaseModel):
    """The model that answered."""

    name: str = Field(description="The model's folder in `prev_trained_models`.", examples=["CAT-DOG"])
    version: int = Field(description="The version's folder in the model's folder.", examples=[1])


class Part(BaseModel):
    """A part of the upright photo, as shares of its width and height: 0 is the left or top edge, 1 the other one."""

    left: float = Field(description="The left edge.")
    top: float = Field(description="The top edge.")
    right: float = Field(description="The right edge.")
    bottom: float = Field(description="The bottom edge.")


class Explanation(BaseModel):
    """Where the model looked."""

    attention: list[list[float]] = Field(
        description="How much each place looks like what the model knows, 0 to 1, where 1 is the most in this photo; "
        f"row by row, the top one first. It has at most {LONGEST_SIDE} rows and columns.",
        examples=[[[0.02, 0.4], [0.1, 1.0]]],
    )
    image: str = Field(
        description="The same as a small PNG to lay over `region`: a `data:` URL. It is transparent where the values "
        "are low.",
        examples=["data:image/png;base64,iVBORw0KGgo="],
    )
    aspect_ratio: float = Field(description="The width of the upright photo, divided by its height.", gt=0)
    region: Part = Field(
        description="The part of the photo that the first look shows, and that `attention` covers. If the model's "
        "input is padded, it is larger than the photo."
    )
    box: Part | None = Field(
        default=None, description="The part of the photo that the second look shows. Absent if there was only one look."
    )


class PredictSuccess(BaseModel):
    """The prediction for a photo."""

    status: Literal["Success"] = Field(default="Success", description="There is an answer.")
    label: str = Field(description="The most probable label.", examples=["CAT"])
    confidence: float = Field(description="The label's probability, 0 to 1.", ge=0, le=1, examples=[0.998712])
    pet_type: str = Field(description="The same as `label`: the name in the course.", examples=["CAT"])
    model_conf: float = Field(description="`confidence` in percent.", ge=0, le=100, examples=[99.87])
    probabilities: dict[str, float] = Field(
        description=f"The `top_k` most probable labels (default {DEFAULT_TOP_K}) with their probabilities, 0 to 1, "
        "the largest first.",
        examples=[{"CAT": 0.998712, "DOG": 0.001288}],
    )
    in_domain: bool | None = Field(
        None,
        description="False: the photo is probably of nothing that the model knows. Absent if the model can't tell.",
        examples=[True],
    )
    domain_score: float | None = Field(
        None,
        description="How certain the model is that the photo shows something that it knows, 0 to 1.",
        ge=0,
        le=1,
        examples=[0.98],
    )
    looks: Literal[1, 2] = Field(
        description="How often the photo was looked at. 2: the model was not sure, so it looked a second time where it "
        "sees what it knows.",
        examples=[1],
    )
    explanation: Explanation | None = Field(
        default=None, description="Where the model looked; only if `explain` asks for it."
    )
    model: ModelInUse = Field(description="The model that answered.")
    request_id: str = Field(description="The same as in the header X-Request-ID.")


class Failure(BaseModel):
    """An error."""

    status: Literal["Failed"] = Field(default="Failed", description="There is no prediction.")
    msg: str = Field(description="The cause and what to do, in the language of Accept-Language (en, pt).")
    code: str = Field(description="The error's code for programs.", examples=["invalid_base64"])
    request_id: str = Field(description="The same as in the header X-Request-ID.")


class PredictBatchAnswer(BaseModel):
    """A prediction or an error for each photo, in the order of the request."""

    status: Literal["Success"] = Field(
        default="Success", description="The batch was read; each photo has a status of its own."
    )
    predictions: list[PredictSuccess | Failure] = Field(description="One for each photo.")


class Health(BaseModel):
    """The result of each check by its name."""

    ok: list[str] = Field(description="The names of the checks that passed.", examples=[["model", "prediction"]])
    failing: dict[str, str] = Field(description="The name of each failed check, with the reason.")
    warnings: dict[str, str] | None = Field(
        None, description="Problems although photos are answered: why a newer version is not used."
    )


class ModelState(BaseModel):
    """A model that this service serves."""

    name: str = Field(description="Its name in `/models/NAME/predict`.", examples=["CAT-DOG"])
    version: int | None = Field(default=None, description="The version in use; absent if there is none.", examples=[1])
    msg: str | None = Field(default=None, description="Why no version is in use, in the language of Accept-Language.")


class ModelList(BaseModel):
    """The models that this service serves."""

    models: list[ModelState] = Field(description="The first one answers `/predict`.")


class Preprocessing(BaseModel):
    """How a photo becomes the model's input. docs/models.md explains each field."""

    width: int = Field(description="The width of the model's input in pixels.")
    height: int = Field(description="The height of the model's input in pixels.")
    mode: str = Field(
        description="How the photo gets the input's aspect ratio: `crop`, `stretch`, `pad` or `shortest_edge`.",
        examples=["crop"],
    )
    crop: float = Field(description="For the mode `crop`: the part of the centre that is kept.")
    shortest_edge: int | None = Field(description="For the mode `shortest_edge`: the shorter side in pixels.")
    resampling: str = Field(description="The filter that resizes the photo.", examples=["bilinear"])
    antialias: bool = Field(description="Whether the filter is widened when the photo is reduced.")
    grayscale: bool = Field(description="Whether the photo is first converted to grey.")
    decode: str = Field(description="`fast`: large photos may be decoded at a reduced scale.", examples=["exact"])
    scale: tuple[float, float, float] = Field(description="For float32 inputs: pixel * scale + offset, per channel.")
    offset: tuple[float, float, float] = Field(description="What is added after `scale`, per channel.")


class ModelDescription(BaseModel):
    """The model in use, with its inputs and outputs."""

    name: str = Field(description="The model's folder in `prev_trained_models`.", examples=["CAT-DOG"])
    version: int = Field(description="The version in use.", examples=[1])
    labels: tuple[str, ...] = Field(description="In the order of the model's output.", examples=[["CAT", "DOG"]])
    signature_name: str = Field(description="The signature that is called.", examples=["pixels"])
    input_name: str = Field(description="The name of the signature's input.")
    input_shape: list[int] = Field(description="Height, width, channels.", min_length=3, max_length=3)
    output_name: str = Field(description="The name of the signature's output.")
    domain_threshold: float | None = Field(
        description="With a lower `domain_score`, `in_domain` is false; null if the model has no such output."
    )
    attention: bool = Field(description="Whether the model tells where it looked: whether `explain` has an answer.")
    second_look: SecondLook | None = Field(
        description="When a photo is looked at a second time, and how both looks become one answer; null if none is."
    )
    preprocessing: Preprocessing = Field(description="How a photo becomes the model's input.")
    golden: list[str] = Field(
        description="The names of the version's golden photos, for `/model/golden/NAME`, without generated ones.",
        examples=[["cat_2.jpg"]],
    )


def success(prediction: Prediction, model_name: str, top_k: int | None, request_id: str) -> PredictSuccess:
    """Return the answer, with ``top_k`` labels, or all if there are fewer."""
    score = prediction.domain_score
    found = prediction.probabilities
    # For equal probabilities the first label comes first.
    largest = nlargest(top_k or DEFAULT_TOP_K, found.items(), itemgetter(1))
    label, confidence = largest[0]
    return PredictSuccess(
        label=label,
        confidence=round(confidence, 6),
        pet_type=label,
        model_conf=round(100 * confidence, 2),
        probabilities={label: round(value, 6) for label, value in largest},
        in_domain=None if score is None else score >= prediction.domain_threshold,
        domain_score=None if score is None else round(score, 6),
        looks=2 if prediction.looks == 2 else 1,
        model=ModelInUse(name=model_name, version=prediction.model_version),
        request_id=request_id,
    )


def failure(error: ServiceError, language: Language, request_id: str) -> Failure:
    return Failure.model_validate(error.body(language, request_id))
