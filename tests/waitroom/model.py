"""What Waitroom's document says, as a small state machine without I/O.

Each method is something that somebody does: it changes the model and gives what came of it, or
raises `Refused` with what the document says instead. Ids are filled in from the server's answers.
Time is a count of half hours since the beginning, so that no real second decides anything.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

UNIT_MINUTES = 30
CLAIM_TOKEN_UNITS = 7 * 24 * 2
WEIGHTS = {"approved": 1.0, "modified": 0.6, "rejected": -0.3, "expired": -0.1}
ENDED = {"approve": "approved", "reject": "rejected", "modify": "modified"}


class Refused(Exception):
    """recorded: the refusal was a decision, so the audit trail has it."""

    def __init__(self, status: int, code: str, recorded: bool = False) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.recorded = status, code, recorded


def missing() -> Refused:
    return Refused(404, "NOT_FOUND")


def forbidden(recorded: bool = False) -> Refused:
    return Refused(403, "FORBIDDEN", recorded)


def conflict(recorded: bool = True) -> Refused:
    return Refused(409, "CONFLICT", recorded)


def payload_hash(action: str, context: Any, changes: dict[str, Any] | None = None) -> str:
    """SHA-256 of what was asked, with the changes that are proposed if there are any."""
    payload = {"action": action, "context": context}
    if changes is not None:
        payload["modifications"] = changes
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(eq=False)
class Person:
    """Somebody who may decide."""

    id: str
    name: str


@dataclass(eq=False)
class Room:
    """policies: as they were written, whole."""

    name: str
    slug: str
    policies: dict[str, Any]
    id: str = ""


@dataclass(eq=False)
class Agent:
    """scopes: the rooms that its key reaches, none is all. listed: its place among the tenant's."""

    name: str
    scopes: list[Room]
    registered_at: int
    claimed: bool = True
    active: bool = True
    listed: int = 0
    id: str = ""
    trust: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def sees(self, room: Room) -> bool:
        return not self.scopes or room in self.scopes


@dataclass(eq=False)
class Decision:
    """What ended a check-in."""

    source: str
    by: str
    reason: str | None = None
    modifications: dict[str, Any] | None = None


@dataclass(eq=False)
class Item:
    """A check-in, or a task. agent: who asks, or who has claimed it; due: when it times out, or
    when the claim ends. needed: how many people must approve; votes: who has approved what stands,
    which is what was asked, or with the `proposed` changes. escalates: when `reviewers` are named.
    """

    kind: str
    room: Room
    asked: dict[str, Any]
    agent: Agent | None = None
    due: int | None = None
    timeout_action: str = ""
    verdict: tuple[str, str] = ("", "")
    trust: float = 0.0
    needed: int = 1
    escalates: float | None = None
    reviewers: list[str] = field(default_factory=list)
    status: str = "pending"
    overdue: bool = False
    votes: list[str] = field(default_factory=list)
    proposed: dict[str, Any] | None = None
    escalated: bool = False
    outcome: str | None = None
    decision: Decision | None = None
    poster: Person | None = None
    claim_units: int = 0
    released_by: Agent | None = None
    help: str | None = None
    helpers: list[Agent] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    id: str = ""

    @property
    def hash(self) -> str:
        return payload_hash(self.asked["action"], self.asked["context"])

    @property
    def standing(self) -> str:
        """The hash of what an approval is about."""
        return payload_hash(self.asked["action"], self.asked["context"], self.proposed)

    @property
    def runs(self) -> dict[str, Any]:
        """The context that may be run: the one asked, with the changes."""
        changes = (self.decision and self.decision.modifications) or {}
        merged = {**self.asked["context"], **changes}
        return {name: value for name, value in merged.items() if value is not None}

    @property
    def allowed(self) -> str | None:
        """The hash of what may be run, if anything may."""
        if self.status not in ("approved", "modified"):
            return None
        return payload_hash(self.asked["action"], self.runs)

    def takes_part(self, agent: Agent) -> bool:
        """Whether an agent may write into the thread."""
        if self.kind == "check_in":
            return agent is self.agent
        return self.status == "pending" or agent is self.agent or agent in self.helpers


