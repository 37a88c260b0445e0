"""Users whom agents work for, as runs name them by user_id: not the people who log in here."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.observability.llm_calls import dollars
from api.observability.pages import DEFAULT_LIMIT, MAX_LIMIT, Offset
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

Sort = Literal["last_seen", "-last_seen", "first_seen", "-first_seen", "run_count", "-run_count"]
_MEASURES: dict[str, Measure] = {
    "last_seen": "last_at",
    "first_seen": "first_at",
    "run_count": "run_count",
}


class ListUsers(ListGroups):
    """Agent, start and end choose users with a run that fits them all; `search` is part of an id.
    A user who is chosen is shown whole."""

    sort: Sort = "-last_seen"


class UserRow(Struct):
    """total_duration: seconds, of completed runs. last_seen: the latest start or completion."""

    user_id: str
    run_count: int
    first_seen: str
    last_seen: str
    total_duration: float
    total_cost: float
    total_tokens: int
    agents: list[str]


class UserPage(Struct):
    results: list[UserRow]
    count: int
    next: str | None
    previous: str | None
    next_cursor: str | None


class GetUser(Struct):
    """Which of the runs, newest first; `run_count` says how many there are."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    offset: Offset = 0


class UserAggregates(GroupAggregates):
    first_seen: str
    last_seen: str


class ModelCost(Struct):
    model: str
    total_cost: float
    total_tokens: int
    call_count: int


class UserDetail(Struct):
    """cost_by_model: the dearest model first."""

    user_id: str
    aggregates: UserAggregates
    cost_by_model: list[ModelCost]
    runs: list[RunOfGroup]


async def list_users(call: Call[None, ListUsers]) -> UserPage:
    groups, page, count = await find(call, "user_id", _MEASURES)
    rows = [
        UserRow(
            user_id=group.id,
            first_seen=group.first,
            last_seen=group.last,
            **group.sums,
        )
        for group in groups
    ]
    return UserPage(rows, count, page.next, page.previous, page.next_cursor)


async def get_user(call: Call[None, GetUser]) -> UserDetail:
    user_id = call.path["user_id"]
    group, by_model, runs = await find_one(
        call, "user_id", user_id, "There is no such user", newest_first=True, by_model=True
    )
    return UserDetail(
        user_id=user_id,
        aggregates=UserAggregates(first_seen=group.first, last_seen=group.last, **group.sums),
        cost_by_model=[
            ModelCost(row["model"], dollars(row["total_pico"]), int(row["tokens"]), row["calls"])
            for row in by_model
        ],
        runs=[run for run, _ in runs],
    )


ROUTES = [
    route("users/", list_users, ListUsers, UserPage, "List users"),
    route("users/{user_id}/", get_user, GetUser, UserDetail, "Get a user"),
]
