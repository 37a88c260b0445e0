"""Sessions: runs that share a session_id."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.observability.pages import Offset
from api.observability.run_groups import (
    GroupAggregates,
    ListGroups,
    RunOfGroup,
    find,
    find_one,
    route,
)
from api.routing import Call
from projections.observability.run_groups import Measure

RUNS_MAX = 1_000
Sort = Literal[
    "last_activity", "-last_activity", "first_run", "-first_run", "run_count", "-run_count"
]
_MEASURES: dict[str, Measure] = {
    "last_activity": "last_at",
    "first_run": "first_at",
    "run_count": "run_count",
}


class ListSessions(ListGroups):
    """Agent, start and end choose sessions with a run that fits them all; `search` is part of an
    id. A session that is chosen is shown whole."""

    sort: Sort = "-last_activity"


class SessionRow(Struct):
    """total_duration: seconds, of completed runs. last_activity: the latest start or completion."""

    session_id: str
    run_count: int
    first_run: str
    last_activity: str
    total_duration: float
    total_cost: float
    total_tokens: int
    agents: list[str]


class SessionPage(Struct):
    results: list[SessionRow]
    count: int
    next: str | None
    previous: str | None
    next_cursor: str | None


class GetSession(Struct):
    """Which of its runs, in the order they started; `run_count` says how many there are."""

    limit: Annotated[int, Meta(ge=1, le=RUNS_MAX)] = RUNS_MAX
    offset: Offset = 0


class SessionRun(RunOfGroup):
    trace_id: str


class SessionDetail(Struct):
    session_id: str
    aggregates: GroupAggregates
    runs: list[SessionRun]


async def list_sessions(call: Call[None, ListSessions]) -> SessionPage:
    groups, page, count = await find(call, "session_id", _MEASURES)
    rows = [
        SessionRow(
            session_id=group.id,
            first_run=group.first,
            last_activity=group.last,
            **group.sums,
        )
        for group in groups
    ]
    return SessionPage(rows, count, page.next, page.previous, page.next_cursor)


async def get_session(call: Call[None, GetSession]) -> SessionDetail:
    session_id = call.path["session_id"]
    found = await find_one(
        call, "session_id", session_id, "There is no such session", newest_first=False
    )
    return SessionDetail(
        session_id=session_id,
        aggregates=GroupAggregates(**found.group.sums),
        runs=[
            SessionRun(
                **{name: getattr(run, name) for name in RunOfGroup.__struct_fields__},
                trace_id=trace_id,
            )
            for run, trace_id in found.runs
        ],
    )


ROUTES = [
    route("sessions/", list_sessions, ListSessions, SessionPage, "List sessions"),
    route("sessions/{session_id}/", get_session, GetSession, SessionDetail, "Get a session"),
]
