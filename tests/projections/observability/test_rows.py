"""Reports as rows: whose, what is made of their values, and what counts once."""

from typing import Any

import pytest

from projections.clickhouse import ClickHouseView
from projections.observability.governance_events import GOVERNANCE_EVENTS
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS
from projections.observability.scores import SCORES
from schemas.envelope import Actor, Envelope
from schemas.observability.governance import GovernanceEvent, GovernanceEventsRecorded
from schemas.observability.run import RunCompleted, RunStarted, Score, ScoresRecorded

PERSON, PROGRAM = Actor("user", "usr_1"), Actor("api_key", "key_1")
TIME = 1_700_000_000_000_000


def rows(view: ClickHouseView, event: Any, actor: Actor = PROGRAM) -> list[dict[str, Any]]:
    """What the view makes of an event of `observability.x/run_1`."""
    envelope = Envelope("evt_1", "x", "ten_1", "observability.x/run_1", 0, TIME, actor)
    assert view.rows is not None
    return [dict(zip(view.columns, row, strict=True)) for row in view.rows(event, envelope)]


def test_a_person_s_score_has_an_author() -> None:
    score = Score(
        id="s1",
        name="accuracy",
        numeric_value=0.5,
        comment="half",
        metadata='{"a": 1}',
        llm_call_id="c1",
    )
    assert rows(SCORES, ScoresRecorded(scores=[score], source="manual"), PERSON) == [
        {
            "tenant": "ten_1",
            "run_id": "run_1",
            "id": "s1",
            "name": "accuracy",
            "data_type": "numeric",
            "source": "manual",
            "numeric_value": 0.5,
            "string_value": None,
            "comment": "half",
            "metadata": '{"a": 1}',
            "author_user_id": "usr_1",
            "llm_call_id": "c1",
            "created_at": TIME,
            "sealed_for": "",
        }
    ]


def test_a_program_s_score_has_none() -> None:
    (row,) = rows(SCORES, ScoresRecorded(scores=[Score(id="s1", name="n")]))
    assert row["author_user_id"] is None


@pytest.mark.parametrize(
    ("numeric", "text", "value"),
    [
        (1.0, None, "true"),
        (0.0, None, "false"),
        (1.0, "", "true"),
        (None, "True", "true"),
        (1.0, "false", "false"),
        (None, None, None),
    ],
)
def test_a_boolean_is_text_whichever_way_it_was_reported(
    numeric: float | None, text: str | None, value: str | None
) -> None:
    score = Score(id="s1", name="ok", data_type="boolean", numeric_value=numeric, string_value=text)
    (row,) = rows(SCORES, ScoresRecorded(scores=[score]))
    assert (row["numeric_value"], row["string_value"]) == (numeric, value)


def test_a_governance_event_is_a_row_and_the_first_of_an_id_stands() -> None:
    event = GovernanceEvent(
        id="gov_1",
        event='{"event_type": "override"}',
        occurred_at=TIME - 1,
        event_type="override",
        agent_name="a",
        action="allow",
    )
    again = GovernanceEvent(id="gov_1", event="{}", occurred_at=TIME)
    assert rows(GOVERNANCE_EVENTS, GovernanceEventsRecorded(events=[event, again])) == [
        {
            "tenant": "ten_1",
            "id": "gov_1",
            "event_type": "override",
            "agent_name": "a",
            "action": "allow",
            "occurred_at": TIME - 1,
            "received_at": TIME,
            "event": '{"event_type": "override"}',
        }
    ]


def test_a_run_s_end_is_filed_as_its_start_is() -> None:
    began = 70_000 * 21_600_000_000
    trace = "0af7651916cd43dd8448eb211c80319c"
    started = RunStarted(
        agent_name="a",
        workflow_name="w",
        workflow_id=f"wf_{trace}",
        trace_id=trace,
        started_at=began,
    )
    completed = RunCompleted(status="success", completed_at=TIME, began_at=began)
    untold = RunCompleted(status="success", completed_at=TIME)
    found = [
        rows(view, event)[0]["filed_period"]
        for view, event in (
            (RUN_STARTS, started),
            (RUN_COMPLETIONS, completed),
            (RUN_COMPLETIONS, untold),
        )
    ]
    assert found == [70_000, 70_000, 0]
