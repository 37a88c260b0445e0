"""Policies and policy checks over HTTP."""

import asyncio
import copy
from typing import Any

import msgspec
import pytest

from api.observability import ROUTES
from api.observability.policies import POLICIES_MAX
from api.observability.policy_memory import PolicyMemory, policy_memory
from api.subscription import LiveEvent
from commands.observability.policy_check import Asked
from infra.clock import ManualClock
from infra.ids import new_id
from infra.postgres import DatabaseUnavailable
from projections.observability import VIEWS
from projections.runner import reduce_all
from schemas.envelope import SYSTEM, Envelope, to_headers
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    PolicyCreated,
    PolicyDeleted,
    rules_of,
)
from streams.runtime import codec
from tests.api.fake_log import FakeRecord
from tests.api.harness import OTHER_TENANT, TENANT, Harness
from tests.api.memory import MemoryReads

LIST = "/api/v1/observe/policies/"
CHECK = "/api/v1/observe/policy-check/"
BOT = {"agent_name": "support-bot", "workflow_name": "tickets"}
DENY = {"name": "no bots", "rule": {"kind": "agents", "deny": ["*-bot"]}}
BUDGET = {
    "name": "daily",
    "rule": {"kind": "budget", "unit": "calls", "limit": 10, "window": "day", "warn_percent": 80},
}


def stored(app: Harness) -> None:
    """Let the queries see the read models of what was recorded so far."""
    rows: dict[str, dict[Any, dict[str, Any]]] = {view.name: {} for view in VIEWS}
    for item in app.bus.events:
        for view, statement in reduce_all(VIEWS, [(item.envelope, item.event)]):
            key = tuple(statement.key.values())
            values = getattr(statement, "values", None)
            if values is None:
                del rows[view.name][key]
            else:
                known = rows[view.name].get(key, {})
                rows[view.name][key] = {**known, **statement.key, **plain(values)}
    found = list(rows["agent_policies"].values())
    history = list(rows["agent_policy_revisions"].values())

    def page(tenant: str, kind: str, _: str, limit: int, offset: int) -> list[dict[str, Any]]:
        chosen = [row for row in found if row["tenant"] == tenant and kind in ("", row["kind"])]
        return chosen[offset : offset + limit]

    app.reads.when(
        "FROM agent_policies_v1 WHERE tenant = %s",
        lambda tenant: [row for row in found if row["tenant"] == tenant],
    )
    app.reads.when(
        "FROM agent_policies_v1 WHERE tenant = %s AND policy_id = %s",
        lambda tenant, id: [r for r in found if (r["tenant"], r["policy_id"]) == (tenant, id)],
    )
    app.reads.when("ORDER BY created_at, policy_id LIMIT", page)
    app.reads.when(
        "count(*) AS policies",
        lambda tenant, kind, _: [{"policies": len(page(tenant, kind, _, 1000, 0))}],
    )
    app.reads.when("FROM agent_policy_revisions_v1", lambda *_: history[::-1])
    app.reads.when("count(*) AS revisions", lambda *_: [{"revisions": len(history)}])


def plain(values: Any) -> dict[str, Any]:

    text = values.get("definition")
    return {**values, **({"definition": msgspec.json.decode(text)} if text else {})}


