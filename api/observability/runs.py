"""Reports of runs: validated, appended to the log, acknowledged. No database is on this path.

A run id proves itself: it carries a MAC bound to the tenant, so a run that was never issued, or is
another tenant's, is a 404 without a look-up.
"""

from typing import Any

from api.observability.bodies import (
    CompleteRun,
    Counted,
    Done,
    LlmCallsBody,
    Recorded,
    ScoresBody,
    SpansBody,
    StartedRun,
    StartRun,
    StepBody,
    StepsBody,
    object_text,
    with_unlisted,
)
from api.observability.pricing import pricing_of
from api.observability.reporting import MAX_BODY, append, own_run, person_named
from api.problems import OBSERVE
from api.roles import BUILDERS
from api.routing import Call, Route, Who
from infra.clock import iso
from schemas.observability.run import (
    LlmCall,
    LlmCallsRecorded,
    RunCompleted,
    RunEvent,
    RunStarted,
    Score,
    ScoresRecorded,
    Span,
    SpansRecorded,
    Step,
    StepsRecorded,
)
from streams.telemetry import item_id


async def start_run(call: Call[StartRun, None]) -> StartedRun:
    """The run's id is the request's: one that is known to be a repeat starts the same run.

    It says which person the run is for, so that every report of it is sealed.
    """
    body, signer = call.body, call.services.signer
    person = await person_named(call, body.user_id or "")
    if call.fingerprint:
        run_id = signer.run_id_for(call.tenant, call.command_id, person)
    else:
        run_id = signer.run_id(call.tenant, call.command_id, person)
    now = call.services.clock.now()
    workflow_id = f"wf_{run_id[4:30]}"
    event = RunStarted(
        agent_name=body.agent_name,
        workflow_name=body.workflow_name or "default",
        workflow_id=workflow_id,
        started_at=now,
        inputs=object_text(body.inputs, "inputs"),
        metadata=with_unlisted(object_text(body.metadata, "metadata"), call.content, StartRun),
        trace_id=body.trace_id or "",
        agent_id=body.agent_id or "",
        user_id=body.user_id or "",
        user_group=body.user_group or "",
        session_id=body.session_id or "",
        parent_workflow_id=body.parent_workflow_id or "",
        root_workflow_id=body.root_workflow_id or "",
    )
    await append(call, run_id, event)
    return StartedRun(run_id, workflow_id, iso(now))


async def complete_run(call: Call[CompleteRun, None]) -> Done:
    """The completion goes last, behind the steps that come with it."""
    run_id, body = own_run(call, call.path["run_id"]), call.body
    completed = RunCompleted(
        status=body.status or "success",
        completed_at=call.services.clock.now(),
        result=object_text(body.result, "result"),
        error=body.error or "",
        metadata=with_unlisted("{}", call.content, CompleteRun),
    )
    events: list[RunEvent] = [completed]
    if body.steps:
        events.insert(0, _steps(call, body.steps))
    await append(call, run_id, *events)
    return Done()


async def record_llm_calls(call: Call[LlmCallsBody, None]) -> Counted:
    """A call without a cost is priced here, from memory, at what its tokens cost the tenant now."""
    run_id, request = own_run(call, call.path["run_id"]), call.command_id
    pricing = await pricing_of(call, call.body.calls)
    calls = [
        LlmCall(
            id=item.id or item_id("call", request, index),
            model=item.model,
            tokens_in=item.tokens_in or 0,
            tokens_out=item.tokens_out or 0,
            cost=item.cost,
            task=item.task or "",
            prompt_preview=item.prompt_preview or "",
            response_preview=item.response_preview or "",
            prompt_hash=item.prompt_hash or "",
            metadata=object_text(item.metadata, f"calls[{index}].metadata"),
            **pricing(item),
        )
        for index, item in enumerate(call.body.calls)
    ]
    if calls:
        await append(call, run_id, LlmCallsRecorded(calls=calls))
    return Counted(len(calls))


async def record_steps(call: Call[StepsBody, None]) -> Counted:
    run_id, steps = own_run(call, call.path["run_id"]), call.body.steps
    if steps:
        await append(call, run_id, _steps(call, steps))
    return Counted(len(steps))


async def record_spans(call: Call[SpansBody, None]) -> Counted:
    run_id, request = own_run(call, call.path["run_id"]), call.command_id
    spans = [
        Span(
            id=item.id or item_id("span", request, index),
            name=item.name,
            kind=item.kind,
            status=item.status or "ok",
            duration_ms=None if item.duration_ms is None else round(item.duration_ms),
            position=item.position,
            attributes=object_text(item.attributes, f"spans[{index}].attributes"),
            input_data=object_text(item.input_data, f"spans[{index}].input_data"),
            output_data=object_text(item.output_data, f"spans[{index}].output_data"),
        )
        for index, item in enumerate(call.body.spans)
    ]
    if spans:
        await append(call, run_id, SpansRecorded(spans=spans))
    return Counted(len(spans))


async def record_scores(call: Call[ScoresBody, None]) -> Recorded:
    run_id, request = own_run(call, call.path["run_id"]), call.command_id
    scores = [
        Score(
            id=item.id or item_id("score", request, index),
            name=item.name,
            data_type=item.data_type,
            numeric_value=item.numeric_value,
            string_value=item.string_value,
            comment=item.comment or "",
        )
        for index, item in enumerate(call.body.scores)
    ]
    if scores:
        await append(call, run_id, ScoresRecorded(scores=scores))
    return Recorded(len(scores))


def _steps(call: Call[Any, None], steps: list[StepBody]) -> StepsRecorded:
    return StepsRecorded(
        steps=[
            Step(
                id=step.id or item_id("step", call.command_id, index),
                step_name=step.step_name,
                output=object_text(step.output, f"steps[{index}].output"),
            )
            for index, step in enumerate(steps)
        ]
    )


def _report(path: str, handler: Any, body: Any, response: Any, summary: str) -> Route:
    """A route of this group: they differ in nothing else."""
    return Route(
        "POST",
        f"/api/v1/observe/runs/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=BUILDERS,
        body=body,
        response=response,
        tags=("runs",),
        summary=summary,
        refusals=(404,) if "{" in path else (),
        max_body=MAX_BODY,
        lenient=True,
        repeats=True,
        quiet=True,
    )


ROUTES = [
    _report("start/", start_run, StartRun, StartedRun, "Start a run"),
    _report("{run_id}/complete/", complete_run, CompleteRun, Done, "Complete a run"),
    _report("{run_id}/llm-calls/", record_llm_calls, LlmCallsBody, Counted, "Record LLM calls"),
    _report("{run_id}/steps/", record_steps, StepsBody, Counted, "Record steps"),
    _report("{run_id}/spans/", record_spans, SpansBody, Counted, "Record behaviour spans"),
    _report("{run_id}/scores/", record_scores, ScoresBody, Recorded, "Record scores"),
]
