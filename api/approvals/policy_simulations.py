"""What policies would have changed: a room's check-ins of the last days, replayed through them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.approvals.declaring import route
from api.approvals.envelopes import Cursor, after, cursor_of
from api.approvals.policies import PoliciesBody, policies_of
from api.approvals.visible import room_row
from api.problems import Problem
from api.replaying import replayed
from api.routing import Call, Who
from commands.approvals.conditions import Asked
from commands.approvals.policy import check
from commands.approvals.policy_replay import Difference, Judged, Replayed, Tally
from commands.approvals.room import check_reviewers
from commands.identity.user import User
from commands.refusals import InvalidCommand
from infra.clock import iso
from projections.approvals import check_ins
from projections.identity import users
from schemas.approvals.policies import Policies, Verdict
from schemas.approvals.vocabulary import AnyStatus, PolicyAction, RiskLevel

CHECK_INS_MAX = 20_000
# A check-in by a rule: so that a replay takes a second or two at most.
EVALUATIONS_MAX = 200_000
_BATCH = 1_000
_DAY = 86_400_000_000
_ACTIONS: tuple[PolicyAction, ...] = ("auto_approve", "require_approval", "forbid")


class SimulateBody(Struct, frozen=True):
    """Policies as they are written, and over how many days they are tried.

    limit, cursor: of the list of those that would have gone otherwise; the totals are of them all.
    """

    policies: PoliciesBody
    days: Annotated[int, Meta(ge=1, le=90)] = 7
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Cursor = ""


class JudgedItem(Struct, frozen=True):
    """What policies say of a check-in, by which rule, and why."""

    policy: Verdict
    approvals_required: int


class ChangedItem(Struct, frozen=True):
    """A check-in that would have gone otherwise. status: what became of it."""

    check_in_id: str
    agent_id: str
    action: str
    risk_level: RiskLevel
    status: AnyStatus
    created_at: str
    before: JudgedItem
    after: JudgedItem


class SimulationItem(Struct, frozen=True):
    """What the room's check-ins were told, and what they would have been told.

    truncated: there were more, and only those from `since` on were judged. before, after: how many
    by what was said. changed: those that would have gone otherwise, newest first, a page of them.
    """

    since: str
    until: str
    check_in_count: int
    truncated: bool
    changed_count: int
    before: dict[str, int]
    after: dict[str, int]
    changed: list[ChangedItem]


class SimulationPage(Struct, frozen=True):
    """A simulation; `cursor` asks for the next page of its changes while `has_more`."""

    data: SimulationItem
    cursor: str | None
    has_more: bool


class Changed(Struct, frozen=True):
    """A difference, and what its answer shows besides."""

    difference: Difference
    status: AnyStatus

    @property
    def place(self) -> tuple[int, str]:
        """Where it is in the list, newest first."""
        return self.difference.check_in.asked.at, self.difference.check_in.id


async def simulate(call: Call[SimulateBody, None]) -> Any:
    """Replay check-ins through proposed policies; nothing is changed."""
    body = call.body
    behind = after(body.cursor)
    room = await room_row(call, call.path["room"])
    policies = policies_of(body.policies)
    await _check(call, policies)
    until = call.services.clock.now()
    since = until - body.days * _DAY
    most = min(CHECK_INS_MAX, EVALUATIONS_MAX // max(1, len(policies.rules)))
    tally, page = Tally(policies), list[Changed]()
    count = changed_count = 0
    last = (until + 1, "")
    while rows := await _rows(call, room["id"], since, last, most - count):
        if count == most:
            break
        count += len(rows)
        changed = await replayed(call.services, _changed, tally, rows)
        changed_count += len(changed)
        page += [one for one in changed if one.place < behind][: body.limit + 1 - len(page)]
        last = (rows[-1]["created_at"], rows[-1]["id"])
    more = len(page) > body.limit
    page = page[: body.limit]
    item = SimulationItem(
        since=iso(last[0] if rows else since),
        until=iso(until),
        check_in_count=count,
        truncated=bool(rows),
        changed_count=changed_count,
        before={action: tally.before[action] for action in _ACTIONS},
        after={action: tally.after[action] for action in _ACTIONS},
        changed=[_item(one) for one in page],
    )
    return SimulationPage(item, cursor_of(*page[-1].place) if more else None, more)


async def _check(call: Call[Any, Any], policies: Policies) -> None:
    """Refuse what could not be written either. Raises Problem (400)."""
    try:
        check(policies)
        check_reviewers(policies, await _people(call, policies.escalate_to))
    except InvalidCommand as fault:
        raise Problem(400, fault.code, fault.message, details=fault.details) from None


async def _people(call: Call[Any, Any], ids: Sequence[str]) -> dict[str, User]:
    """Those of the ids that are users of the tenant."""
    rows = [await call.services.reads.one(users.BY_ID, id) for id in ids]
    return {
        row["user_id"]: User(row["email_hash"], roles=row["roles"])
        for row in rows
        if row is not None and row["tenant"] == call.tenant
    }


async def _rows(
    call: Call[Any, Any], room_id: str, since: int, behind: tuple[int, str], left: int
) -> list[Any]:
    """The next check-ins to judge; one when none is left to, to tell whether there are more."""
    limit = min(_BATCH, left) or 1
    sql, parameters = check_ins.asked(call.tenant, room_id, since, behind, limit)
    return await call.services.reads.all(sql, *parameters)


def _changed(tally: Tally, rows: Sequence[Mapping[str, Any]]) -> list[Changed]:
    statuses = {row["id"]: row["status"] for row in rows}
    found = tally.add([_replayed(row) for row in rows])
    return [Changed(one, statuses[one.check_in.id]) for one in found]


def _replayed(row: Mapping[str, Any]) -> Replayed:
    asked = Asked(
        action=row["action"],
        risk_level=row["risk_level"],
        urgency=row["urgency"],
        agent_id=row["agent_id"],
        platform=row["platform"],
        context=row["context"],
        at=row["created_at"],
        trust_score=row["trust_score"],
    )
    before = Judged(msgspec.convert(row["verdict"], Verdict), row["approvals_required"])
    return Replayed(row["id"], asked, before)


def _item(changed: Changed) -> ChangedItem:
    check_in, after = changed.difference.check_in, changed.difference.after
    asked, before = check_in.asked, check_in.before
    return ChangedItem(
        check_in_id=check_in.id,
        agent_id=asked.agent_id,
        action=asked.action,
        risk_level=asked.risk_level,
        status=changed.status,
        created_at=iso(asked.at),
        before=JudgedItem(before.verdict, before.approvals_required),
        after=JudgedItem(after.verdict, after.approvals_required),
    )


ROUTES = [
    route(
        "POST",
        "/v1/rooms/{room}/policies/simulate",
        simulate,
        Who.HUMAN,
        "Replay a room's check-ins through proposed policies",
        body=SimulateBody,
        response=SimulationPage,
        refusals=(404,),
        description="Judges the check-ins of the last days by the proposed policies, each as it "
        "was when it was asked, and tells which would have gone otherwise. Nothing is changed. "
        "What was forbidden left no check-in, so it is not among them.",
    ),
]
