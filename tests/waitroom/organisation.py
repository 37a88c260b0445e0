"""An organisation over HTTP, and how what it shows is held against the model."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx

from infra.ids import new_id
from tests.waitroom.model import Agent, Caller, Item, Person, Refused, Room, Waitroom, Watcher
from tests.waitroom.rig import PATIENCE_SECONDS, Rig

T = TypeVar("T")

PAGE = 3  # small, so that cursors are followed


class Organisation:
    """A tenant of its own. recorded: what its audit trail has to hold, by whom, what and how."""

    def __init__(self, rig: Rig, model: Waitroom, people: int = 2) -> None:
        self.rig, self.model = rig, model
        self.tenant, made = rig.tenant(people)
        self.headers: dict[Caller, dict[str, str]] = {}
        self.people = []
        for id, name, headers in made:
            self.people.append(Person(id, name))
            self.headers[self.people[-1]] = headers
        self.recorded: Counter[tuple[str, str, str]] = Counter()
        self.began: dict[Room, str] = {}
        self.tokens: dict[Agent, str] = {}
        self.position = ""
        self._there = {agent["id"] for agent in self.pages("/v1/agents")}

    # Asking.

    def call(
        self, caller: Caller, method: str, path: str, body: Any = None, *, key: str = ""
    ) -> httpx.Response:
        """The answer to a request of somebody's."""
        return self.rig.call(method, path, self.headers[caller], body, key=key)

    def get(self, path: str, caller: Caller | None = None) -> Any:
        """What a path holds; a person looks unless told otherwise."""
        answer = self.call(caller or self.people[0], "GET", path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json()

    def pages(
        self, path: str, caller: Caller | None = None, size: int = PAGE
    ) -> list[dict[str, Any]]:
        """All pages of a list, of that size each."""
        found, cursor, more = [], "", True
        joint = "&" if "?" in path else "?"
        while more:
            page = self.get(f"{path}{joint}limit={size}&cursor={cursor}", caller)
            assert len(page["data"]) == size or not page["has_more"], page
            found += page["data"]
            cursor, more = page["cursor"], page["has_more"]
        return found

    def does(
        self,
        caller: Caller,
        action: str,
        method: str,
        path: str,
        expected: Callable[[], T],
        *,
        body: Any = None,
        twice: bool = False,
    ) -> tuple[T | None, Any]:
        """Do something and hold the answer against the model's: what each of them gave.

        action: as the audit trail names it. twice: the request is repeated with its key, and so is
        the answer.
        """
        key = new_id("request")
        answer = self.call(caller, method, path, body, key=key)
        self.position = answer.headers.get("x-log-position", self.position)
        found = self.agree(answer, caller, action, expected)
        if twice:
            again = self.call(caller, method, path, body, key=key)
            assert (again.status_code, said(again)) == (answer.status_code, said(answer))
        return found, answer.json().get("data")

    def agree(
        self, answer: httpx.Response, caller: Caller, action: str, expected: Callable[[], T]
    ) -> T | None:
        """What the model gives, which an answer has to be; None for a refusal."""
        asked = f"{answer.request.method} {answer.request.url.path}: {answer.text}"
        try:
            found = expected()
        except Refused as refused:
            got = answer.status_code, answer.json().get("error", {}).get("code")
            assert got == (refused.status, refused.code), asked
            if refused.recorded:
                self.recorded[caller.id, action, "refused"] += 1
            return None
        assert answer.status_code in (200, 201), asked
        if action:
            self.recorded[caller.id, action, "accepted"] += 1
        return found

    # Comparing.

    def check_item(self, item: Item, caller: Caller | None = None) -> None:
        """A check-in or task with its thread is what the model has."""
        shown = self.get(f"/v1/check-ins/{item.id}", caller)["data"]
        check(shown, item_fields(item, caller))
        if item.kind == "check_in":
            check_approvals(shown, item)
        assert [(m["author_id"], m["body"]) for m in shown["messages"]] == item.messages
        assert [m["number"] for m in shown["messages"]] == [*range(1, len(item.messages) + 1)]
        check(self.get(f"/v1/check-ins/{item.id}/status", caller)["data"], status_fields(item))

    def check_lists(self, room: Room) -> None:
        """All lists of a room, and the organisation's, hold what they have to, newest first."""
        mine = [item for item in reversed(self.model.items) if item.room is room]
        asked = [item for item in mine if item.kind == "check_in"]
        tasks = [item for item in mine if item.kind == "task"]
        path = f"/v1/rooms/{room.id}"
        for status in {"pending", *(item.status for item in asked)}:
            of_status = [item for item in asked if item.status == status]
            self._check_ids(f"{path}/pending?status={status}", of_status)
        for risk in {item.asked["risk_level"] for item in asked}:
            found = [i for i in asked if (i.status, i.asked["risk_level"]) == ("pending", risk)]
            self._check_ids(f"{path}/pending?risk_level={risk}", found)
        for agent in {item.agent for item in asked if item.agent}:
            found = [i for i in asked if i.status == "pending" and i.agent is agent]
            self._check_ids(f"{path}/pending?agent_id={agent.id}", found)
        for said in (True, False):
            found = [i for i in asked if (i.status, i.escalated) == ("pending", said)]
            self._check_ids(f"{path}/pending?escalated={str(said).lower()}", found)
        self._check_ids(f"{path}/tasks", tasks)
        for claimed in ("true", "false"):
            found = [item for item in tasks if (item.agent is not None) == (claimed == "true")]
            self._check_ids(f"{path}/tasks?claimed={claimed}", found)
        alive = [w for w in reversed(self.model.watchers) if w.room is room and not w.removed]
        self._check_ids(f"{path}/watchers", alive)
        self._check_ids("/v1/rooms", [*reversed(self.model.rooms)])
        listed = sorted(self.model.agents, key=lambda agent: agent.listed, reverse=True)
        agents = [agent["id"] for agent in self.pages("/v1/agents")]
        assert [id for id in agents if id not in self._there] == [a.id for a in listed if a.listed]

    def _check_ids(self, path: str, expected: list[Any]) -> None:
        found = [shown["id"] for shown in self.pages(path)]
        assert found == [thing.id for thing in expected], path

    def check_agent(self, agent: Agent) -> None:
        """An agent's own look, its trust and its tasks."""
        if agent.claimed:
            trust = self.get(f"/v1/agents/{agent.id}/trust")["data"]
            assert {item["room_id"]: item["score"] for item in trust} == agent.trust
            for item in trust:
                for outcome, count in agent.counts[item["room_id"]].items():
                    assert item[f"{outcome}_count"] == count, (agent.name, item)
        try:
            self.model.check_key(agent)
        except Refused as refused:
            self.until(lambda: self.call(agent, "GET", "/v1/agents/me").status_code, refused.status)
            return
        me = self.get("/v1/agents/me", agent)["data"]
        check(me, {"id": agent.id, "name": agent.name, "claimed": agent.claimed})
        assert (me["claim_token"] is None) == agent.claimed
        if agent.claimed:
            mine = [i for i in reversed(self.model.items) if i.kind == "task" and i.agent is agent]
            shown = self.pages("/v1/check-ins/claimed", agent)
            assert [task["id"] for task in shown] == [task.id for task in mine]

    def check_stream(self, room: Room, last: Watcher) -> None:
        """A room's events from its beginning; the trigger of `last` is the end of them."""
        expected = [
            [_told(told) for where, told in group if where is room] for group in self.model.told
        ]
        triggered: dict[str, list[str]] = {}
        found: list[tuple[str, str | None, Any]] = []
        positions = []
        path = f"/v1/rooms/{room.id}/events"
        with self.rig.following(path, self.headers[self.people[0]], self.began[room]) as events:
            for position, name, data in events:
                positions.append(int(position.rpartition(":")[2]))
                if name != "watcher.triggered":
                    found.append((name, about(data), detail(data)))
                    continue
                triggered.setdefault(data["watcher_id"], []).append(data["event_type"])
                if data["watcher_id"] == last.id:
                    break
        assert positions == sorted(set(positions)), "the stream repeats itself"
        behind = iter(found)
        for group in expected:
            got = [told for _, told in zip(group, behind, strict=False)]
            assert Counter(got) == Counter(group), f"{room.slug}: {got} for {group}"
        assert list(behind) == []
        for watcher in self.model.watchers:
            if watcher.room is room:
                self._check_triggered(watcher, triggered.get(watcher.id, []))

    def _check_triggered(self, watcher: Watcher, found: list[str]) -> None:
        got, expected = Counter(found), Counter(watcher.expected)
        assert got <= expected, f"{watcher.id} was triggered too often: {got} for {expected}"
        if watcher.certain:
            assert got == expected, f"{watcher.id} was not told: {got} for {expected}"

    def check_audit(self) -> None:
        """The trail holds each decision and refusal once, and hangs together."""
        trail = self.trail("", sum(self.recorded.values()))
        links = [(record["seq"], record["prev_hash"]) for record in trail]
        assert links[1:] == [(record["seq"] + 1, record["hash"]) for record in trail[:-1]]
        found = Counter(
            (record["actor_id"], record["event_type"].removeprefix("approvals."), record["outcome"])
            for record in _of_people(trail)
        )
        assert found == self.recorded, (
            f"too many {found - self.recorded}, too few {self.recorded - found}"
        )
        decided = Counter(
            record["resource_id"]
            for record in trail
            if any(name.endswith(ENDINGS) for name in record["events"])
        )
        assert decided == Counter(item.id for item in self.model.items if item.decision)

    def trail(self, query: str, count: int) -> list[dict[str, Any]]:
        """The audit trail that a query asks for, oldest first, once people have so many records in
        it: the view comes a moment behind."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self.pages(f"/v1/audit?{query}", size=100)
            if len(list(_of_people(found))) >= count or time.monotonic() > deadline:
                return found[::-1]
            time.sleep(0.1)

    def until(self, ask: Callable[[], T], expected: T) -> None:
        """Wait until what is asked is as it has to be."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := ask()) != expected:
            assert time.monotonic() < deadline, f"it stays at {found} and is not {expected}"
            time.sleep(0.05)


ENDINGS = tuple(
    f"{kind}.v1"
    for kind in (
        *("check_in_approved", "check_in_rejected", "check_in_modified", "check_in_withdrawn"),
        *("check_in_expired", "task_decided"),
    )
)
# Sent by whoever looks at a task that it works on: as often as it happens to look.
_UNCOUNTED = "approvals.renew_task_claim"


def _of_people(trail: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for record in trail:
        if record["actor_type"] != "system" and record["event_type"] != _UNCOUNTED:
            yield record


def check(shown: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is shown has these fields."""
    got = {name: shown[name] for name in expected}
    assert got == expected, f"{shown['id']} is not what the model has"


def said(answer: httpx.Response) -> Any:
    """An answer's body, without what names the request."""
    body = answer.json()
    body.get("error", {}).pop("request_id", None)
    return body


def status_fields(item: Item) -> dict[str, Any]:
    """What a check-in's status has to say."""
    decision = item.decision
    fields: dict[str, Any] = {
        "id": item.id,
        "status": item.status,
        "overdue": item.overdue and decision is None,
        "decision_source": decision and decision.source,
        "decided_by": decision and decision.by,
        "modifications": decision and decision.modifications,
        "payload_hash": item.hash,
        "approved_hash": item.allowed,
    }
    if decision is None or decision.reason is not None:
        fields["decision_reason"] = decision and decision.reason
    return fields


def item_fields(item: Item, reader: Caller | None = None) -> dict[str, Any]:
    """What a check-in or a task has to show; a person reads unless told otherwise."""
    fields = status_fields(item) | {
        "kind": item.kind,
        "room_id": item.room.id,
        "agent_id": item.agent and item.agent.id,
        "agent_name": item.agent and item.agent.name,
        **{name: item.asked[name] for name in ("action", "risk_level", "context")},
    }
    changed = item.decision is not None and item.decision.modifications is not None
    if changed and isinstance(reader, Agent):
        fields["context"] = item.runs
    if item.kind == "check_in":
        policies = item.asked.get("timeout_action", item.timeout_action)
        return fields | {
            "timeout_action": policies,
            "trust_score": item.trust,
            "escalated_to": item.reviewers if item.escalated else [],
        }
    assert item.poster is not None
    return fields | {"claimed": item.agent is not None, "created_by": item.poster.id}


def check_approvals(shown: dict[str, Any], item: Item) -> None:
    """A check-in shows who has approved what, and what came of it."""
    outcome = shown["outcome"]
    assert (outcome and outcome["status"]) == item.outcome
    if item.needed == 1:
        assert shown["approvals"] is None
        return
    approvals = shown["approvals"]
    assert (approvals["required"], [vote["by"] for vote in approvals["votes"]]) == (
        item.needed,
        item.votes,
    )
    assert (approvals["payload_hash"], approvals["proposed_modifications"]) == (
        item.standing,
        item.proposed,
    )


def _told(told: tuple[str, Any, Any]) -> tuple[str, Any, Any]:
    name, about, detail = told
    return name, about.id if isinstance(about, Item) else None, detail


def about(data: dict[str, Any]) -> str | None:
    """The check-in that an event is about."""
    return data.get("check_in_id")


def detail(data: dict[str, Any]) -> Any:
    """What tells an event from others of its name."""
    if "cause" in data:
        return data["cause"]
    if "number" in data:
        return data["number"]
    if "outcome" in data:
        return data["outcome"]
    if "status" in data:
        return data["status"]
    return data["type"] if "type" in data else data["body"]
