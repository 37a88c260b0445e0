"""The machine: random people and agents on the HTTP API, held against the model at every step."""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, TypeVar

import httpx
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.waitroom.asking import (
    ANSWERS,
    ASKED,
    CHANCE,
    CHANGES,
    OFTEN,
    ONE,
    OUTCOMES,
    POLICIES,
    RISKS,
    TASKS,
    VERBS,
    WATCHED,
)
from tests.waitroom.model import (
    CLAIM_TOKEN_UNITS,
    UNIT_MINUTES,
    Agent,
    Caller,
    Item,
    Room,
    Waitroom,
)
from tests.waitroom.organisation import (
    Organisation,
    check,
    check_approvals,
    item_fields,
    status_fields,
)
from tests.waitroom.rig import Rig

T = TypeVar("T")

ROOMS_MAX, AGENTS_MAX = 2, 5


def with_rooms(machine: "WaitroomMachine") -> bool:
    return bool(machine.model.rooms)


def with_items(machine: "WaitroomMachine") -> bool:
    return bool(machine.model.items)


def with_tasks(machine: "WaitroomMachine") -> bool:
    return any(item.kind == "task" for item in machine.model.items)


def pick(number: int, things: list[T]) -> T:
    """One of some things."""
    return things[number % len(things)]


class EveryRule:
    """Instead of the choice of rules that Hypothesis makes for each example."""

    def is_enabled(self, name: str) -> bool:
        return True


