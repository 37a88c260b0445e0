"""What agents use is counted for those who began the run, in whatever order reports come."""

from functools import reduce
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.billing.attribution import (
    NOBODY,
    Attributed,
    Began,
    Made,
    Portion,
    Report,
    Row,
    RowKey,
    RunKey,
    Who,
    attribute,
    made,
    merged,
    starts_of,
)
from streams.billing.metering import Used

AT = 1_700_000_000_000_000
DAY = 86_400_000_000
BOT = Who("bot", "tickets", "a-1")
RUN = RunKey("ten_1", "run_1")


def rows_of(found: Attributed, who: Who, window: str = "day") -> Row | None:
    return found.rows.get(RowKey("ten_1", window, who.digest))


def test_calls_count_for_who_began_the_run_in_all_four_windows() -> None:
    portion = Portion(AT, calls=2, tokens=30, nanodollars=5)
    found = attribute([Began(RUN, BOT, AT), Made(RUN, 7, portion)], {}, {})
    for window, start in starts_of(AT).items():
        assert rows_of(found, BOT, window) == Row(BOT, start, 1, 2, 30, 5)
    assert (found.begun, found.unnamed) == ({RUN: BOT}, {})
    assert rows_of(found, NOBODY) is None


def test_calls_before_the_start_count_for_nobody_by_name_until_it_comes() -> None:
    portion = Portion(AT, calls=2, tokens=30, nanodollars=5)
    found = attribute([Made(RUN, 7, portion)], {}, {})
    assert rows_of(found, NOBODY) == Row(NOBODY, starts_of(AT)["day"], 0, 2, 30, 5)
    assert found.unnamed == {RUN: {7: portion}}
    then = attribute([Began(RUN, BOT, AT)], {}, {RUN: [portion]})
    assert rows_of(then, NOBODY) == Row(NOBODY, starts_of(AT)["day"], 0, -2, -30, -5)
    assert rows_of(then, BOT) == Row(BOT, starts_of(AT)["day"], 1, 2, 30, 5)
    assert then.named == {RUN}


def test_the_first_start_stands() -> None:
    other = Who("other")
    found = attribute([Began(RUN, BOT, AT), Began(RUN, other, AT)], {}, {})
    assert (found.begun, rows_of(found, other)) == ({RUN: BOT}, None)
    assert attribute([Began(RUN, other, AT)], {RUN: BOT}, {}) == Attributed()


def test_a_new_window_begins_at_nothing_and_an_old_one_adds_nothing() -> None:
    found = attribute([Began(RUN, BOT, AT), Began(RunKey("ten_1", "run_2"), BOT, AT + DAY)], {}, {})
    assert rows_of(found, BOT) == Row(BOT, starts_of(AT + DAY)["day"], 1)
    assert rows_of(found, BOT, "month") == Row(BOT, starts_of(AT)["month"], 2)
    late = attribute([Made(RUN, 1, Portion(AT, calls=9))], {RUN: BOT}, {})
    day = rows_of(late, BOT)
    newest = rows_of(found, BOT)
    assert day is not None
    assert newest is not None
    assert merged(newest, day) == newest


def test_a_report_adds_up_what_it_used_and_a_repeat_is_none() -> None:
    used = [
        Used("llm.calls", 2, AT, 2),
        Used("llm.tokens_in", 10, AT, 2),
        Used("llm.tokens_out", 5, AT, 2),
        Used("llm.cost_nanodollars", 7, AT, 2),
    ]
    assert made(RUN, 3, used) == Made(RUN, 3, Portion(AT, 0, 2, 15, 7))
    assert made(RUN, 3, []) is None


def test_those_with_the_same_names_at_other_places_are_others() -> None:
    assert len({Who("a", "b", "").digest, Who("ab", "", "").digest, Who("a", "", "b").digest}) == 3


RUNS = [RunKey("ten_1", f"run_{number}") for number in range(3)]
WHOS = {RUNS[0]: BOT, RUNS[1]: BOT, RUNS[2]: Who("other", "tickets")}
instants = st.sampled_from([AT, AT + 1_000_000, AT + DAY])
reports = st.lists(
    st.one_of(
        st.builds(lambda run, at: Began(run, WHOS[run], at), st.sampled_from(RUNS), instants),
        st.builds(
            lambda run, at, calls: (run, Portion(at, calls=calls)),
            st.sampled_from(RUNS),
            instants,
            st.integers(1, 5),
        ),
    ),
    max_size=15,
).map(lambda found: [numbered(offset, item) for offset, item in enumerate(found)])


def numbered(offset: int, item: Any) -> Report:
    return item if isinstance(item, Began) else Made(item[0], offset, item[1])


class Tables:
    """The tables, as the processor keeps them."""

    def __init__(self) -> None:
        self.rows: dict[RowKey, Row] = {}
        self.known: dict[RunKey, Who] = {}
        self.unnamed: dict[RunKey, dict[int, Portion]] = {}

    def take(self, batch: list[Report]) -> "Tables":
        waiting = {run: list(portions.values()) for run, portions in self.unnamed.items()}
        found = attribute(batch, self.known, waiting)
        self.known |= found.begun
        for run in found.named:
            self.unnamed.pop(run, None)
        for run, portions in found.unnamed.items():
            self.unnamed.setdefault(run, {}).update(portions)
        for key, row in found.rows.items():
            self.rows[key] = merged(self.rows[key], row) if key in self.rows else row
        return self

    @property
    def used(self) -> dict[RowKey, Row]:
        """The rows that say something."""
        return {key: row for key, row in self.rows.items() if any(row[2:])}


@given(reports, st.integers(1, 5))
def test_batches_of_any_size_come_to_the_same(found: list[Report], size: int) -> None:
    batches = [found[first : first + size] for first in range(0, len(found), size)]
    by_batch = reduce(Tables.take, batches, Tables())
    at_once = Tables().take(found)
    assert (by_batch.rows, by_batch.unnamed) == (at_once.rows, at_once.unnamed)


@given(reports)
def test_partitions_in_any_order_come_to_the_same(found: list[Report]) -> None:
    partitions = [[report for report in found if report.run == run] for run in RUNS]
    forwards = reduce(Tables.take, partitions, Tables())
    backwards = reduce(Tables.take, reversed(partitions), Tables())
    mixed = Tables().take(found)
    assert forwards.rows == backwards.rows == mixed.rows
    assert forwards.known == backwards.known == mixed.known


@given(reports)
def test_what_is_used_in_the_newest_window_is_all_there(found: list[Report]) -> None:
    tables = Tables().take(found)
    total = sum(
        report.portion.calls
        for report in found
        if isinstance(report, Made) and report.portion.at < AT + DAY
    )
    late = any(
        (report.at if isinstance(report, Began) else report.portion.at) >= AT + DAY
        for report in found
    )
    if not late:
        day = [row for key, row in tables.rows.items() if key.window == "day"]
        assert sum(row.calls for row in day) == total
