"""When a webhook is tried again: jittered, ever more slowly, and over within its lifetime."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.platform.webhook import WebhookAttempted, WebhookRequested
from streams.platform.webhook_queue import Queue, Waiting, fold
from streams.platform.webhook_schedule import (
    ATTEMPTS_MAX,
    GIVE_UP_SECONDS,
    LIFETIME_SECONDS,
    SCHEDULE_SECONDS,
    Answer,
    Judgement,
    judge,
)

AT = 1_700_000_000_000_000
SECOND = 1_000_000
QUEUE = Queue((Waiting("evt_1", AT),), AT)
DOWN = Answer(10, 500)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_only_2xx_is_delivered(status: int) -> None:
    assert judge(Answer(1, status), QUEUE, AT, 0.5) == Judgement("delivered")


@pytest.mark.parametrize("status", [None, 100, 301, 302, 308, 400, 404, 429, 500, 503])
def test_everything_else_is_tried_again(status: int | None) -> None:
    assert judge(Answer(1, status), QUEUE, AT, 0.5) == Judgement("failed", AT + 5 * SECOND)


def test_gone_is_gone() -> None:
    gone = Judgement("dropped", disable="the endpoint answered 410 Gone")
    assert judge(Answer(1, 410), QUEUE, AT, 0.5) == gone


@pytest.mark.parametrize(("failures", "seconds"), enumerate(SCHEDULE_SECONDS))
def test_each_failure_makes_the_pause_longer(failures: int, seconds: int) -> None:
    queue = Queue((Waiting("evt_1", AT),), AT, failures, AT)
    for dice, share in ((0.0, 0.9), (0.5, 1.0), (0.999999, 1.1)):
        found = judge(DOWN, queue, AT, dice)
        assert found.retry_at is not None
        pause = (found.retry_at - AT) / SECOND
        assert pause == pytest.approx(min(seconds * share, LIFETIME_SECONDS), rel=1e-3)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_who_asks_for_time_gets_it(status: int) -> None:
    found = judge(Answer(1, status, retry_after=120), QUEUE, AT, 0.5)
    assert found == Judgement("failed", AT + 120 * SECOND)
    # But neither less than the schedule has nor more than the webhook lives.
    hasty = judge(Answer(1, status, retry_after=0), QUEUE, AT, 0.5)
    assert hasty == Judgement("failed", AT + 5 * SECOND)
    patient = judge(Answer(1, status, retry_after=10**9), QUEUE, AT, 0.5)
    assert patient == Judgement("failed", AT + 86_400 * SECOND)


def test_others_cannot_ask_for_time() -> None:
    found = judge(Answer(1, 500, retry_after=120), QUEUE, AT, 0.5)
    assert found == Judgement("failed", AT + 5 * SECOND)


def test_an_endpoint_that_fails_for_days_is_given_up() -> None:
    since = AT - GIVE_UP_SECONDS * SECOND
    queue = Queue((Waiting("evt_9", AT),), AT, 40, since)
    reason = "no webhook could be delivered for 5 days"
    assert judge(DOWN, queue, AT, 0.5) == Judgement("dropped", disable=reason)
    assert judge(DOWN, queue, AT - 1, 0.5).outcome == "failed"


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=40, max_size=40),
    st.integers(0, 3 * LIFETIME_SECONDS),
    st.lists(st.sampled_from([None, 0, 3_600, 10**8]), min_size=40, max_size=40),
)
def test_every_webhook_ends_and_none_without_a_chance(
    dice: list[float], waited: int, asks: list[int | None]
) -> None:
    """Of an endpoint that is down for good: each is tried, ever more slowly, and dead in time."""
    started = AT + waited * SECOND  # what was before it in the queue took so long
    queue, _ = fold(Queue(), WebhookRequested("wat_1", "evt_1", "t", "{}", AT))
    now, times = max(started, queue.due_at), []
    for throw, ask in zip(dice, asks, strict=True):
        found = judge(Answer(1, 503, retry_after=ask), queue, now, throw)
        times.append(now)
        attempted = WebhookAttempted(
            endpoint_id="wat_1",
            event_id="evt_1",
            number=len(times),
            outcome=found.outcome,
            attempted_at=now,
            duration_ms=1,
            status_code=503,
            retry_at=found.retry_at,
        )
        queue, _ = fold(queue, attempted)
        if found.outcome != "failed":
            break
        assert found.retry_at is not None
        assert found.retry_at > now
        now = found.retry_at
    assert found.outcome == "dead"
    assert 1 <= len(times) <= ATTEMPTS_MAX
    assert times[-1] <= max(started, AT + LIFETIME_SECONDS * SECOND)
    assert times == sorted(times)
