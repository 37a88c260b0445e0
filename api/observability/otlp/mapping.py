"""Spans to events: a trace is a run, its root begins and ends it, a call of a model is an LLM call.

The same span makes the same items, with ids of the trace's and the span's, so that a batch sent
again counts once; what comes of one trace in many batches, from many processes, is one run.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from api.observability.otlp import conventions
from api.observability.otlp.contents import input_of, output_of, preview, prompt_preview
from api.observability.otlp.conventions import first
from api.observability.otlp.reported import Attributes, ReportedSpan
from schemas.observability.run import (
    LlmCall,
    LlmCallsRecorded,
    RunCompleted,
    RunEvent,
    RunStarted,
    Span,
    SpansRecorded,
)
from schemas.types import EMPTY_JSON

ITEM_MAX = 700_000
"""Bytes of a span's documents: what a record holds, and room for the rest of the item."""
_COPY_MAX = 300_000  # bytes of a document that the run shows too, of which the span has it anyway
_LABEL_MAX = 500
_MESSAGE_MAX = 10_000
_TOKENS_MAX = 1_000_000_000_000
_DOLLARS_MAX = 1_000_000
_LATEST = 7_258_118_400_000_000  # the year 2200: a clock that says so is wrong, the time unknown


class Rejected(Exception):
    """A span that can't be taken, and why."""


class Run(Struct):
    """What one request tells of one trace. user_id: the first that one of its spans names."""

    trace_id: str
    user_id: str = ""
    started: RunStarted | None = None
    completed: RunCompleted | None = None
    calls: list[LlmCall] = []
    spans: list[Span] = []

    def events(self) -> list[RunEvent]:
        """One event of each kind at most, the end last."""
        found: list[RunEvent] = []
        if self.started is not None:
            found.append(self.started)
        if self.calls:
            found.append(LlmCallsRecorded(calls=self.calls))
        found.append(SpansRecorded(spans=self.spans))
        if self.completed is not None:
            found.append(self.completed)
        return found


def take(span: ReportedSpan, runs: dict[str, Run], now: int) -> None:
    """Add a span to its run; `now` stands for times that nobody knows. Raises Rejected."""
    if not span.trace_id:
        raise Rejected("the trace id is not 16 bytes other than zeros")
    if not span.span_id:
        raise Rejected(f"a span id of trace {span.trace_id} is not 8 bytes other than zeros")
    if span.parent_id is None:
        raise Rejected(f"the parent id of span {span.span_id} is not 8 bytes")
    given, came = input_of(span), output_of(span)
    made = _span(span, _text(given), _text(came))
    size = sum(map(_size, (made.attributes, made.input_data, made.output_data)))
    if size > ITEM_MAX:
        raise Rejected(
            f"span {span.span_id} has {size} bytes of attributes, at most {ITEM_MAX} fit"
        )
    run = runs.setdefault(span.trace_id, Run(span.trace_id))
    run.spans.append(made)
    run.user_id = run.user_id or _label(span.attributes, conventions.USER_ID)
    if made.kind in conventions.LLM_CALLS:
        run.calls.append(_call(span, made.kind, prompt_preview(given), preview(came)))
    if not span.parent_id and run.started is None:
        run.started = _started(span, made.input_data, now)
        run.completed = _completed(span, made.output_data, now)


def _span(span: ReportedSpan, input_data: str, output_data: str) -> Span:
    known = 0 < span.started_at <= span.ended_at
    return Span(
        id=f"span_{span.trace_id}{span.span_id}",
        name=span.name[:_LABEL_MAX] or "unnamed",
        kind=conventions.kind_of(span.attributes, span.kind),
        status="error" if span.status == conventions.ERROR else "ok",
        duration_ms=(span.ended_at - span.started_at) // 1_000_000 if known else None,
        attributes=_text(dict(_attributes(span))),
        input_data=input_data,
        output_data=output_data,
        started_at=_micros(span.started_at or span.ended_at),
    )


def _attributes(span: ReportedSpan) -> Iterator[tuple[str, Any]]:
    """The span's own without what is kept as input and output, then what else is known of it."""
    for name, value in span.attributes.items():
        if name not in conventions.CONTENTS and not conventions.CONTENT_PART.match(name):
            yield name, value
    yield "otel.trace_id", span.trace_id
    yield "otel.span_id", span.span_id
    if span.parent_id:
        yield "otel.parent_span_id", span.parent_id
    if span.origin.scope:
        yield "otel.scope.name", span.origin.scope
    service = span.origin.resource.get(conventions.SERVICE_NAME)
    if service is not None:
        yield conventions.SERVICE_NAME, service
    if span.message:
        yield "otel.status_description", span.message
    events = [
        {"name": event.name, "time_unix_nano": event.at, "attributes": event.attributes}
        for event in span.events
        if not _holds_contents(event.name)
    ]
    if events:
        yield "otel.events", events