async def created(app: Harness, body: dict[str, Any], headers: Any) -> dict[str, Any]:
    answer = await app.client.post(LIST, json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def check(app: Harness, headers: Any, **more: str) -> dict[str, Any]:
    answer = await app.client.post(CHECK, json={**BOT, **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_policy_is_created_read_revised_and_deleted() -> None:
    async with Harness(ROUTES) as app:
        headers = app.key(roles=("developer",))
        made = await created(app, {**DENY, "scope": {"workflow_names": ["t*"]}}, headers)
        assert (made["kind"], made["revision"], made["enabled"]) == ("agents", 1, True)
        assert made["rule"] == {
            "kind": "agents", "allow": [], "deny": ["*-bot"], "action": "block",
        }  # fmt: skip
        assert made["scope"] == {"agent_names": [], "workflow_names": ["t*"], "agent_ids": []}
        stored(app)
        one = f"{LIST}{made['policy_id']}/"
        assert (await app.client.get(one, headers=headers)).json() == made
        listed = (await app.client.get(LIST, headers=headers)).json()
        assert listed == {"results": [made], "count": 1, "next": None, "previous": None}
        others = await app.client.get(f"{LIST}?kind=budget", headers=headers)
        assert others.json()["count"] == 0
        revised = await app.client.put(one, json={**BUDGET, "revision": 1}, headers=headers)
        assert (revised.json()["kind"], revised.json()["revision"]) == ("budget", 2)
        stale = await app.client.put(one, json={**DENY, "revision": 1}, headers=headers)
        assert (stale.status_code, stale.json()) == (409, {"error": "the policy is at revision 2"})
        gone = await app.client.delete(one, headers=headers)
        assert (gone.status_code, gone.content) == (204, b"")
        stored(app)
        assert (await app.client.get(one, headers=headers)).status_code == 404
        assert (await app.client.put(one, json=DENY, headers=headers)).status_code == 404
        history = (await app.client.get(f"{one}history/", headers=headers)).json()
        assert [(r["revision"], r["change"]) for r in history["results"]] == [
            (3, "deleted"), (2, "revised"), (1, "created"),
        ]  # fmt: skip
        assert [r["policy"] and r["policy"]["kind"] for r in history["results"]] == [
            None, "budget", "agents",
        ]  # fmt: skip
        assert history["results"][0]["by"]["kind"] == "api_key"


async def test_a_repeated_request_makes_one_policy() -> None:
    async with Harness(ROUTES) as app:
        headers = {**app.key(), "Idempotency-Key": "once"}
        first = await created(app, DENY, headers)
        assert await created(app, DENY, headers) == first
        assert len(app.bus.emitted(PolicyCreated)) == 1


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": ""}, "name"),
        ({"rule": {"kind": "unheard"}}, "rule.kind"),
        ({"rule": {"deny": ["x"]}}, "rule.kind"),
        ({"rule": {"kind": "agents"}}, "rule"),
        ({"rule": {"kind": "agents", "denied": ["x"]}}, "rule"),
        ({"rule": {"kind": "budget", "unit": "usd", "limit": -1, "window": "day"}}, "rule.limit"),
        ({"rule": {"kind": "redaction", "patterns": ["("]}}, "rule.patterns[0]"),
        ({"rule": {"kind": "schedule", "timezone": "Mars"}}, "rule.timezone"),
        ({"scope": {"agents": ["x"]}}, "scope"),
        ({"scope": {"agent_names": [""]}}, "scope.agent_names[0]"),
        ({"priority": 5000}, "priority"),
        ({"prority": 5}, ""),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_its_place(
    change: dict[str, Any], place: str
) -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.post(LIST, json={**DENY, **change}, headers=app.key())
        assert answer.status_code == 400
        told = answer.json()["error"]
        assert told.startswith(f"{place}: " if place else "Object contains")
        assert not place or told.count(f"{place}:") == 1
        assert app.bus.payloads() == []


async def test_readers_read_and_builders_write() -> None:
    async with Harness(ROUTES) as app:
        made = await created(app, DENY, app.key())
        stored(app)
        one = f"{LIST}{made['policy_id']}/"
        for role, reads, writes in (("developer", 200, 200), ("viewer", 200, 403)):
            for headers in (app.key(roles=(role,)), app.human(roles=(role,))):
                for path in (LIST, one, f"{one}history/"):
                    assert (await app.client.get(path, headers=headers)).status_code == reads
                answer = await app.client.put(one, json=DENY, headers=headers)
                assert answer.status_code == writes
                answer = await app.client.post(CHECK, json=BOT, headers=headers)
                assert answer.status_code == writes


async def test_there_is_a_bound_to_the_policies_of_a_tenant() -> None:
    async with Harness(ROUTES) as app:
        app.reads.when("count(*) AS policies", [{"policies": POLICIES_MAX}])
        answer = await app.client.post(LIST, json=DENY, headers=app.key())
        assert answer.status_code == 409
        assert app.bus.payloads() == []


async def test_without_policies_an_agent_may_run() -> None:
    async with Harness(ROUTES) as app:
        assert await check(app, app.key()) == {
            "action": "allow", "reason": "", "metadata": {}, "evaluations": [],
        }  # fmt: skip


async def test_a_policy_holds_from_its_answer_on_and_for_its_tenant_only() -> None:
    async with Harness(ROUTES) as app:
        headers = app.key()
        assert (await check(app, headers))["action"] == "allow"
        made = await created(app, DENY, headers)
        found = await check(app, headers)
        assert (found["action"], found["reason"]) == ("block", "agent 'support-bot' is denied")
        (said,) = found["evaluations"]
        assert (said["policy_id"], said["revision"]) == (made["policy_id"], 1)
        assert found["metadata"]["policy_id"] == made["policy_id"]
        assert (await check(app, headers, agent_name="person"))["action"] == "allow"
        assert (await check(app, app.key(OTHER_TENANT)))["evaluations"] == []
        one = f"{LIST}{made['policy_id']}/"
        await app.client.put(one, json={**DENY, "enabled": False}, headers=headers)
        assert (await check(app, headers))["evaluations"] == []
        await app.client.put(one, json=DENY, headers=headers)
        assert (await check(app, headers))["action"] == "block"
        await app.client.delete(one, headers=headers)
        assert (await check(app, headers))["evaluations"] == []


async def test_a_check_asks_no_database_but_for_the_first_time() -> None:
    async with Harness(ROUTES) as app:
        headers = app.key()
        await created(app, DENY, headers)
        await check(app, headers)
        before = len(app.reads.asked)
        app.reads.fail_with = DatabaseUnavailable("away")
        for _ in range(3):
            assert (await check(app, headers))["action"] == "block"
        assert len(app.reads.asked) == before


async def test_what_was_never_read_cannot_be_judged_without_the_database() -> None:
    async with Harness(ROUTES) as app:
        headers = app.key()
        app.reads.fail_with = DatabaseUnavailable("away")
        answer = await app.client.post(CHECK, json=BOT, headers=headers)
        assert answer.status_code == 503
        app.reads.fail_with = None
        assert (await check(app, headers))["action"] == "allow"


@pytest.mark.parametrize("body", [{}, {"agent_name": ""}, {"agent_name": 1}, []])
async def test_a_check_that_names_no_agent_is_refused(body: Any) -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.post(CHECK, json=body, headers=app.key())
        assert answer.status_code == 400


# The memory, by itself.

ASKED = Asked("support-bot", "tickets")
DENIES = Definition(name="deny", rules=rules_of(AgentsRule(deny=["*"])))
CALLS = Definition(
    name="calls", rules=rules_of(BudgetRule(unit="calls", limit=10, window="day", warn_percent=50))
)


class Memory:
    """A memory over rows that tests set, with clocks that they move."""

    def __init__(self, *definitions: Definition) -> None:
        self.reads, self.clock, self.seconds = MemoryReads(), ManualClock(), 100.0
        self.calls = 0
        self.memory = PolicyMemory(self.reads, self.clock, lambda: self.seconds)
        rows = [
            {"policy_id": f"pol_{n}", "revision": 2, "definition": to_builtins(one)}
            for n, one in enumerate(definitions)
        ]
        self.reads.when("FROM agent_policies_v1", rows)
        self.reads.when("FROM usage_by_agent_v1", lambda *_: [self.usage()])

    def usage(self) -> dict[str, Any]:
        return {
            "window_kind": "day", "agent_name": "a", "workflow_name": "w", "agent_id": "",
            "runs": 0, "calls": self.calls, "tokens": 0, "nanodollars": 0,
        }  # fmt: skip

    @property
    def counted(self) -> int:
        """How often the counts were read."""
        return sum("usage_by_agent" in sql for sql, _ in self.reads.asked)

    async def action(self) -> str:
        return (await self.memory.judge(TENANT, ASKED)).action

    def event(self, change: Any, value: bytes | None = None) -> Any:

        type = change.__struct_config__.tag
        envelope = Envelope(new_id("evt"), type, TENANT, "observability.policy/x", 1, 0, SYSTEM)
        data = codec().encode(change) if value is None else value
        return LiveEvent(FakeRecord("events", 0, 1, tuple(to_headers(envelope)), data), codec())


def to_builtins(definition: Definition) -> Any:

    return copy.deepcopy(msgspec.to_builtins(definition))


def made(revision: int = 1, definition: Definition = DENIES, id: str = "pol_0") -> PolicyCreated:
    return PolicyCreated(policy_id=id, revision=revision, definition=definition, at=0)


async def test_the_log_tells_of_policies_of_other_processes() -> None:
    found = Memory()
    assert await found.action() == "allow"
    found.memory.follow(found.event(made()))
    assert await found.action() == "block"
    found.memory.follow(found.event(PolicyDeleted(policy_id="pol_0", revision=2, at=0)))
    assert await found.action() == "allow"
    found.memory.follow(found.event(made(1)))
    assert await found.action() == "allow", "an older revision changes nothing"


async def test_what_the_log_told_before_the_first_question_is_not_lost() -> None:
    # The rows that are read may be older than the log's end.
    found = Memory(DENIES)
    found.memory.follow(found.event(PolicyDeleted(policy_id="pol_0", revision=3, at=0)))
    assert await found.action() == "allow"
    later = Memory(DENIES)
    later.memory.follow(later.event(PolicyDeleted(policy_id="pol_9", revision=3, at=0)))
    assert await later.action() == "block"


async def test_after_a_gap_in_the_log_and_an_event_of_a_newer_release_rows_are_read_anew() -> None:
    found = Memory()
    assert await found.action() == "allow"
    found.reads.when(
        "FROM agent_policies_v1",
        [{"policy_id": "pol_0", "revision": 1, "definition": to_builtins(DENIES)}],
    )
    assert await found.action() == "allow"
    found.memory.clear()
    assert await found.action() == "block"
    found.reads.when("FROM agent_policies_v1", [])
    found.memory.follow(found.event(made(), b"what only a newer release can read"))
    assert await found.action() == "allow"


async def test_other_events_are_nothing_to_it() -> None:
    found = Memory(DENIES)
    assert await found.action() == "block"
    asked = len(found.reads.asked)
    event = found.event(made(9), b"rubbish")
    event.type = "observability.run_started.v1"
    found.memory.follow(event)
    assert await found.action() == "block"
    assert len(found.reads.asked) == asked


async def counting_ends(found: Memory) -> None:
    """Wait for what is read beside the requests."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        await task


async def test_counts_are_read_beside_the_requests_once_a_second() -> None:
    found = Memory(CALLS)
    assert [await found.action() for _ in range(3)] == ["allow"] * 3
    assert found.counted == 1
    found.calls, found.seconds = 5, found.seconds + 1.1
    assert await found.action() == "allow", "the answer does not wait for the counts"
    await counting_ends(found)
    assert [await found.action() for _ in range(3)] == ["warn"] * 3
    assert found.counted == 2


async def test_counts_that_are_too_old_are_waited_for() -> None:
    found = Memory(CALLS)
    assert await found.action() == "allow"
    found.calls, found.seconds = 10, found.seconds + 60
    assert await found.action() == "block"


async def test_many_that_ask_at_once_read_once() -> None:
    found = Memory(CALLS)
    found.calls = 10
    actions = await asyncio.gather(*(found.action() for _ in range(20)))
    assert actions == ["block"] * 20
    assert (len(found.reads.asked), found.counted) == (2, 1)


async def test_without_the_database_the_last_counts_stand_but_none_is_no_count() -> None:
    found = Memory(CALLS)
    found.calls = 10
    assert await found.action() == "block"
    found.reads.fail_with, found.seconds = DatabaseUnavailable("away"), found.seconds + 60
    assert await found.action() == "block"
    found.memory.apply(TENANT, "pol_new", 1, CALLS)
    with pytest.raises(DatabaseUnavailable):
        await found.action()
    found.reads.fail_with, found.seconds = None, found.seconds + 60
    assert await found.action() == "block"


async def test_a_new_policy_is_counted_for_at_once() -> None:
    found = Memory()
    found.calls = 10
    assert await found.action() == "allow"
    assert found.counted == 0, "nobody asks what was used"
    found.memory.apply(TENANT, "pol_new", 1, CALLS)
    assert await found.action() == "block"


async def test_a_process_has_one_memory() -> None:
    app = Harness(ROUTES)
    assert policy_memory(app.services) is policy_memory(app.services)
