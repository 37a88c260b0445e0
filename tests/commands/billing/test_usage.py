"""Usage counts once."""

from hypothesis import given
from hypothesis import strategies as st

from commands.billing.usage import (
    AHEAD_MICROS,
    DECIDER,
    LATEST_MICROS,
    RecordUsage,
    UsageIdReused,
)
from commands.decider import Context
from commands.refusals import InvalidCommand, Refusal
from schemas.billing.usage import UsageRecorded
from tests.given import HUMAN, NOW, Given

RECORD = RecordUsage(meter="api.requests", quantity=3)
RECORDED = UsageRecorded(usage_id="id_1", meter="api.requests", quantity=3, occurred_at=NOW)


def test_usage_is_recorded() -> None:
    Given(DECIDER).when(RECORD).then(RECORDED)


def test_what_the_client_said_is_kept() -> None:
    command = RecordUsage(
        meter="gpu.seconds",
        quantity=90,
        occurred_at=NOW - 5,
        period_start=NOW - 10,
        period_end=NOW - 5,
        source="fhe",
        resource="job_1",
        metadata='{"a":1}',
    )
    Given(DECIDER).when(command).then(
        UsageRecorded(
            usage_id="id_1",
            meter="gpu.seconds",
            quantity=90,
            occurred_at=NOW - 5,
            source="fhe",
            resource="job_1",
            period_start=NOW - 10,
            period_end=NOW - 5,
            metadata='{"a":1}',
        )
    )


def test_a_repeat_stays_quiet_also_much_later() -> None:
    Given(DECIDER, RECORDED).when(RECORD).then_quiet()
    Given(DECIDER, RECORDED, now=NOW + 10 * LATEST_MICROS).when(RECORD).then_quiet()


def test_the_same_id_for_another_usage_is_refused() -> None:
    for command in (
        RecordUsage(meter="api.requests", quantity=4),
        RecordUsage(meter="api.bytes", quantity=3),
        RecordUsage(meter="api.requests", quantity=3, occurred_at=NOW - 1),
    ):
        Given(DECIDER, RECORDED).when(command).then_refused(UsageIdReused)


def test_usage_of_the_future_or_of_long_ago_is_refused() -> None:
    for at in (NOW + AHEAD_MICROS + 1, NOW - LATEST_MICROS - 1):
        command = RecordUsage(meter="api.requests", quantity=3, occurred_at=at)
        Given(DECIDER).when(command).then_refused(InvalidCommand)


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    command = RecordUsage(meter="api.requests", quantity=3, period_start=NOW, period_end=NOW - 1)
    Given(DECIDER).when(command).then_refused(InvalidCommand)


commands = st.builds(
    RecordUsage,
    meter=st.sampled_from(["a", "b"]),
    quantity=st.integers(1, 3),
    occurred_at=st.none() | st.integers(NOW - 3, NOW),
)


@given(st.lists(st.tuples(commands, st.integers(0, 2 * LATEST_MICROS)), min_size=1, max_size=20))
def test_no_sequence_counts_a_usage_id_twice(steps: list[tuple[RecordUsage, int]]) -> None:
    state, counted, now = DECIDER.initial, 0, NOW
    for command, later in steps:
        context = Context("ten_1", "id_1", HUMAN, now, "cmd_1", {}, {})
        try:
            events = DECIDER.decide(command, state, context)
        except Refusal:
            events = []
        for event in events:
            counted += 1
            state = DECIDER.evolve(state, event)
        now += later
    assert counted <= 1