def _holds_contents(event: str) -> bool:
    return event in conventions.INPUT_EVENTS or event in (
        conventions.DETAILS_EVENT,
        conventions.OUTPUT_EVENT,
        conventions.WHOLE_INPUT_EVENT[0],
        conventions.WHOLE_OUTPUT_EVENT[0],
    )


def _call(span: ReportedSpan, kind: str, prompt: str, response: str) -> LlmCall:
    own = span.attributes
    facts = {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "provider": _label(own, conventions.PROVIDER),
        "status": "error" if span.status == conventions.ERROR else "ok",
        "error": _error(span),
    }
    return LlmCall(
        id=f"call_{span.trace_id}{span.span_id}",
        model=_label(own, conventions.MODEL) or "unknown",
        tokens_in=_tokens(first(own, conventions.TOKENS_IN)),
        tokens_out=_tokens(first(own, conventions.TOKENS_OUT)),
        cost=_dollars(first(own, conventions.COST)),
        task=_label(own, conventions.TASK) or kind,
        prompt_preview=prompt,
        response_preview=response,
        metadata=_text({name: value for name, value in facts.items() if value}),
        called_at=_micros(span.started_at or span.ended_at),
    )


def _started(span: ReportedSpan, inputs: str, now: int) -> RunStarted:
    own, resource = span.attributes, span.origin.resource
    service = _label(resource, (conventions.SERVICE_NAME,))
    if service.startswith("unknown_service"):
        service = ""  # what an SDK says when nobody has told it
    name = span.name[:_LABEL_MAX]
    return RunStarted(
        agent_name=_label(own, conventions.AGENT_NAME) or service or name or "unnamed",
        workflow_name=_label(own, conventions.WORKFLOW_NAME) or name or "default",
        workflow_id=f"wf_{span.trace_id}",
        started_at=_began(span, now),
        inputs=_copy(inputs),
        metadata=_copy(_text({"resource": resource, "scope": span.origin.scope})),
        trace_id=span.trace_id,
        agent_id=_label(own, conventions.AGENT_ID),
        user_id=_label(own, conventions.USER_ID),
        session_id=_label(own, conventions.SESSION_ID),
    )


def _completed(span: ReportedSpan, result: str, now: int) -> RunCompleted:
    failed = span.status == conventions.ERROR
    return RunCompleted(
        status="error" if failed else "success",
        completed_at=_micros(span.ended_at or span.started_at) or now,
        result=_copy(result),
        error=_error(span) if failed else "",
        began_at=_began(span, now),
    )


def _began(span: ReportedSpan, now: int) -> int:
    """When the run of a root span began, microseconds."""
    return _micros(span.started_at or span.ended_at) or now


def _error(span: ReportedSpan) -> str:
    """What is told of an error: the status's message, else the exception's."""
    if span.status != conventions.ERROR:
        return ""
    if span.message:
        return span.message[:_MESSAGE_MAX]
    for event in span.events:
        if event.name == conventions.EXCEPTION_EVENT:
            return str(first(event.attributes, conventions.EXCEPTION_MESSAGE) or "")[:_MESSAGE_MAX]
    return str(span.attributes.get("error.type") or "")[:_MESSAGE_MAX]


def _text(document: Mapping[str, Any]) -> str:
    return msgspec.json.encode(document).decode() if document else EMPTY_JSON


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _copy(text: str) -> str:
    return text if _size(text) <= _COPY_MAX else EMPTY_JSON


def _label(attributes: Attributes, names: Sequence[str]) -> str:
    """A short text: the first of these attributes."""
    found = first(attributes, names)
    if found is None:
        return ""
    return (found if isinstance(found, str) else _plain(found))[:_LABEL_MAX]


def _plain(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _tokens(value: Any) -> int:
    """A count of tokens; what is none counts as 0."""
    number = _number(value)
    return int(number) if 0 <= number <= _TOKENS_MAX else 0


def _dollars(value: Any) -> float | None:
    """A cost, None when what came is none."""
    if value is None:
        return None
    number = _number(value)
    return number if 0 <= number <= _DOLLARS_MAX else None


def _number(value: Any) -> float:
    """A number, also one that came as text; -1 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return -1.0
    try:
        return float(value)
    except (ValueError, OverflowError):
        return -1.0


def _micros(nanoseconds: int) -> int:
    micros = nanoseconds // 1000
    return micros if micros < _LATEST else 0
