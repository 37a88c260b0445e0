"""Who used it, pure: calls to the agent and workflow that began their run, in the current windows.

Reports of one run come in any order. What is used before the start of its run is known counts for
nobody by name; the start moves it. A row holds the newest window of its kind that was used, and
what came later for an older one adds nothing: so rows are bounded by the agents there are, and the
order in which partitions are read changes no row.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from schemas.billing.window import window_of
from schemas.observability.run import RunStarted
from streams.billing.metering import Step, Used

_MINUTE = 60_000_000


class Who(NamedTuple):
    """Who began a run; without names, whoever it will turn out to be."""

    agent_name: str = ""
    workflow_name: str = ""
    agent_id: str = ""

    @property
    def digest(self) -> str:
        """What the row is known by: the names are too long for an index."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


NOBODY = Who()


class RunKey(NamedTuple):
    """One run of a tenant."""

    tenant: str
    run_id: str


class Portion(NamedTuple):
    """What was used, all at one instant (microseconds UTC)."""

    at: int
    runs: int = 0
    calls: int = 0
    tokens: int = 0
    nanodollars: int = 0

    def negated(self) -> "Portion":
        """What takes it away again."""
        return Portion(self.at, -self.runs, -self.calls, -self.tokens, -self.nanodollars)


class Began(Struct, frozen=True):
    """A run's start was reported."""

    run: RunKey
    who: Who
    at: int


class Made(Struct, frozen=True):
    """LLM calls of a run were reported, by the record at this offset."""

    run: RunKey
    offset: int
    portion: Portion


Report = Began | Made


class RowKey(NamedTuple):
    """One row: who, and which kind of window. Sorts in the order in which rows are locked."""

    tenant: str
    window: str
    digest: str


class Row(NamedTuple):
    """The newest window and what was used in it."""

    who: Who
    start: int
    runs: int = 0
    calls: int = 0
    tokens: int = 0
    nanodollars: int = 0


class Attributed(Struct):
    """What reports change. rows: to be merged into those there are, as `merged` does it."""

    rows: dict[RowKey, Row] = field(default_factory=dict)
    begun: dict[RunKey, Who] = field(default_factory=dict)
    unnamed: dict[RunKey, dict[int, Portion]] = field(default_factory=dict)
    named: set[RunKey] = field(default_factory=set)


def attribute(
    reports: Iterable[Report],
    known: Mapping[RunKey, Who],
    waiting: Mapping[RunKey, Sequence[Portion]],
) -> Attributed:
    """What the reports change, in the log's order.

    known: who began the runs whose start came before. waiting: what was used in runs whose start
    did not come yet.
    """
    found = Attributed()
    for report in reports:
        who = known.get(report.run) or found.begun.get(report.run)
        match report:
            case Began():
                if who is not None:
                    continue  # the first report of a start stands
                found.begun[report.run] = report.who
                _add(found.rows, report.run.tenant, report.who, Portion(report.at, runs=1))
                earlier = [
                    *waiting.get(report.run, ()),
                    *found.unnamed.pop(report.run, {}).values(),
                ]
                for portion in earlier:
                    _add(found.rows, report.run.tenant, NOBODY, portion.negated())
                    _add(found.rows, report.run.tenant, report.who, portion)
                found.named.add(report.run)
            case Made():
                if who is None:
                    found.unnamed.setdefault(report.run, {})[report.offset] = report.portion
                _add(found.rows, report.run.tenant, who or NOBODY, report.portion)
    return found


def _add(rows: dict[RowKey, Row], tenant: str, who: Who, portion: Portion) -> None:
    digest, (at, *amounts) = who.digest, portion
    for window, start in starts_of(at).items():
        key = RowKey(tenant, window, digest)
        row = Row(who, start, *amounts)
        rows[key] = merged(rows[key], row) if key in rows else row


def merged(row: Row, more: Row) -> Row:
    """Both: their sum where the window is the same one, else the newer."""
    if row.start != more.start:
        return max(row, more, key=lambda one: one.start)
    return Row(row.who, row.start, *(a + b for a, b in zip(row[2:], more[2:], strict=True)))


def starts_of(at: int) -> dict[str, int]:
    """By kind the start of the windows that the instant is in."""
    return {
        "minute": at - at % _MINUTE,
        "hour": window_of("hour", at).start,
        "day": window_of("day", at).start,
        "month": window_of("month", at).start,
    }


def began(run: RunKey, event: RunStarted, at: int) -> Began:
    """The report of a start, which arrived `at`."""
    return Began(run, Who(event.agent_name, event.workflow_name, event.agent_id), at)


def made(run: RunKey, offset: int, steps: Iterable[Step]) -> Made | None:
    """The report of calls, from what it used; None when all of them had counted before."""
    used: dict[str, int] = defaultdict(int)
    at = None
    for step in steps:
        if isinstance(step, Used):
            used[step.meter] += step.quantity
            at = step.at
    if at is None:
        return None
    portion = Portion(
        at,
        calls=used["llm.calls"],
        tokens=used["llm.tokens_in"] + used["llm.tokens_out"],
        nanodollars=used["llm.cost_nanodollars"],
    )
    return Made(run, offset, portion)
