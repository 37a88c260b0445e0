"""An endpoint's webhooks in order: whatever comes twice or late, the first goes first."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.platform.webhook import WebhookAttempted, WebhookRedriven, WebhookRequested
from streams.platform import webhook_queue
from streams.platform.webhook_queue import Change, Queue, Waiting, WebhookRecord, fold

AT = 1_700_000_000_000_000


def asked(number: int, at: int = AT) -> WebhookRequested:
    return WebhookRequested("wat_1", f"evt_{number}", "t", "{}", at)


def tried(event: int, number: int, outcome: Any, at: int = AT + 9, **more: Any) -> WebhookAttempted:
    code = 204 if outcome == "delivered" else 500
    return WebhookAttempted(
        endpoint_id="wat_1",
        event_id=f"evt_{event}",
        number=number,
        outcome=outcome,
        attempted_at=at,
        duration_ms=1,
        status_code=code,
        **more,
    )


def folded(*records: WebhookRecord) -> tuple[Queue, list[Change]]:
    queue, changes = Queue(), []
    for record in records:
        queue, changed = fold(queue, record)
        changes += changed
    return queue, changes


def test_the_first_is_due_when_it_is_requested() -> None:
    queue, changes = folded(asked(1), asked(2, AT + 5))
    assert queue == Queue((Waiting("evt_1", AT), Waiting("evt_2", AT + 5)), AT)
    assert changes[0] == Change("evt_1", "waiting", 0, AT, since=AT)


def test_what_is_requested_twice_waits_once() -> None:
    assert folded(asked(1), asked(1)) == folded(asked(1))


def test_delivered_makes_way_at_once_and_forgets_failures() -> None:
    queue, changes = folded(
        asked(1),
        asked(2),
        tried(1, 1, "failed", retry_at=AT + 100),
        tried(1, 2, "delivered", AT + 101),
    )
    assert queue == Queue((Waiting("evt_2", AT),), AT + 101)
    assert changes[-1] == Change("evt_1", "delivered", 2, AT + 101)


def test_failed_stays_first_until_its_time() -> None:
    queue, changes = folded(asked(1), asked(2), tried(1, 1, "failed", retry_at=AT + 100))
    assert queue == Queue((Waiting("evt_1", AT, 1), Waiting("evt_2", AT)), AT + 100, 1, AT + 9)
    assert changes[-1] == Change(
        "evt_1", "waiting", 1, AT + 9, AT + 100, "the endpoint answered 500"
    )


def test_dead_makes_way_and_the_endpoint_is_still_failing() -> None:
    queue, changes = folded(asked(1), asked(2), tried(1, 1, "dead", error="no answer"))
    assert queue == Queue((Waiting("evt_2", AT),), AT + 9, 1, AT + 9)
    assert changes[-1] == Change("evt_1", "dead", 1, AT + 9, reason="no answer")


def test_dropped_takes_all_that_waits() -> None:
    queue, changes = folded(asked(1), asked(2), tried(1, 1, "dropped"))
    assert queue.forgettable
    assert [change.status for change in changes[2:]] == ["dropped", "dropped"]


def test_redriven_goes_behind_what_waits() -> None:
    again = WebhookRedriven("wat_1", "evt_1", AT + 50)
    queue, changes = folded(asked(1), tried(1, 1, "dead"), asked(2), again)
    assert queue.waiting == (Waiting("evt_2", AT), Waiting("evt_1", AT + 50))
    assert changes[-1] == Change("evt_1", "waiting", 0, AT + 50, since=AT + 50)


@pytest.mark.parametrize(
    "late",
    [
        tried(1, 1, "failed", retry_at=AT + 999),
        tried(1, 1, "dead"),
        tried(1, 1, "dropped"),
        tried(2, 1, "delivered"),
    ],
)
def test_the_attempt_of_a_sender_that_came_late_changes_nothing(late: WebhookAttempted) -> None:
    before = (asked(1), asked(2), tried(1, 1, "failed", retry_at=AT + 100))
    assert folded(*before, late) == folded(*before)


def test_late_or_not_what_was_delivered_need_not_be_tried_again() -> None:
    before = (asked(1), tried(1, 1, "failed", retry_at=AT + 100))
    queue, _ = folded(*before, tried(1, 1, "delivered"))
    assert queue.waiting == ()


def test_a_queue_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_queue, "QUEUE_MAX", 2)
    queue, changes = folded(asked(1), asked(2), asked(3))
    assert len(queue.waiting) == 2
    assert (changes[-1].event_id, changes[-1].status) == ("evt_3", "dead")


OUTCOMES = st.sampled_from(["delivered", "failed", "failed", "failed", "dead"])
STEPS = st.lists(
    st.one_of(
        st.just("request"),
        st.tuples(OUTCOMES, st.integers(1, 3)),  # an attempt, and how often it is recorded
    ),
    max_size=60,
)


@given(STEPS)
def test_events_settle_in_the_order_of_their_requests(steps: Sequence[Any]) -> None:
    queue, requested, settled = Queue(), 0, []
    for now, step in enumerate(steps, AT):
        if step == "request":
            requested += 1
            records: list[WebhookRecord] = [asked(requested, now)]
        elif queue.waiting:
            first = queue.waiting[0]
            number = int(first.event_id.removeprefix("evt_"))
            records = [tried(number, first.attempts + 1, step[0], now)] * step[1]
        else:
            continue
        for record in records:
            queue, changes = fold(queue, record)
            settled += [change.event_id for change in changes if change.status != "waiting"]
    waiting = [one.event_id for one in queue.waiting]
    # Each is settled once, in order, and what is not settled waits: nothing is lost or doubled.
    assert settled + waiting == [f"evt_{number}" for number in range(1, requested + 1)]
    assert queue.failures == 0 or queue.failing_since > 0