@dataclass(eq=False)
class Watcher:
    """expected: what has triggered it, by the name of the event."""

    room: Room
    agent: Agent
    types: list[str]
    risk: str | None
    removed: bool = False
    expected: list[str] = field(default_factory=list)
    id: str = ""

    @property
    def certain(self) -> bool:
        """Whether it is told of everything; what ends a watcher may overtake what happened last."""
        return not self.removed and self.agent.active


Caller = Person | Agent
Told = tuple[str, Any, Any]  # the event's name, what it is about, and what is said of it


class Waitroom:
    """One organisation. told: per room, what its stream tells, in groups that have no order."""

    def __init__(self) -> None:
        self.now = 0
        self.rooms: list[Room] = []
        self.agents: list[Agent] = []
        self.items: list[Item] = []
        self.watchers: list[Watcher] = []
        self.told: list[list[tuple[Room, Told]]] = []
        self._listed = 0

    # Who may do what.

    def _person(self, caller: Caller) -> Person:
        self._known(caller)
        if not isinstance(caller, Person):
            raise forbidden()
        return caller

    def _agent(self, caller: Caller) -> Agent:
        self._known(caller)
        if not isinstance(caller, Agent):
            raise forbidden()
        return caller

    def _known(self, caller: Caller) -> None:
        """A dead key is nobody's; an agent that nobody has claimed reads about itself only."""
        if isinstance(caller, Agent):
            self.check_key(caller)
            if not caller.claimed:
                raise forbidden()

    def check_key(self, agent: Agent) -> None:
        """The key works until it is deactivated, or its token runs out unclaimed."""
        if not agent.active or (not agent.claimed and self._token_is_over(agent)):
            raise Refused(401, "UNAUTHORIZED")

    def _token_is_over(self, agent: Agent) -> bool:
        return self.now >= agent.registered_at + CLAIM_TOKEN_UNITS

    def _sees(self, caller: Caller, room: Room) -> None:
        if isinstance(caller, Agent) and not caller.sees(room):
            raise missing()

    def _tell(self, *events: tuple[Room, Told]) -> None:
        self.told.append([*events])
        for room, (name, about, _) in events:
            for watcher in self.watchers:
                if watcher.room is not room or watcher.removed or not watcher.agent.active:
                    continue
                risk = about.asked["risk_level"] if name == "check_in.created" else None
                if name in watcher.types and watcher.risk in (None, risk):
                    watcher.expected.append(name)

    # Rooms and agents.

    def create_room(self, caller: Caller, name: str, slug: str, policies: dict[str, Any]) -> Room:
        self._person(caller)
        check_policies(policies)
        if any(room.slug == slug for room in self.rooms):
            raise conflict()
        self.rooms.append(Room(name, slug, policies))
        return self.rooms[-1]

    def replace_policies(self, caller: Caller, room: Room, policies: dict[str, Any]) -> Room:
        self._person(caller)
        check_policies(policies)
        room.policies = policies
        return room

    def see_room(self, caller: Caller, room: Room) -> Room:
        self._known(caller)
        self._sees(caller, room)
        return room

    def register_agent(self, caller: Caller, name: str, scopes: list[Room]) -> Agent:
        self._person(caller)
        return self._list(Agent(name, scopes, self.now))

    def self_register(self, name: str) -> Agent:
        agent = Agent(name, [], self.now, claimed=False)
        self.agents.append(agent)
        return agent

    def claim_agent(self, caller: Caller, agent: Agent) -> Agent:
        """Use the token of an agent that registered itself."""
        self._person(caller)
        if agent.claimed:
            raise conflict(recorded=False)  # in the audit trail of nobody's agents
        if self._token_is_over(agent):
            raise missing()
        agent.claimed = True
        return self._list(agent)

    def deactivate(self, caller: Caller, agent: Agent) -> Agent:
        self._person(caller)
        if not agent.claimed:
            raise Refused(404, "NOT_FOUND", recorded=True)
        agent.active = False
        return agent

    def see_agent(self, caller: Caller, agent: Agent) -> Agent:
        self._person(caller)
        if not agent.claimed:
            raise missing()
        return agent

    def _list(self, agent: Agent) -> Agent:
        self._listed += 1
        agent.listed = self._listed
        if agent not in self.agents:
            self.agents.append(agent)
        return agent

    # Check-ins.

    def check_in(self, caller: Caller, room: Room, asked: dict[str, Any]) -> Item:
        agent = self._agent(caller)
        self._sees(agent, room)
        overrides = "timeout_minutes" in asked or "timeout_action" in asked
        if overrides and not room.policies["timeout_override"]:
            raise Refused(403, "POLICY_FORBIDS", recorded=True)
        trust = agent.trust.get(room.id, 15.0)
        action, source, needed = judge(room.policies, asked, trust)
        if action == "forbid":
            raise Refused(403, "POLICY_FORBIDS", recorded=True)
        minutes = asked.get("timeout_minutes", room.policies["timeout_minutes"])
        item = Item(
            "check_in",
            room,
            asked,
            agent,
            self.now + minutes // UNIT_MINUTES,
            asked.get("timeout_action", room.policies["timeout_action"]),
            (action, source),
            trust,
            needed if action == "require_approval" else 1,
        )
        after = room.policies["escalate_after_minutes"]
        if after is not None and action == "require_approval":
            item.escalates = self.now + after / UNIT_MINUTES
            item.reviewers = room.policies["escalate_to"]
        self.items.append(item)
        self._tell((room, ("check_in.created", item, "pending")))
        if action == "auto_approve":
            self._end(item, "approved", Decision("policy", "policy"), trusted=False)
        return item

    def decide(
        self,
        caller: Caller,
        item: Item,
        verb: str,
        reason: str,
        changes: dict[str, Any] | None,
        *,
        shown: str = "",
    ) -> Item:
        """Approve, reject or modify; shown: the hash of what the person saw, if their client tells.
        One no is enough; a yes may need others."""
        person = self._person(caller)
        if item.decision is not None:
            raise conflict()
        if shown and shown != item.standing and (verb, shown) != ("reject", item.hash):
            raise conflict()
        if verb != "reject" and item.needed > 1:
            changes = self._vote(person, item, verb, changes, shown)
            if len(item.votes) < item.needed:
                return item
            verb = "approve" if changes is None else "modify"
        self._end(item, ENDED[verb], Decision("human", person.id, reason, changes))
        return item

    def _vote(
        self,
        person: Person,
        item: Item,
        verb: str,
        changes: dict[str, Any] | None,
        shown: str,
    ) -> dict[str, Any] | None:
        """Say yes to what stands, or propose changes; gives the changes that stand then."""
        if verb == "approve":
            if item.proposed is not None and not shown:
                raise conflict()  # it may have been proposed while they looked
            changes = item.proposed
        before = item.votes if changes == item.proposed else []
        if person.id in before:
            raise conflict()
        item.votes, item.proposed = [*before, person.id], changes
        self._tell((item.room, ("check_in.voted", item, "pending")))
        return changes

    def report(self, caller: Caller, item: Item, outcome: str) -> Item:
        """Say what came of what was allowed; once."""
        agent = self._agent(caller)
        self._sees(agent, item.room)
        if item.kind == "task":
            raise forbidden()
        if agent is not item.agent:
            raise forbidden(recorded=True)
        if item.allowed is None or item.outcome not in (None, outcome):
            raise conflict()
        if item.outcome is None:
            item.outcome = outcome
            self._tell((item.room, ("check_in.outcome", item, outcome)))
            item.messages.append((agent.id, outcome))
            self._tell((item.room, ("check_in.message", item, len(item.messages))))
        return item

    def withdraw(self, caller: Caller, item: Item) -> Item:
        agent = self._agent(caller)
        self._sees(agent, item.room)
        if item.kind == "task":
            raise forbidden()
        if agent is not item.agent:
            raise forbidden(recorded=True)
        if item.decision is not None:
            raise conflict()
        self._end(item, "withdrawn", Decision("agent", agent.id))
        return item

    def _end(self, item: Item, status: str, decision: Decision, trusted: bool = True) -> None:
        item.status, item.decision = status, decision
        name = f"check_in.{status if status in ('withdrawn', 'expired') else 'decided'}"
        self._tell((item.room, (name, item, status)))
        if trusted and item.agent is not None and status in WEIGHTS:
            room = item.room.id
            score = item.agent.trust.get(room, 15.0) + WEIGHTS[status]
            item.agent.trust[room] = round(min(100.0, max(0.0, score)), 1)
            counts = item.agent.counts.setdefault(room, dict.fromkeys(WEIGHTS, 0))
            counts[status] += 1

    # Tasks.

    def post_task(self, caller: Caller, room: Room, asked: dict[str, Any]) -> Item:
        person = self._person(caller)
        item = Item("task", room, asked, poster=person)
        self.items.append(item)
        self._tell((room, ("check_in.created", item, "pending")))
        return item

    def work(self, caller: Caller, item: Item, verb: str, body: str) -> Item:
        """Claim, release, ask for help with or join a task."""
        agent = self._agent(caller)
        self._sees(agent, item.room)
        if item.kind != "task":
            raise conflict(recorded=False)
        if item.decision is not None:
            raise conflict()
        match verb:
            case "claim":
                self._claim(agent, item)
            case "join":
                self._join(agent, item)
            case _ if item.agent is None:
                if verb != "release" or item.released_by is not agent:
                    raise conflict()
            case _ if item.agent is not agent:
                raise forbidden(recorded=True)
            case "release":
                self._free(item, "agent")
            case "help":
                self.sign_of_life(agent, item)
                if item.help != body:
                    item.help = body
                    self._tell((item.room, ("check_in.help_requested", item, body)))
        return item

    def _claim(self, agent: Agent, item: Item) -> None:
        if item.agent is not None:
            if item.agent is not agent:
                raise conflict()
            self.sign_of_life(agent, item)
            return
        item.agent, item.status = agent, "in_progress"
        item.claim_units = item.room.policies["claim_minutes"] // UNIT_MINUTES
        item.due = self.now + item.claim_units
        self._tell((item.room, ("check_in.claimed", item, "in_progress")))

    def _join(self, agent: Agent, item: Item) -> None:
        if agent is item.agent:
            raise conflict()
        if agent in item.helpers:
            return
        if item.help is None:
            raise conflict()
        item.helpers.append(agent)

    def _free(self, item: Item, cause: str) -> None:
        item.released_by, item.agent = item.agent, None
        item.status, item.due, item.help, item.helpers = "pending", None, None, []
        self._tell((item.room, ("check_in.released", item, cause)))

    def sign_of_life(self, caller: Caller, item: Item) -> bool:
        """The agent at work begins its lease anew, once half of it is over. Whether it did."""
        at_work = item.kind == "task" and item.status == "in_progress" and caller is item.agent
        if not at_work or item.due is None or (item.due - self.now) * 2 > item.claim_units:
            return False
        renewed = item.due != self.now + item.claim_units
        item.due = self.now + item.claim_units
        return renewed

    # Threads, signals, watchers.

    def see(self, caller: Caller, item: Item) -> Item:
        self.see_room(caller, item.room)
        return item

    def write(self, caller: Caller, item: Item, body: str) -> Item:
        self.see(caller, item)
        if isinstance(caller, Agent) and not item.takes_part(caller):
            raise forbidden(recorded=True)
        item.messages.append((caller.id, body))
        self._tell((item.room, ("check_in.message", item, len(item.messages))))
        self.sign_of_life(caller, item)
        return item

    def signal(self, caller: Caller, room: Room, type: str) -> Room:
        self._person(caller)
        self._tell((room, ("signal.broadcast", None, type)))
        return room

    def watch(self, caller: Caller, room: Room, types: list[str], risk: str | None) -> Watcher:
        agent = self._agent(caller)
        self._sees(agent, room)
        watcher = Watcher(room, agent, types, risk)
        self.watchers.append(watcher)
        return watcher

    def unwatch(self, caller: Caller, watcher: Watcher) -> Watcher:
        agent = self._agent(caller)
        if watcher.removed:
            raise missing()
        self._sees(agent, watcher.room)
        if agent is not watcher.agent:
            raise forbidden(recorded=True)
        watcher.removed = True
        return watcher

    # Time.

    def pass_time(self, units: int) -> list[Item]:
        """Let time pass; gives what has timed out, to which no one thing happens first."""
        self.now += units
        before = len(self.told)
        escalated = [item for item in self.items if self._escalate(item)]
        over = [item for item in self.items if item.due is not None and item.due <= self.now]
        over = [item for item in over if item.decision is None and not item.overdue]
        for item in over:
            if item.kind == "task":
                self._free(item, "lease")
            elif item.timeout_action == "hold":
                item.overdue = True
                self._tell((item.room, ("check_in.held", item, "pending")))
            elif item.timeout_action == "cancel":
                self._end(item, "expired", Decision("timeout", "weir"))
            else:
                self._end(item, "approved", Decision("timeout", "weir"), trusted=False)
        self.told[before:] = [[event for group in self.told[before:] for event in group]]
        return [*escalated, *over]

    def _escalate(self, item: Item) -> bool:
        """Name the reviewers, if nobody has answered by then."""
        at = item.escalates
        if at is None or at > self.now or item.escalated or item.decision is not None:
            return False
        held = item.timeout_action == "hold"
        if item.due is not None and item.due < at and not held:
            return False  # it times out before
        item.escalated = True
        self._tell((item.room, ("check_in.escalated", item, "pending")))
        return True


