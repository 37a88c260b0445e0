"""What is personal leaves an event whole and comes back the same; the numbers stay."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from schemas.observability.personal import PERSONAL, blank, with_personal, without_personal
from schemas.observability.run import (
    ITEMS,
    LlmCall,
    LlmCallsRecorded,
    RunCompleted,
    RunStarted,
    Score,
    ScoresRecorded,
    Span,
    SpansRecorded,
    Step,
    StepsRecorded,
)

SECRET = "ada@example.com"
JSON = f'{{"who":"{SECRET}"}}'
EVENTS: list[Any] = [
    RunStarted(
        agent_name="bot",
        workflow_name="w",
        workflow_id="wf_1",
        started_at=1,
        inputs=JSON,
        metadata=JSON,
        user_id=SECRET,
        user_group=SECRET,
        session_id=SECRET,
        trace_id="t",
    ),
    RunCompleted(status="error", completed_at=2, result=JSON, error=SECRET, metadata=JSON),
    LlmCallsRecorded(
        calls=[
            LlmCall(
                id=f"c{number}",
                model="gpt-4o",
                tokens_in=number,
                tokens_out=3,
                cost=0.5,
                prompt_preview=SECRET,
                response_preview=SECRET if number else "",
                metadata=JSON,
            )
            for number in range(3)
        ]
    ),
    StepsRecorded(steps=[Step(id="s1", step_name="look up", output=JSON)]),
    SpansRecorded(
        spans=[
            Span(
                id="s1",
                name="n",
                kind="tool",
                duration_ms=7,
                attributes=JSON,
                input_data=JSON,
                output_data=JSON,
            )
        ]
    ),
    ScoresRecorded(
        scores=[Score(id="s1", name="n", numeric_value=0.5, comment=SECRET, metadata=JSON)],
        source="manual",
    ),
]
each = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


@each
def test_it_comes_back_the_same(event: Any) -> None:
    left, document = without_personal(event)
    assert SECRET not in repr(left)
    assert SECRET.encode() in document
    assert with_personal(left, document) == event


@each
def test_all_else_stays(event: Any) -> None:
    left, _ = without_personal(event)
    name = ITEMS.get(type(event))
    before, after = (
        [event] if name is None else getattr(event, name),
        [left] if name is None else getattr(left, name),
    )
    for had, has in zip(before, after, strict=True):
        assert structs.replace(had, **blank(type(had))) == has


@each
def test_what_has_nothing_personal_is_left_as_it_is(event: Any) -> None:
    left, _ = without_personal(event)
    assert without_personal(left) == (left, b"")


def test_every_kind_of_report_is_covered() -> None:
    kinds = {type(event) for event in EVENTS}
    items = {LlmCall, Step, Span, Score}
    assert set(PERSONAL) == {kind for kind in kinds if kind not in ITEMS} | items
    for kind in PERSONAL:
        # Texts with a default: what a document holds, and what a blank is.
        assert all(isinstance(value, str) for value in blank(kind).values())


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_texts_of_any_number_of_items(texts: list[tuple[str, str]]) -> None:
    event = StepsRecorded(
        steps=[Step(id=str(at), step_name=name, output=out) for at, (name, out) in enumerate(texts)]
    )
    left, document = without_personal(event)
    if document:
        assert with_personal(left, document) == event
    else:
        assert left == event


def test_a_document_of_other_items_is_refused() -> None:
    _, document = without_personal(EVENTS[2])
    with pytest.raises(ValueError, match="number of items"):
        with_personal(LlmCallsRecorded(calls=EVENTS[2].calls[:1]), document)


def test_a_field_that_is_gone_is_passed_over() -> None:
    document = msgspec.msgpack.encode({"output": ["x"], "mood": ["sad"]})
    (step,) = with_personal(EVENTS[3], document).steps  # type: ignore[union-attr]
    assert step.output == "x"
