"""Models that answer encrypted questions: `/api/v1/models` and `/api/v1/compute/models/{id}`."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from api.fhe.compute import compute_route
from api.fhe.operands import Intake, OperandBody
from api.fhe.submission import ComputeQuery, Taken, json_of, submit
from api.problems import FHE, not_found
from api.routing import Answer, Call, Route, Who
from commands.fhe.operations import ModelArguments
from schemas.fhe.linear import fast_step
from schemas.fhe.models import MODELS, Model
from schemas.fhe.parameters import CKKS_SETS
from schemas.types import Text


class InputItem(Struct, frozen=True):
    """A value that the model takes; what is scaled to -1 and 1 first, if anything is."""

    name: str
    range: tuple[float, float] | None


class ModelItem(Struct, frozen=True):
    """A model. `accuracy`: the share of cases that it was not fitted to and gets right.

    period: inputs, filled up with zeros to so many, are repeated over all slots; so are outputs.
    sigmoid: constant, slope and the factor of the cube of what each output goes through.
    params_ids: sets of keys that it runs under. relin: whether the key needs that part. rotations:
    what the rotation part must have, and what makes it fast.
    """

    model_id: str
    name: str
    description: str
    accuracy: float
    inputs: list[InputItem]
    outputs: list[str]
    period: int
    weights: list[list[float]]
    biases: list[float]
    sigmoid: tuple[float, float, float] | None
    levels: int
    params_ids: list[str]
    relin: bool
    rotations: list[int]


class ModelList(Struct, frozen=True):
    """All models."""

    data: list[ModelItem]


class ModelBody(Struct):
    """The encrypted inputs, under one evaluation key."""

    key_id: Annotated[Text, Meta(max_length=64)]
    inputs: OperandBody


async def list_models(call: Call[None, None]) -> ModelList:
    """Every model that runs on encrypted inputs."""
    return ModelList([_item(model) for model in MODELS.values()])


async def infer(call: Call[ModelBody, ComputeQuery]) -> Answer:
    """Run a model on encrypted inputs."""
    model_id, body = call.path["model_id"], call.body
    if model_id not in MODELS:
        not_found("No such model")

    async def take(intake: Intake) -> Taken:
        inputs = [await intake.take(body.inputs, "model", "inputs")]
        return Taken(inputs, json_of(ModelArguments(model_id)))

    return await submit(call, body.key_id, "model", take)


def _item(model: Model) -> ModelItem:
    ranges: Sequence[tuple[float, float] | None] = model.input_ranges or [None] * len(
        model.input_names
    )
    params_ids = [name for name, params in CKKS_SETS.items() if params.depth >= model.levels]
    return ModelItem(
        model_id=model.model_id,
        name=model.name,
        description=model.description,
        accuracy=model.accuracy,
        inputs=[InputItem(*item) for item in zip(model.input_names, ranges, strict=True)],
        outputs=model.output_names,
        period=model.size,
        weights=model.weights,
        biases=model.biases,
        sigmoid=model.sigmoid,
        levels=model.levels,
        params_ids=params_ids,
        relin=model.sigmoid is not None,
        rotations=[1, fast_step(model.size)],
    )


ROUTES = [
    Route(
        "GET",
        "/api/v1/models",
        list_models,
        dialect=FHE,
        who=Who.PUBLIC,
        tags=("models",),
        summary="List the models that run on encrypted inputs",
        response=ModelList,
    ),
    compute_route(
        "models/{model_id}",
        infer,
        "Run a model on encrypted inputs",
        "The inputs, filled up with zeros to the model's period, are repeated over all slots.",
        ModelBody,
    ),
]