def check_policies(policies: dict[str, Any]) -> None:
    """Refuse an escalation of what is over by then."""
    after = policies["escalate_after_minutes"]
    held = policies["timeout_action"] == "hold"
    if after is not None and after >= policies["timeout_minutes"] and not held:
        raise Refused(400, "VALIDATION_ERROR", recorded=True)


def judge(policies: dict[str, Any], asked: dict[str, Any], trust: float) -> tuple[str, str, int]:
    """What policies say, by what, and how many people it takes."""
    needed = policies["approvals_required"]
    for rule in policies["rules"]:
        if holds(rule["when"], asked, trust):
            return rule["action"], "rule", rule.get("approvals_required", needed)
    thresholds = policies["trust_thresholds"] or {}
    threshold = thresholds.get(f"auto_approve_{asked['risk_level']}")
    if threshold is not None and trust >= threshold:
        return "auto_approve", "trust", needed
    return policies["default_action"], "default", needed


def holds(when: dict[str, Any], asked: dict[str, Any], trust: float) -> bool:
    """Whether all conditions of a rule hold."""
    action, amount = asked["action"].lower(), asked["context"].get("amount")
    for name, wanted in when.items():
        match name:
            case "action":
                held = action.startswith(wanted["prefix"].lower())
            case "risk_levels":
                held = asked["risk_level"] in wanted
            case "trust":
                held = trust >= wanted["min"]
            case _:
                held = amount is not None and amount >= wanted[0]["value"]
        if not held:
            return False
    return True