class WaitroomMachine(RuleBasedStateMachine):
    """Each example has an organisation of its own. `rig` is set by whoever runs the machine."""

    rig: ClassVar[Rig]

    model: Waitroom
    its: Organisation

    def __init__(self) -> None:
        super().__init__()
        # Hypothesis leaves out many of the rules in each example, which suits many examples.
        self._rules_strategy.enabled_rules_strategy = st.just(EveryRule())
        self.model = Waitroom()

    def caller(self, number: int, person: bool) -> Caller:
        """A person, or an agent if there is one."""
        if person or not self.model.agents:
            return pick(number, self.its.people)
        return pick(number, self.model.agents)

    def reviewed(self, policies: dict[str, Any]) -> dict[str, Any]:
        """Policies with people to escalate to, if they escalate."""
        named = [] if policies["escalate_after_minutes"] is None else [self.its.people[-1].id]
        return policies | {"escalate_to": named}

    # Rooms and agents.

    @initialize(policies=POLICIES, questions=ASKED, answers=ANSWERS, chance=CHANCE)
    def people_come(
        self,
        policies: dict[str, Any],
        questions: list[dict[str, Any]],
        answers: list[dict[str, Any]],
        chance: int,
    ) -> None:
        """A room that asks people, two agents, and the first questions and answers."""
        assume(chance)
        self.its = Organisation(self.rig, self.model)
        self.does = self.its.does
        soon = {"escalate_after_minutes": UNIT_MINUTES // 2}
        self.create_room(0, True, policies | soon | {"default_action": "require_approval"}, False)
        self.register_agent(0, True, [])
        self.register_agent(1, True, [0])
        self._ask_all(self.model.agents[0], self.model.rooms[0], questions)
        self.decide(0, True, answers)

    @precondition(lambda self: len(self.model.rooms) < ROOMS_MAX)
    @rule(who=ONE, person=OFTEN, policies=POLICIES, taken=st.booleans())
    def create_room(self, who: int, person: bool, policies: dict[str, Any], taken: bool) -> None:
        caller, policies = self.caller(who, person), self.reviewed(policies)
        slug = f"room-{len(self.model.rooms) - (taken and with_rooms(self))}"
        body = {"name": slug, "slug": slug, "policies": policies}
        room, shown = self.does(
            caller,
            "create_room",
            "POST",
            "/v1/rooms",
            lambda: self.model.create_room(caller, slug, slug, policies),
            body=body,
        )
        if room is not None:
            room.id, self.its.began[room] = shown["id"], self.its.position

    @precondition(with_rooms)
    @rule(who=ONE, person=OFTEN, which=ONE, policies=POLICIES)
    def replace_policies(
        self, who: int, person: bool, which: int, policies: dict[str, Any]
    ) -> None:
        caller, room = self.caller(who, person), pick(which, self.model.rooms)
        policies = self.reviewed(policies)
        replaced, shown = self.does(
            caller,
            "replace_room_policies",
            "PUT",
            f"/v1/rooms/{room.slug}/policies",
            lambda: self.model.replace_policies(caller, room, policies),
            body={"policies": policies},
        )
        if replaced is not None:
            assert shown["policies"]["timeout_action"] == policies["timeout_action"]

    @precondition(lambda self: len(self.model.agents) < AGENTS_MAX)
    @rule(who=ONE, person=OFTEN, scopes=st.lists(ONE, max_size=2))
    def register_agent(self, who: int, person: bool, scopes: list[int]) -> None:
        caller, name = self.caller(who, person), f"agent {len(self.model.agents)}"
        reached = list(dict.fromkeys(pick(which, self.model.rooms) for which in scopes))
        agent, shown = self.does(
            caller,
            "register_agent",
            "POST",
            "/v1/agents/register",
            lambda: self.model.register_agent(caller, name, reached),
            body={"name": name, "room_scopes": [room.id for room in reached]},
        )
        if agent is not None:
            self._meet(agent, shown)

    @precondition(lambda self: len(self.model.agents) < AGENTS_MAX)
    @rule()
    def self_register(self) -> None:
        name = f"agent {len(self.model.agents)}"
        answer = self.rig.call(
            "POST", "/v1/agents/self-register", {}, {"name": name}, stranger=True
        )
        assert answer.status_code == 201, answer.text
        agent, shown = self.model.self_register(name), answer.json()["data"]
        self._meet(agent, shown)
        self.its.tokens[agent] = shown["claim_token"]

    def _meet(self, agent: Agent, shown: dict[str, Any]) -> None:
        agent.id = shown["agent"]["id"]
        self.its.headers[agent] = {"Authorization": f"Bearer {shown['api_key']}"}
        self.its.check_agent(agent)

    @precondition(lambda self: bool(self.its.tokens))
    @rule(who=ONE, person=OFTEN, which=ONE, twice=st.booleans())
    def claim_agent(self, who: int, person: bool, which: int, twice: bool) -> None:
        caller, agent = self.caller(who, person), pick(which, list(self.its.tokens))
        claimed, _ = self.does(
            caller,
            "adopt_agent",
            "POST",
            "/v1/agents/claim",
            lambda: self.model.claim_agent(caller, agent),
            body={"claim_token": self.its.tokens[agent]},
            twice=twice,
        )
        if claimed is not None:
            self.its.check_agent(agent)

    @precondition(lambda self: len(self.model.agents) > 2)
    @rule(who=ONE, person=OFTEN, which=ONE, sure=st.sampled_from([True, False, False]))
    def deactivate(self, who: int, person: bool, which: int, sure: bool) -> None:
        agent = pick(which, self.model.agents)
        if not sure:
            return self.look(which, who, person)
        caller = self.caller(who, person)
        self.does(
            caller,
            "deactivate_agent",
            "DELETE",
            f"/v1/agents/{agent.id}",
            lambda: self.model.deactivate(caller, agent),
        )
        self.its.check_agent(agent)
        return None

    @rule(who=ONE, person=st.booleans(), which=ONE)
    def look_at_an_agent(self, who: int, person: bool, which: int) -> None:
        agent, caller = pick(which, self.model.agents), self.caller(who, person)
        path = f"/v1/agents/{agent.id}"
        self.does(caller, "", "GET", path, lambda: self.model.see_agent(caller, agent))
        self.its.check_agent(agent)

    # Check-ins.

    @precondition(with_rooms)
    @rule(
        who=ONE,
        person=st.sampled_from([False] * 7 + [True]),
        which=ONE,
        by_slug=st.booleans(),
        questions=ASKED,
        twice=st.booleans(),
    )
    def check_in(
        self,
        *,
        who: int,
        person: bool,
        which: int,
        by_slug: bool,
        questions: list[dict[str, Any]],
        twice: bool,
    ) -> None:
        caller, room = self.caller(who, person), pick(which, self.model.rooms)
        self._ask_all(caller, room, questions, by_slug, twice)

    def _ask_all(
        self,
        caller: Caller,
        room: Room,
        questions: list[dict[str, Any]],
        by_slug: bool = True,
        twice: bool = False,
    ) -> None:
        for asked in questions:
            self._ask(caller, room, by_slug, asked, twice)

    def _ask(
        self, caller: Caller, room: Room, by_slug: bool, asked: dict[str, Any], twice: bool
    ) -> None:
        item, shown = self.does(
            caller,
            "create_check_in",
            "POST",
            f"/v1/rooms/{room.slug if by_slug else room.id}/check-in",
            lambda: self.model.check_in(caller, room, asked),
            body=asked,
            twice=twice,
        )
        if item is not None:
            item.id = shown["id"]
            check(shown, item_fields(item))
            assert (shown["policy"]["action"], shown["policy"]["source"]) == item.verdict

    @precondition(with_items)
    @rule(which=ONE, waiting=OFTEN, answers=ANSWERS)
    def decide(self, which: int, waiting: bool, answers: list[dict[str, Any]]) -> None:
        """Several answers to one question; of what waits if there is anything."""
        if not self.model.items:
            return
        items = self.model.items
        waits = [item for item in items if item.status == "pending" and item.kind == "check_in"]
        item = pick(which, waits if waiting and waits else items)
        for answer in answers:
            self._answer(item, **answer)

    def _answer(
        self,
        item: Item,
        *,
        who: int,
        person: bool,
        verb: str,
        changes: dict[str, Any],
        hashed: str,
        twice: bool,
    ) -> None:
        """Decide, or vote."""
        caller = self.caller(who, person)
        shown = getattr(item, hashed) if hashed and item.kind == "check_in" else ""
        made = changes if verb == "modify" else None
        found, answered = self.does(
            caller,
            decision_of(verb, item),
            "POST",
            f"/v1/check-ins/{item.id}/{verb}",
            lambda: self.model.decide(caller, item, verb, "why not", made, shown=shown),
            body=body_of(verb, changes, shown),
            twice=twice,
        )
        if found is not None:
            check(answered, item_fields(item))
            if item.kind == "check_in":
                check_approvals(answered, item)

    @precondition(lambda self: any(item.needed == 1 for item in self.model.items))
    @rule(
        which=ONE,
        verbs=st.lists(VERBS, min_size=2, max_size=4),
        changes=CHANGES,
        withdrawn=st.booleans(),
    )
    def many_decide_at_once(
        self, which: int, verbs: list[str], changes: dict[str, Any], withdrawn: bool
    ) -> None:
        """One wins, and the others are told who has."""
        item = pick(which, [item for item in self.model.items if item.needed == 1])
        asks: list[tuple[Caller, str]] = [
            (pick(number, self.its.people), verb) for number, verb in enumerate(verbs)
        ]
        if withdrawn and item.kind == "check_in" and item.agent and item.agent.active:
            asks.append((item.agent, "withdraw"))

        def ends(asked: tuple[Caller, str]) -> httpx.Response:
            caller, verb = asked
            return self.its.call(caller, *request_of(verb, item), body_of(verb, changes))

        answers = self.rig.at_once(ends, asks)
        first = sorted(zip(answers, asks, strict=True), key=lambda pair: pair[0].status_code)
        for answer, (caller, verb) in first:
            self.its.agree(
                answer,
                caller,
                decision_of(verb, item),
                partial(self._settles, caller, item, verb, changes),
            )

    def _settles(self, caller: Caller, item: Item, verb: str, changes: dict[str, Any]) -> Item:
        if verb == "withdraw":
            return self.model.withdraw(caller, item)
        made = changes if verb == "modify" else None
        return self.model.decide(caller, item, verb, "why not", made)

    @precondition(with_items)
    @rule(who=ONE, own=OFTEN, which=ONE, twice=st.booleans())
    def withdraw(self, who: int, own: bool, which: int, twice: bool) -> None:
        item = pick(which, self.model.items)
        caller = item.agent if own and item.agent else self.caller(who, False)
        self.does(
            caller,
            "withdraw_check_in",
            "DELETE",
            f"/v1/check-ins/{item.id}",
            lambda: self.model.withdraw(caller, item),
            twice=twice,
        )

    @precondition(with_items)
    @rule(who=ONE, own=OFTEN, which=ONE, outcome=OUTCOMES, twice=st.booleans())
    def report(self, who: int, own: bool, which: int, outcome: str, twice: bool) -> None:
        """What came of it: of something that was allowed, if there is any and one is lucky."""
        items = self.model.items
        item = pick(which, [item for item in items if own and item.allowed] or items)
        caller = item.agent if own and item.agent else self.caller(who, False)
        found, shown = self.does(
            caller,
            "report_outcome",
            "POST",
            f"/v1/check-ins/{item.id}/outcome",
            lambda: self.model.report(caller, item, outcome),
            body={"status": outcome},
            twice=twice,
        )
        if found is not None:
            check(shown, item_fields(item, caller))
            check_approvals(shown, item)

    # Tasks.

    @precondition(with_rooms)
    @rule(who=ONE, person=OFTEN, which=ONE, asked=TASKS, twice=st.booleans())
    def post_task(
        self, *, who: int, person: bool, which: int, asked: dict[str, Any], twice: bool
    ) -> None:
        caller, room = self.caller(who, person), pick(which, self.model.rooms)
        item, shown = self.does(
            caller,
            "post_task",
            "POST",
            f"/v1/rooms/{room.slug}/tasks",
            lambda: self.model.post_task(caller, room, asked),
            body=asked,
            twice=twice,
        )
        if item is not None:
            item.id = shown["id"]
            check(shown, item_fields(item))

    @precondition(with_tasks)
    @rule(
        who=ONE,
        own=st.booleans(),
        which=ONE,
        verb=st.sampled_from(["claim", "claim", "release", "help", "help", "join"]),
        twice=st.booleans(),
    )
    def work(self, who: int, own: bool, which: int, verb: str, twice: bool) -> None:
        item = pick(which, [item for item in self.model.items if item.kind == "task"])
        caller = item.agent if own and item.agent else self.caller(who, False)
        actions = {"claim": "claim_task", "release": "release_task", "join": "join_task"}
        found, shown = self.does(
            caller,
            actions.get(verb, "request_help"),
            "POST",
            f"/v1/check-ins/{item.id}/{verb}",
            lambda: self.model.work(caller, item, verb, "a hand"),
            body={"body": "a hand"} if verb == "help" else None,
            twice=twice,
        )
        if found is not None:
            check(shown, item_fields(item))

    @precondition(with_tasks)
    @rule(which=ONE)
    def many_claim_at_once(self, which: int) -> None:
        item = pick(which, [item for item in self.model.items if item.kind == "task"])
        able = [a for a in self.model.agents if a.claimed and a.active and a.sees(item.room)]
        if item.agent in able:
            able.remove(item.agent)
        answers = self.rig.at_once(
            lambda agent: self.its.call(agent, "POST", f"/v1/check-ins/{item.id}/claim"), able
        )
        first = sorted(zip(answers, able, strict=True), key=lambda pair: pair[0].status_code)
        for answer, agent in first:
            claims = partial(self.model.work, agent, item, "claim", "")
            self.its.agree(answer, agent, "claim_task", claims)

    # Threads, signals and watchers.

    @precondition(with_items)
    @rule(who=ONE, person=st.booleans(), which=ONE, twice=st.booleans())
    def write(self, who: int, person: bool, which: int, twice: bool) -> None:
        caller, item = self.caller(who, person), pick(which, self.model.items)
        body = f"message {len(item.messages)}"
        self.does(
            caller,
            "post_message",
            "POST",
            f"/v1/check-ins/{item.id}/messages",
            lambda: self.model.write(caller, item, body),
            body={"body": body},
            twice=twice,
        )

    @precondition(with_rooms)
    @rule(who=ONE, person=OFTEN, which=ONE)
    def signal(self, who: int, person: bool, which: int) -> None:
        caller, room = self.caller(who, person), pick(which, self.model.rooms)
        self.does(
            caller,
            "broadcast_signal",
            "POST",
            f"/v1/rooms/{room.slug}/signal",
            lambda: self.model.signal(caller, room, "weather"),
            body={"type": "weather"},
        )

    @precondition(with_rooms)
    @rule(who=ONE, which=ONE, types=WATCHED, risk=st.none() | RISKS)
    def watch(self, who: int, which: int, types: list[str], risk: str | None) -> None:
        caller, room = self.caller(who, False), pick(which, self.model.rooms)
        self._watch(caller, room, types, risk)

    def _watch(self, caller: Caller, room: Room, types: list[str], risk: str | None) -> None:
        watcher, shown = self.does(
            caller,
            "create_watcher",
            "POST",
            f"/v1/rooms/{room.id}/watch",
            lambda: self.model.watch(caller, room, types, risk),
            body={"event_types": types, "filter": {} if risk is None else {"risk_level": risk}},
        )
        if watcher is not None:
            watcher.id = shown["id"]

    @precondition(lambda self: bool(self.model.watchers))
    @rule(who=ONE, own=st.booleans(), which=ONE)
    def unwatch(self, who: int, own: bool, which: int) -> None:
        watcher = pick(which, self.model.watchers)
        caller = watcher.agent if own else self.caller(who, False)
        self.does(
            caller,
            "remove_watcher",
            "DELETE",
            f"/v1/watchers/{watcher.id}",
            lambda: self.model.unwatch(caller, watcher),
        )

    # Looking, and time.

    @precondition(with_items)
    @rule(which=ONE, who=ONE, person=st.booleans())
    def look(self, which: int, who: int, person: bool) -> None:
        """A look at a check-in and its status; of the agent at work it is a sign of life."""
        if not self.model.items:
            return
        caller, item = self.caller(who, person), pick(which, self.model.items)
        path = f"/v1/check-ins/{item.id}/status"
        before = self.its.get(f"/v1/check-ins/{item.id}")["data"].get("claim_expires_at")
        found, shown = self.does(caller, "", "GET", path, lambda: self.model.see(caller, item))
        if found is None:
            return
        check(shown, status_fields(item))
        if self.model.sign_of_life(caller, item):
            self.its.until(lambda: self._renewed(caller, item, before), True)
        self.its.check_item(item, caller)

    def _renewed(self, caller: Caller, item: Item, before: str | None) -> bool:
        # A look that a kill has cost its effect is followed by another.
        self.its.get(f"/v1/check-ins/{item.id}/status", caller)
        return bool(self.its.get(f"/v1/check-ins/{item.id}")["data"]["claim_expires_at"] != before)

    @precondition(with_rooms)
    @rule(which=ONE)
    def look_at_a_room(self, which: int) -> None:
        self.its.check_lists(pick(which, self.model.rooms))

    @precondition(with_items)
    @rule(units=st.sampled_from([1, 1, 1, 2, 2, CLAIM_TOKEN_UNITS]))
    def time_passes(self, units: int) -> None:
        self.rig.clock.advance(units * UNIT_MINUTES)
        for item in self.model.pass_time(units):
            fields = item_fields(item)
            self.its.until(partial(self._shown, item, fields), fields)

    def _shown(self, item: Item, names: Iterable[str]) -> dict[str, Any]:
        shown = self.its.get(f"/v1/check-ins/{item.id}")["data"]
        return {name: shown[name] for name in names}

    def teardown(self) -> None:
        """In the end everything is as the model has it: items, lists, streams, the audit trail."""
        if sys.exc_info()[0] is not None or not self.model.rooms:
            return  # what has failed already is told by that
        for item in self.model.items:
            self.its.check_item(item)
        self.register_agent(0, True, [])
        last = self.model.agents[-1]
        for number, room in enumerate(self.model.rooms):
            self.its.check_lists(room)
            self._end(number, room, last)
            self.its.check_stream(room, self.model.watchers[-1])
        for agent in self.model.agents:
            self.its.check_agent(agent)
        self.its.check_audit()

    def _end(self, number: int, room: Room, last: Agent) -> None:
        """Let something happen that only the newest watcher is told of, after all the others."""
        self._watch(last, room, ["check_in.help_requested"], None)
        asked = {"action": "send mail", "risk_level": "low", "context": {}}
        self.post_task(who=0, person=True, which=number, asked=asked, twice=False)
        which = sum(item.kind == "task" for item in self.model.items) - 1
        for verb in ("claim", "help"):
            who = self.model.agents.index(last)
            self.work(who=who, own=False, which=which, verb=verb, twice=False)


def decision_of(verb: str, item: Item) -> str:
    """A decision as the audit trail names it."""
    return "decide_task" if item.kind == "task" else f"{verb}_check_in"


def body_of(verb: str, changes: dict[str, Any], shown: str = "") -> dict[str, Any] | None:
    """What a decision is asked for with."""
    if verb == "withdraw":
        return None
    body: dict[str, Any] = {"reason": "why not"}
    if verb == "modify":
        body["modifications"] = changes
    if shown:
        body["payload_hash"] = shown
    return body


def request_of(verb: str, item: Item) -> tuple[str, str]:
    """Method and path of what ends a check-in."""
    path = f"/v1/check-ins/{item.id}"
    return ("DELETE", path) if verb == "withdraw" else ("POST", f"{path}/{verb}")
