"""What clients of the Observe API send and are answered.

Optional fields may be null, which is the same as leaving them out; so is a token count of null,
which is what `NaN` is read as. Fields that are objects are kept as the text that came.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

from api.problems import Problem
from schemas.observability.run import Dollars, ScoreValue, Tokens
from schemas.types import EMPTY_JSON, Int64

Name = Annotated[str, Meta(min_length=1, max_length=500)]
Label = Annotated[str, Meta(max_length=500)]
ItemId = Annotated[str, Meta(min_length=1, max_length=128)]
DataType = Literal["numeric", "categorical", "boolean"]
ScoreText = Annotated[str, Meta(max_length=10_000)]
Milliseconds = Annotated[float, Meta(ge=-(2.0**53), le=2.0**53)]
JsonObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]


class StartRun(Struct):
    """A run begins. Fields that are not listed are kept in its metadata."""

    agent_name: Name
    workflow_name: Label | None = "default"
    inputs: JsonObject = field(default_factory=Raw)
    metadata: JsonObject = field(default_factory=Raw)
    trace_id: Label | None = ""
    agent_id: Label | None = ""
    user_id: Label | None = ""
    user_group: Label | None = ""
    session_id: Label | None = ""
    parent_workflow_id: Label | None = ""
    root_workflow_id: Label | None = ""


class StartedRun(Struct):
    run_id: str
    workflow_id: str
    started_at: str


class StepBody(Struct):
    step_name: Name
    output: JsonObject = field(default_factory=Raw)
    id: ItemId | None = None


class CompleteRun(Struct):
    """A run ends. Fields that are not listed are kept in the completion's metadata."""

    result: JsonObject = field(default_factory=Raw)
    status: Label | None = "success"
    error: str | None = ""
    steps: list[StepBody] | None = None


class LlmCallBody(Struct):
    model: Name
    tokens_in: Tokens | None
    tokens_out: Tokens | None
    cost: Dollars | None = None
    task: Label | None = ""
    prompt_preview: str | None = ""
    response_preview: str | None = ""
    prompt_hash: Label | None = ""
    metadata: JsonObject = field(default_factory=Raw)
    id: ItemId | None = None


class LlmCallsBody(Struct):
    calls: list[LlmCallBody]


class StepsBody(Struct):
    steps: list[StepBody]


class SpanBody(Struct):
    """`kind` and `status` are kept as they come, also those that the document doesn't list. A
    fraction of a millisecond is rounded."""

    name: Name
    kind: Name
    status: Label | None = "ok"
    duration_ms: Milliseconds | None = None
    position: Int64 | None = None
    attributes: JsonObject = field(default_factory=Raw)
    input_data: JsonObject = field(default_factory=Raw)
    output_data: JsonObject = field(default_factory=Raw)
    id: ItemId | None = None


class SpansBody(Struct):
    spans: list[SpanBody]


class ScoreBody(Struct):
    name: Name
    data_type: DataType = "numeric"
    numeric_value: ScoreValue | None = None
    string_value: ScoreText | None = None
    comment: str | None = ""
    id: ItemId | None = None


class ScoresBody(Struct):
    scores: list[ScoreBody]


class Done(Struct):
    status: str = "ok"


class Counted(Struct):
    count: int
    status: str = "ok"


class Recorded(Struct):
    recorded: int


def object_text(value: Raw, place: str) -> str:
    """The text of a JSON object; null and nothing are an empty one. Raises Problem naming `place`.

    Every JSON value is at least one byte, so no bytes are a field that was left out.
    """
    data = bytes(value)
    if data[:1] == b"{":
        return data.decode()
    if data in (b"", b"null"):
        return EMPTY_JSON
    raise Problem(400, "validation_error", "Expected `object`", field=place)


def with_unlisted(metadata: str, content: bytes, body: type[Struct]) -> str:
    """`metadata` and the fields of a request that its struct doesn't list; the listed win."""
    given: Mapping[str, Any]
    if not content.strip():
        return metadata
    try:
        given = msgspec.json.decode(content, type=dict[str, Raw])
    except msgspec.DecodeError:
        # NaN somewhere, which the decoder of the body has read as null.
        plain = msgspec.json.encode(json.loads(content))
        given = msgspec.json.decode(plain, type=dict[str, Raw])
    unlisted = {name: given[name] for name in given if name not in body.__struct_fields__}
    if not unlisted:
        return metadata
    own = msgspec.json.decode(metadata, type=dict[str, Raw])
    return msgspec.json.encode({**unlisted, **own}).decode()
