"""Trust is a fold of decisions: explained by its events, cut to 0..100, free of binary dust."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.trust import (
    DECIDER,
    FORMULA,
    INITIAL_SCORE,
    WEIGHTS,
    Trust,
    moved,
    score_of,
    trust_id,
)
from schemas.approvals.trust import TrustMoved
from tests.given import NOW

OUTCOMES = st.lists(st.sampled_from(list(WEIGHTS)), max_size=40)


def move(trust: Trust, outcome: Any) -> TrustMoved:
    return moved(
        trust, agent_id="agt_1", room_id="room_1", check_in_id="ci_1", outcome=outcome, now=NOW
    )


def test_an_agent_starts_with_little_trust() -> None:
    assert DECIDER.initial.score == INITIAL_SCORE == 15.0


@pytest.mark.parametrize(
    ("score", "outcome", "after"),
    [
        (15.0, "approved", 16.0),
        (15.0, "modified", 15.6),
        (15.0, "rejected", 14.7),
        (15.0, "expired", 14.9),
        (99.5, "approved", 100.0),
        (0.2, "rejected", 0.0),
    ],
)
def test_an_outcome_moves_the_score_by_its_weight(score: float, outcome: Any, after: float) -> None:
    event = move(Trust(score), outcome)
    assert (event.change, event.score) == (WEIGHTS[outcome], after)
    assert getattr(event, f"{outcome}_count") == 1


def test_an_agent_and_a_room_have_one_stream() -> None:
    assert trust_id("agt_1", "room_1") == "agt_1:room_1"


def test_it_takes_no_command() -> None:
    assert DECIDER.commands == ()


@given(OUTCOMES)
def test_no_sequence_of_outcomes_leaves_the_range_and_counts_add_up(outcomes: list[Any]) -> None:
    trust = Trust()
    for outcome in outcomes:
        trust = DECIDER.evolve(trust, move(trust, outcome))
        assert 0 <= trust.score <= 100
        assert round(trust.score, 1) == trust.score
    counts = {name: getattr(trust, f"{name}_count") for name in WEIGHTS}
    assert counts == {name: outcomes.count(name) for name in WEIGHTS}


@given(OUTCOMES)
def test_it_follows_from_what_happened_alone(outcomes: list[Any]) -> None:
    trust = Trust()
    for outcome in outcomes:
        event = move(trust, outcome)
        trust = DECIDER.evolve(trust, event)
        assert trust.score == event.score
    assert score_of(outcomes) == trust.score


def test_another_formula_folds_the_same_history_to_another_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trust, history = Trust(), []
    for outcome in ("approved", "rejected", "approved"):
        history.append(move(trust, outcome))
        trust = DECIDER.evolve(trust, history[-1])
    monkeypatch.setitem(WEIGHTS, "rejected", -10.0)
    refolded = Trust()
    for event in history:
        refolded = DECIDER.evolve(refolded, event)
    assert (trust.score, refolded.score) == (16.7, 7.0)
    assert DECIDER.version == FORMULA  # raising it makes the deciders fold anew


@given(OUTCOMES)
def test_without_cuts_the_score_is_the_sum_of_its_changes(outcomes: list[Any]) -> None:
    trust, total = Trust(50.0), 500
    for outcome in outcomes:
        trust = DECIDER.evolve(trust, move(trust, outcome))
        total += round(WEIGHTS[outcome] * 10)
    assert round(trust.score * 10) == total
