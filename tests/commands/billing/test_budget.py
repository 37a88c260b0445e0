"""Budgets are set, changed and removed; each share of one is reached once a window."""

from hypothesis import given
from hypothesis import strategies as st

from commands.billing import budget, budget_window
from commands.billing.budget import Budget, RemoveBudget, SetBudget
from commands.billing.budget_window import MarkBudgetReached
from commands.decider import Context, Ref
from commands.refusals import InvalidCommand, NotFound, Refusal
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.window import window_of
from tests.given import HUMAN, NOW, Given

ID = "llm.calls@day"
DAY = window_of("day", NOW)
WINDOW_ID = f"{ID}@{DAY.start}"
SET = SetBudget(meter="llm.calls", window="day", limit=100, alert_percents=[100, 80, 80])
WAS_SET = BudgetSet(
    budget_id=ID, revision=1, meter="llm.calls", window="day", limit=100, alert_percents=[80, 100]
)
REMOVED = BudgetRemoved(budget_id=ID, revision=1)


def test_a_budget_is_set() -> None:
    Given(budget.DECIDER, id=ID).when(SET).then(WAS_SET)


def test_a_change_makes_a_new_revision_and_none_stays_quiet() -> None:
    given = Given(budget.DECIDER, WAS_SET, id=ID).when(SET).then_quiet()
    changed = SetBudget(meter="llm.calls", window="day", limit=50, alert_percents=[100])
    given.when(changed).then(
        BudgetSet(
            budget_id=ID, revision=2, meter="llm.calls", window="day", limit=50,
            alert_percents=[100],
        )
    )  # fmt: skip


def test_a_budget_under_another_id_is_refused() -> None:
    Given(budget.DECIDER, id="other@day").when(SET).then_refused(InvalidCommand)


def test_a_budget_is_removed_once_and_may_come_back() -> None:
    given = Given(budget.DECIDER, WAS_SET, id=ID).when(RemoveBudget()).then(REMOVED)
    given.when(RemoveBudget()).then_quiet()
    given.when(SET).then(
        BudgetSet(
            budget_id=ID, revision=2, meter="llm.calls", window="day", limit=100,
            alert_percents=[80, 100],
        )
    )  # fmt: skip


def test_removing_what_never_was_is_refused() -> None:
    Given(budget.DECIDER, id=ID).when(RemoveBudget()).then_refused(NotFound)


def mark(percent: int = 80, total: int = 80, revision: int = 1) -> MarkBudgetReached:
    return MarkBudgetReached(
        budget_id=ID, revision=revision, window_start=DAY.start, percent=percent, total=total
    )


def reached(percent: int = 80, total: int = 80) -> BudgetReached:
    return BudgetReached(
        budget_id=ID, revision=1, meter="llm.calls", window="day", window_start=DAY.start,
        window_end=DAY.end, percent=percent, limit=100, total=total,
    )  # fmt: skip


def given_window(*events: BudgetReached, current: BudgetSet | None = WAS_SET) -> Given:
    states = {Ref("billing.budget", ID): Budget(1, current)}
    return Given(budget_window.DECIDER, *events, id=WINDOW_ID, states=states)


def test_a_share_is_reached() -> None:
    given_window().when(mark()).then(reached())


def test_each_share_is_reached_once() -> None:
    given = given_window(reached()).when(mark(total=95)).then_quiet()
    given.when(mark(100, 130)).then(reached(100, 130))
    given.when(mark(100, 131)).then_quiet()


def test_lower_shares_are_reached_first_in_whatever_order_marks_come() -> None:
    given = given_window().when(mark(100, 130)).then(reached(80, 130), reached(100, 130))
    given.when(mark(80, 85)).then_quiet()


def test_a_budget_that_was_changed_or_removed_meanwhile_says_nothing() -> None:
    given_window().when(mark(revision=2)).then_quiet()
    given_window(current=None).when(mark()).then_quiet()


def test_a_total_below_the_share_is_refused() -> None:
    given_window().when(mark(total=79)).then_refused(InvalidCommand)


def test_a_share_without_an_alert_is_refused() -> None:
    given_window().when(mark(percent=50)).then_refused(InvalidCommand)


def test_a_mark_for_another_window_is_refused() -> None:
    command = MarkBudgetReached(
        budget_id=ID, revision=1, window_start=DAY.end, percent=80, total=80
    )
    given_window().when(command).then_refused(InvalidCommand)


settings = st.builds(
    SetBudget,
    meter=st.just("llm.calls"),
    window=st.just("day"),
    limit=st.integers(1, 3),
    alert_percents=st.lists(st.sampled_from([50, 100]), min_size=1, max_size=3),
)


@given(st.lists(settings | st.just(RemoveBudget()), max_size=20))
def test_revisions_only_grow_and_every_change_has_its_own(
    steps: list[SetBudget | RemoveBudget],
) -> None:
    state, revisions = budget.DECIDER.initial, []
    for command in steps:
        context = Context("ten_1", ID, HUMAN, NOW, "cmd_1", {}, {})
        try:
            events = budget.DECIDER.decide(command, state, context)
        except NotFound:
            continue
        for event in events:
            state = budget.DECIDER.evolve(state, event)
            if isinstance(event, BudgetSet):
                revisions.append(event.revision)
    assert revisions == list(range(1, len(revisions) + 1))


marks = st.builds(
    mark, percent=st.sampled_from([50, 80, 100]), total=st.integers(0, 200),
    revision=st.integers(1, 3),
)  # fmt: skip


@given(st.lists(st.tuples(marks, st.integers(1, 3)), max_size=30))
def test_no_sequence_reaches_a_share_twice_or_too_early(
    steps: list[tuple[MarkBudgetReached, int]],
) -> None:
    state, seen, revision = budget_window.DECIDER.initial, set(), 1
    for command, wanted in steps:
        revision = max(revision, wanted)  # a budget's revision never goes back
        current = BudgetSet(
            budget_id=ID, revision=revision, meter="llm.calls", window="day", limit=100,
            alert_percents=[80, 100],
        )  # fmt: skip
        states = {Ref("billing.budget", ID): Budget(revision, current)}
        context = Context("ten_1", WINDOW_ID, HUMAN, NOW, "cmd_1", states, {})
        try:
            events = budget_window.DECIDER.decide(command, state, context)
        except Refusal:
            continue
        for event in events:
            assert (event.revision, event.percent) not in seen
            assert event.total * 100 >= event.limit * event.percent
            assert all(percent < event.percent for rev, percent in seen if rev == event.revision)
            seen.add((event.revision, event.percent))
            state = budget_window.DECIDER.evolve(state, event)
    assert len(state.reached) <= 2
