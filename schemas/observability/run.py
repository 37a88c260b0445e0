"""What agents report of a run. One record holds what one request reported.

The run's tenant and id are the envelope's (`observability.run/<run_id>`); the envelope's `time` is
when the report arrived, and stands for whatever has no instant of its own. Reports of one run may
arrive in any order and more than once: each item has an id, unique within its run, and the first
report of an id stands. JSON documents (`inputs`, `metadata` …) are objects as text.

Where a run is for a user, the personal fields are empty and lie in `sealed`, encrypted: see
`schemas.observability.personal`.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.observability.model_cost import PICODOLLARS
from schemas.types import EMPTY_JSON, Json, Micros

# Bounds that keep sums of a billion items within 64 bits, and a cost exact to the picodollar.
Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000)]
# And one that keeps sums of a billion scores, in units of 10^-30, within 256 bits.
ScoreValue = Annotated[float, Meta(ge=-1e30, le=1e30)]


class RunStarted(Struct, frozen=True, tag="observability.run_started.v1", kw_only=True):
    """An agent began a run."""

    agent_name: str
    workflow_name: str
    workflow_id: str
    started_at: Micros
    inputs: Json = EMPTY_JSON
    metadata: Json = EMPTY_JSON
    trace_id: str = ""
    agent_id: str = ""
    user_id: str = ""
    user_group: str = ""
    session_id: str = ""
    parent_workflow_id: str = ""
    root_workflow_id: str = ""
    sealed: bytes = b""


class RunCompleted(Struct, frozen=True, tag="observability.run_completed.v1", kw_only=True):
    """A run ended. `status` is the client's word: success, error, or one of its own. began_at: when
    the run began, where its end is reported with that (a trace's is), 0 where it isn't."""

    status: str
    completed_at: Micros
    result: Json = EMPTY_JSON
    error: str = ""
    metadata: Json = EMPTY_JSON
    sealed: bytes = b""
    began_at: Micros = 0


class LlmCall(Struct, frozen=True, kw_only=True):
    """One call of a language model. `cost` is US dollars as the client gave it, None if it didn't.

    prompt_hash: SHA-256 of the managed prompt's content, when the call used one. called_at: when
    the call began as its reporter says, 0 when it doesn't.
    cost_source: client, override (a price of the tenant's own), default (of the system's table) or
    unpriced; empty where it is older than prices. The rest of these is for calls that were priced:
    cost_pico: what their tokens came to, in whole picodollars. price_in_pico, price_out_pico: for
    one token. price_model: what the price goes by; price_revision: which one of the tenant's it is.
    """

    id: str
    model: str
    tokens_in: Tokens
    tokens_out: Tokens
    cost: Dollars | None = None
    task: str = ""
    prompt_preview: str = ""
    response_preview: str = ""
    prompt_hash: str = ""
    metadata: Json = EMPTY_JSON
    called_at: Micros = 0
    cost_source: str = ""
    cost_pico: int = 0
    price_in_pico: int = 0
    price_out_pico: int = 0
    price_model: str = ""
    price_revision: int = 0

    @property
    def whole_cost_pico(self) -> int:
        """The cost in whole picodollars, whoever gave it."""
        return self.cost_pico if self.cost is None else round(self.cost * PICODOLLARS)


class LlmCallsRecorded(
    Struct, frozen=True, tag="observability.llm_calls_recorded.v1", kw_only=True
):
    """LLM calls of a run."""

    calls: list[LlmCall]
    sealed: bytes = b""


class Step(Struct, frozen=True, kw_only=True):
    """One step of a workflow."""

    id: str
    step_name: str
    output: Json = EMPTY_JSON


class StepsRecorded(Struct, frozen=True, tag="observability.steps_recorded.v1", kw_only=True):
    """Steps of a run, in the order given."""

    steps: list[Step]
    sealed: bytes = b""


class Span(Struct, frozen=True, kw_only=True):
    """A stretch of behaviour: a tool call, a retrieval, a decision, or a kind of the client's own.

    duration_ms: milliseconds, None when unknown. position: the client's place within the run.
    started_at: as its reporter says, 0 when it doesn't.
    """

    id: str
    name: str
    kind: str
    status: str = "ok"
    duration_ms: int | None = None
    position: int | None = None
    attributes: Json = EMPTY_JSON
    input_data: Json = EMPTY_JSON
    output_data: Json = EMPTY_JSON
    started_at: Micros = 0


class SpansRecorded(Struct, frozen=True, tag="observability.spans_recorded.v1", kw_only=True):
    """Behaviour spans of a run."""

    spans: list[Span]
    sealed: bytes = b""


class Score(Struct, frozen=True, kw_only=True):
    """A judgement of a run, or of one of its LLM calls: numeric, categorical or boolean."""

    id: str
    name: str
    data_type: str = "numeric"
    numeric_value: ScoreValue | None = None
    string_value: str | None = None
    comment: str = ""
    metadata: Json = EMPTY_JSON
    llm_call_id: str = ""


class ScoresRecorded(Struct, frozen=True, tag="observability.scores_recorded.v1", kw_only=True):
    """Scores of a run. `source` says who judged: sdk, manual or evaluator."""

    scores: list[Score]
    source: str = "sdk"
    sealed: bytes = b""


RunEvent = (
    RunStarted | RunCompleted | LlmCallsRecorded | StepsRecorded | SpansRecorded | ScoresRecorded
)
STREAM = "observability.run"
ITEMS: dict[type[Struct], str] = {
    LlmCallsRecorded: "calls",
    StepsRecorded: "steps",
    SpansRecorded: "spans",
    ScoresRecorded: "scores",
}
"""The list of items in an event that is one."""
