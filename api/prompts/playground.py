"""Prompts tried on a model: `/api/v1/prompts/playground`.

Each try is a run of the agent `playground`, as any other on the log: its start goes before the
question, so that nothing is asked which cannot be recorded; the call of the model and the end come
after the answer.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from api.observability.bodies import JsonObject, LlmCallBody, Name, object_text
from api.observability.llm_calls import dollars
from api.observability.otlp.contents import preview, prompt_preview
from api.observability.pricing import pricing_of
from api.observability.reporting import person_named, seal_of
from api.problems import Problem
from api.prompts.bodies import MAX_BODY, AnyJson, content_of
from api.prompts.declaring import PROMPTS, write_route
from api.prompts.provider import provider_of
from api.routing import Call
from commands.prompts.template import (
    MessagesTooLarge,
    NotMessages,
    ValuesMissing,
    messages_of,
)
from infra.completions import (
    Completion,
    CompletionFailed,
    Provider,
    Question,
    TooManyAtOnce,
)
from infra.ids import new_id
from schemas.envelope import Position
from schemas.observability.run import (
    LlmCall,
    LlmCallsRecorded,
    RunCompleted,
    RunEvent,
    RunStarted,
)
from streams.telemetry import Origin, Telemetry

AGENT = "playground"
VARIANTS_MAX = 10
MODEL, TEMPERATURE, MAX_TOKENS = "gpt-4o-mini", 0.7, 1024


class PlaygroundConfig(Struct):
    """What is left out, or null, has the default."""

    model: Name | None = MODEL
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = TEMPERATURE
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = MAX_TOKENS


class PlaygroundBody(Struct):
    """A content, a text or a list of messages, and the values of its `{{placeholders}}`."""

    content: AnyJson
    config: PlaygroundConfig | None = None
    variables: JsonObject = field(default_factory=Raw)


class CompareBody(Struct):
    """What to try side by side."""

    variants: Annotated[list[PlaygroundBody], Meta(min_length=1, max_length=VARIANTS_MAX)]


class PlaygroundAnswer(Struct, kw_only=True):
    """What the model said, and what it took. cost: US dollars, 0 where the model has no price."""

    output: str
    model: str
    tokens_in: int
    tokens_out: int
    cost: float
    latency_ms: int


class VariantAnswer(PlaygroundAnswer, kw_only=True):
    """`error` is there if the variant failed: why. Its output is empty then, the counts are 0."""

    error: str | UnsetType = UNSET


class Comparison(Struct):
    """One for each variant, in their order."""

    results: list[VariantAnswer]


class _Try(Struct):
    """A question with the hash of the content that it was made of."""

    question: Question
    prompt_hash: str


class _Outcome(Struct):
    """What came of a try; position: of the end of its run."""

    answer: VariantAnswer
    position: Position


async def run_prompt(call: Call[PlaygroundBody, None]) -> PlaygroundAnswer:
    """Try one prompt. A provider that fails is a 502 with its own words."""
    tried = _try(call.body, "")
    provider = await provider_of(call)
    with _room(call, 1):
        outcome = await _tried(call, provider, tried, "run")
    call.position(outcome.position)
    if outcome.answer.error is not UNSET:
        raise Problem(502, "provider_failed", outcome.answer.error)
    return outcome.answer


async def compare_prompts(call: Call[CompareBody, None]) -> Comparison:
    """Try several at once. Each has its own result: one that fails takes no other with it."""
    tries = [
        _try(variant, f"variants[{index}].") for index, variant in enumerate(call.body.variants)
    ]
    provider = await provider_of(call)
    with _room(call, len(tries)):
        done = await asyncio.gather(
            *(_tried(call, provider, tried, "compare") for tried in tries),
            return_exceptions=True,
        )
    outcomes = [_kept(item) for item in done]
    if len({outcome.position.partition for outcome in outcomes}) == 1:
        # One position can't stand for several partitions.
        call.position(max(outcome.position for outcome in outcomes))
    return Comparison([outcome.answer for outcome in outcomes])


def _kept(done: "_Outcome | BaseException") -> _Outcome:
    if isinstance(done, BaseException):
        raise done
    return done


def _try(body: PlaygroundBody, place: str) -> _Try:
    """What to ask. Raises Problem that names the field behind `place`."""
    content = content_of(body.content, f"{place}content")
    values = _values(object_text(body.variables, f"{place}variables"))
    try:
        messages = messages_of(json.loads(content.text), values)
    except ValuesMissing as error:
        message = f"No value is given for {error}"
        raise Problem(400, "validation_error", message, field=f"{place}variables") from None
    except NotMessages as error:
        raise Problem(400, "validation_error", str(error), field=f"{place}content") from None
    except MessagesTooLarge as error:
        raise Problem(413, "payload_too_large", str(error), field=f"{place}content") from None
    config = body.config or PlaygroundConfig()
    question = Question(
        model=config.model or MODEL,
        messages=messages,
        temperature=TEMPERATURE if config.temperature is None else config.temperature,
        max_tokens=config.max_tokens or MAX_TOKENS,
    )
    return _Try(question, content.hash)


def _values(variables: str) -> dict[str, str]:
    """What placeholders are replaced by: a text as it is, any other value as its JSON came."""
    given = msgspec.json.decode(variables, type=dict[str, Raw])
    return {name: _written(bytes(raw)) for name, raw in given.items()}


def _written(value: bytes) -> str:
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()


@contextlib.contextmanager
def _room(call: Call[Any, Any], calls: int) -> Iterator[None]:
    try:
        with call.services.completions.reserved(call.tenant, calls):
            yield
    except TooManyAtOnce as error:
        raise Problem(
            503,
            "too_many_calls",
            f"Too many prompts are being tried; try again in {error.retry_after} s",
            headers={"retry-after": str(error.retry_after)},
        ) from None


async def _tried(call: Call[Any, Any], provider: Provider, tried: _Try, workflow: str) -> _Outcome:
    """Ask the model, and record it as a run. Raises LogUnavailable."""
    services, question = call.services, tried.question
    user_id = call.actor.id if call.actor.kind == "user" else ""
    run_id = services.signer.run_id(call.tenant, person=await person_named(call, user_id))
    started = RunStarted(
        agent_name=AGENT,
        workflow_name=workflow,
        workflow_id=f"wf_{run_id[4:30]}",
        started_at=services.clock.now(),
        user_id=user_id,
    )
    await _record(call, run_id, [started])
    try:
        completion = await services.completions.complete(provider, question)
    except CompletionFailed as failure:
        error = str(failure)
        ended = RunCompleted(status="error", completed_at=services.clock.now(), error=error)
        position = await _record(call, run_id, [ended])
        return _Outcome(_answer(question, error=error, latency_ms=failure.latency_ms), position)
    made = await _llm_call(call, tried, completion)
    ended = RunCompleted(status="success", completed_at=services.clock.now())
    position = await _record(call, run_id, [LlmCallsRecorded(calls=[made]), ended])
    answer = _answer(
        question,
        output=completion.output,
        tokens_in=made.tokens_in,
        tokens_out=made.tokens_out,
        cost=dollars(made.whole_cost_pico),
        latency_ms=completion.latency_ms,
    )
    return _Outcome(answer, position)


async def _llm_call(call: Call[Any, Any], tried: _Try, completion: Completion) -> LlmCall:
    """The call as it is recorded, priced as any that comes in without a cost."""
    question = tried.question
    reported = LlmCallBody(question.model, completion.tokens_in, completion.tokens_out)
    pricing = await pricing_of(call, [reported])
    facts = {
        "temperature": question.temperature,
        "max_tokens": question.max_tokens,
        "latency_ms": completion.latency_ms,
        "served_model": completion.model,
        "finish_reason": completion.finish_reason,
    }
    return LlmCall(
        id=new_id("call"),
        model=question.model,
        tokens_in=completion.tokens_in,
        tokens_out=completion.tokens_out,
        task=AGENT,
        prompt_preview=prompt_preview({"messages": question.messages}),
        response_preview=preview(completion.output),
        prompt_hash=tried.prompt_hash,
        metadata=msgspec.json.encode(facts).decode(),
        **pricing(reported),
    )


async def _record(call: Call[Any, Any], run_id: str, events: Sequence[RunEvent]) -> Position:
    """Append to the log. Each time is one of its own: a repeated request asks the model again, and
    both calls count."""
    origin = Origin(call.tenant, call.actor, new_id("cmd"), call.request_id)
    telemetry = Telemetry(call.services.log, call.services.clock)
    return await telemetry.record(origin, run_id, events, seal=await seal_of(call, run_id))


def _answer(question: Question, *, latency_ms: int, **found: Any) -> VariantAnswer:
    nothing = {"output": "", "tokens_in": 0, "tokens_out": 0, "cost": 0.0}
    return VariantAnswer(model=question.model, latency_ms=latency_ms, **{**nothing, **found})


_TRIED = (
    "Each `{{name}}` in the content needs a value in `variables`. Every call of a model is a run "
    "of the agent `playground`, priced as any other call. An `Idempotency-Key` keeps nothing: the "
    "same request again asks the model again."
)

ROUTES = [
    write_route(
        "POST",
        f"{PROMPTS}playground/",
        run_prompt,
        summary="Try a prompt on a model",
        body=PlaygroundBody,
        response=PlaygroundAnswer,
        refusals=(502,),
        max_body=MAX_BODY,
        description=f"{_TRIED} A provider that fails, or gives no answer in two minutes, is a 502 "
        "with what it said.",
    ),
    write_route(
        "POST",
        f"{PROMPTS}playground/compare/",
        compare_prompts,
        summary="Try several prompts side by side",
        body=CompareBody,
        response=Comparison,
        max_body=MAX_BODY,
        description=f"{_TRIED} The variants are tried at the same time. One that fails has an "
        "`error` in its result, and the others have theirs.",
    ),
]
