"""The approvals read models: every event, the statements it gives, no database."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from projections.approvals import VIEWS
from projections.approvals.agents import AGENTS
from projections.approvals.check_ins import CHECK_INS, page
from projections.approvals.messages import MESSAGES
from projections.approvals.registrations import REGISTRATIONS
from projections.approvals.rooms import ROOMS
from projections.approvals.tasks import TASKS
from projections.approvals.tasks import page as page_of_tasks
from projections.approvals.trust_moves import TRUST_MOVES
from projections.approvals.trust_scores import TRUST_SCORES
from projections.approvals.watchers import WATCHERS
from projections.runner import fold, reduce_all
from projections.statements import Delete, Put, Set, View
from schemas.approvals import EVENTS
from schemas.approvals.agent import AgentAdopted, AgentDeactivated, AgentRegistered
from schemas.approvals.check_in import (
    CheckInApproved,
    CheckInCreated,
    CheckInEscalated,
    CheckInExpired,
    CheckInHeld,
    CheckInModified,
    CheckInOutcomeReported,
    CheckInRejected,
    CheckInVoted,
    CheckInWithdrawn,
    Decision,
    Outcome,
    Vote,
)
from schemas.approvals.policies import Policies, Verdict
from schemas.approvals.registration import AgentClaimed, AgentClaimExpired, AgentSelfRegistered
from schemas.approvals.room import RoomCreated, RoomPoliciesReplaced
from schemas.approvals.signal import SignalBroadcast
from schemas.approvals.task import (
    Helper,
    TaskClaimed,
    TaskClaimRenewed,
    TaskDecided,
    TaskHelperJoined,
    TaskHelpRequested,
    TaskPosted,
    TaskReleased,
)
from schemas.approvals.thread import MessagePosted
from schemas.approvals.trust import TrustMoved
from schemas.approvals.watcher import WatcherCreated, WatcherRemoved, WatcherTriggered
from schemas.envelope import Actor, Envelope

AT = 1_700_000_000_000_000
HASH = "ab" * 32
POLICIES = Policies("require_approval", 60, "cancel")
POLICIES_JSON = msgspec.json.encode(POLICIES).decode()
VERDICT = Verdict("require_approval", "default", "no rule matched")
DECISION = Decision("cmd_1", "human", "usr_1", "Ada", "fine", HASH, AT + 5)
DECISION_JSON = msgspec.json.encode(DECISION).decode()
CREATED = CheckInCreated(
    room_id="room_1",
    agent_id="agt_1",
    agent_name="Robby",
    action="refund",
    description="",
    risk_level="low",
    urgency="normal",
    context='{"amount":1}',
    payload_hash=HASH,
    verdict=VERDICT,
    trust_score=15.0,
    timeout_minutes=60,
    timeout_action="hold",
    created_at=AT,
    due_at=AT + 60,
    approvals_required=2,
    escalate_at=AT + 30,
    escalate_to=["usr_2"],
)
VOTE = Vote("cmd_2", "usr_1", "Ada", "fine", HASH, AT + 4)
VOTES_JSON = msgspec.json.encode([VOTE]).decode()
OUTCOME = Outcome("failed", "no such order", '{"code":404}', AT + 7)
OUTCOME_JSON = msgspec.json.encode(OUTCOME).decode()
IDS = ("room_1", "agt_1")
ROOM = {"tenant": "ten_1", "id": "room_1"}
AGENT = {"tenant": "ten_1", "id": "agt_1"}
CHECK_IN = {"tenant": "ten_1", "id": "ci_1"}
TASK = {"tenant": "ten_1", "id": "task_1"}
NOBODY_AT_WORK = {
    "agent_id": "",
    "agent_name": "",
    "claimed": False,
    "claimed_at": None,
    "claimed_until": None,
    "claim_minutes": None,
    "help_body": None,
    "help_requested_at": None,
    "helpers": "[]",
}
TRUSTED = TrustMoved("agt_1", "room_1", "ci_1", "approved", 1.0, 16.0, 1, 0, 0, 0, AT)
HELPER = Helper("agt_2", "Marvin", AT + 3)
WATCHER = {"tenant": "ten_1", "id": "wat_1"}
# A signal is told to whoever is there, and looked up by nobody.
UNSHOWN = {SignalBroadcast}


def envelope(stream: str) -> Envelope:
    return Envelope("evt_1", "x", "ten_1", stream, 1, AT, Actor("user", "usr_9", "Root"))


def settled(status: str, modifications: str | None = None) -> Set:
    values = {
        "status": status,
        "decision": DECISION_JSON,
        "modifications": modifications,
        "updated_at": AT + 5,
    }
    return Set(CHECK_IN, values)


CASES: list[tuple[View, str, Any, Any]] = [
    (
        ROOMS,
        "approvals.room/room_1",
        RoomCreated("payments", "Payments", "Who pays", POLICIES, "usr_1", AT),
        Put(
            ROOM,
            {
                "slug": "payments",
                "name": "Payments",
                "description": "Who pays",
                "policies": POLICIES_JSON,
                "owner_id": "usr_1",
                "created_at": AT,
                "updated_at": AT,
            },
        ),
    ),
    (
        ROOMS,
        "approvals.room/room_1",
        RoomPoliciesReplaced(POLICIES, AT + 1),
        Set(ROOM, {"policies": POLICIES_JSON, "updated_at": AT + 1}),
    ),
    (
        AGENTS,
        "approvals.agent/agt_1",
        AgentRegistered("Robby", "", "crewai", ["room_1"], "wr_x", HASH, "usr_1", AT),
        Put(
            AGENT,
            {
                "name": "Robby",
                "description": "",
                "platform": "crewai",
                "room_scopes": '["room_1"]',
                "key_prefix": "wr_x",
                "key_hash": HASH,
                "active": True,
                "registered_by": "usr_1",
                "registered_at": AT,
                "updated_at": AT,
            },
        ),
    ),
    (
        AGENTS,
        "approvals.agent/agt_1",
        AgentDeactivated("usr_1", AT + 1),
        Set(AGENT, {"active": False, "updated_at": AT + 1}),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CREATED,
        Put(
            CHECK_IN,
            {
                "room_id": "room_1",
                "agent_id": "agt_1",
                "agent_name": "Robby",
                "action": "refund",
                "description": "",
                "risk_level": "low",
                "urgency": "normal",
                "context": '{"amount":1}',
                "payload_hash": HASH,
                "verdict": msgspec.json.encode(VERDICT).decode(),
                "trust_score": 15.0,
                "timeout_minutes": 60,
                "timeout_action": "hold",
                "created_at": AT,
                "due_at": AT + 60,
                "held_at": None,
                "status": "pending",
                "decision": None,
                "modifications": None,
                "approvals_required": 2,
                "votes": "[]",
                "proposed": None,
                "escalate_at": AT + 30,
                "escalate_to": '["usr_2"]',
                "escalated_at": None,
                "escalated_to": "[]",
                "outcome": None,
                "updated_at": AT,
            },
        ),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInVoted(*IDS, [VOTE], 2, '{"amount":0}'),
        Set(
            CHECK_IN,
            {"votes": VOTES_JSON, "proposed": '{"amount":0}', "updated_at": AT + 4},
        ),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInEscalated(*IDS, ["usr_2"], AT + 30),
        Set(
            CHECK_IN,
            {"escalated_at": AT + 30, "escalated_to": '["usr_2"]', "updated_at": AT + 30},
        ),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInOutcomeReported(*IDS, OUTCOME),
        Set(CHECK_IN, {"outcome": OUTCOME_JSON, "updated_at": AT + 7}),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInApproved(*IDS, DECISION),
        settled("approved"),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInRejected(*IDS, DECISION),
        settled("rejected"),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInModified(*IDS, DECISION, '{"amount":0}'),
        settled("modified", '{"amount":0}'),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInWithdrawn(*IDS, DECISION),
        settled("withdrawn"),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInExpired(*IDS, DECISION),
        settled("expired"),
    ),
    (
        CHECK_INS,
        "approvals.check_in/ci_1",
        CheckInHeld(*IDS, AT + 9),
        Set(CHECK_IN, {"held_at": AT + 9, "updated_at": AT + 9}),
    ),
    (
        TRUST_SCORES,
        "approvals.trust/agt_1:room_1",
        TRUSTED,
        Put(
            {"tenant": "ten_1", "agent_id": "agt_1", "room_id": "room_1"},
            {
                "score": 16.0,
                "approved_count": 1,
                "modified_count": 0,
                "rejected_count": 0,
                "expired_count": 0,
                "formula": 1,
                "updated_at": AT,
            },
        ),
    ),
    (
        TRUST_MOVES,
        "approvals.trust/agt_1:room_1",
        TRUSTED,
        Put(
            {"tenant": "ten_1", "agent_id": "agt_1", "room_id": "room_1", "number": 1},
            {
                "check_in_id": "ci_1",
                "outcome": "approved",
                "change": 1.0,
                "score": 16.0,
                "moved_at": AT,
            },
        ),
    ),
    (
        AGENTS,
        "approvals.agent/agt_3",
        AgentAdopted("Robby", "", "crewai", "wr_y", HASH, "usr_1", AT),
        Put(
            {"tenant": "ten_1", "id": "agt_3"},
            {
                "name": "Robby",
                "description": "",
                "platform": "crewai",
                "room_scopes": "[]",
                "key_prefix": "wr_y",
                "key_hash": HASH,
                "active": True,
                "registered_by": "usr_1",
                "registered_at": AT,
                "updated_at": AT,
            },
        ),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskPosted("room_1", "refund", "", "low", "high", "{}", HASH, "usr_1", "Ada", AT),
        Put(
            TASK,
            {
                "room_id": "room_1",
                "action": "refund",
                "description": "",
                "risk_level": "low",
                "urgency": "high",
                "context": "{}",
                "payload_hash": HASH,
                "posted_by": "usr_1",
                "posted_by_name": "Ada",
                "posted_at": AT,
                **NOBODY_AT_WORK,
                "status": "pending",
                "decision": None,
                "modifications": None,
                "updated_at": AT,
            },
        ),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskReleased(*IDS, "lease", AT + 1),
        Set(TASK, {**NOBODY_AT_WORK, "status": "pending", "updated_at": AT + 1}),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskClaimed(*IDS, "Robby", 60, AT + 2, AT + 60),
        Set(
            TASK,
            {
                "status": "in_progress",
                "agent_id": "agt_1",
                "agent_name": "Robby",
                "claimed": True,
                "claimed_at": AT + 2,
                "claimed_until": AT + 60,
                "claim_minutes": 60,
                "updated_at": AT + 2,
            },
        ),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskClaimRenewed(*IDS, AT + 90),
        Set(TASK, {"claimed_until": AT + 90}),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskHelpRequested(*IDS, "which?", AT + 3),
        Set(
            TASK,
            {"help_body": "which?", "help_requested_at": AT + 3, "updated_at": AT + 3},
        ),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskHelperJoined(*IDS, "agt_2", [HELPER], AT + 3),
        Set(TASK, {"helpers": msgspec.json.encode([HELPER]).decode(), "updated_at": AT + 3}),
    ),
    (
        TASKS,
        "approvals.task/task_1",
        TaskDecided(*IDS, "modified", DECISION, '{"amount":0}'),
        Set(
            TASK,
            {
                "status": "modified",
                "decision": DECISION_JSON,
                "modifications": '{"amount":0}',
                "updated_at": AT + 5,
            },
        ),
    ),
    (
        MESSAGES,
        "approvals.thread/task_1",
        MessagePosted(
            "room_1", "msg_1", 1, "user", "usr_1", "Ada", "hello", "question", "{}", "[]", AT
        ),
        Put(
            {"tenant": "ten_1", "check_in_id": "task_1", "number": 1},
            {
                "room_id": "room_1",
                "message_id": "msg_1",
                "author_kind": "user",
                "author_id": "usr_1",
                "author_name": "Ada",
                "body": "hello",
                "message_type": "question",
                "metadata": "{}",
                "attachments": "[]",
                "posted_at": AT,
            },
        ),
    ),
    # Before it registers anew in this history: what expired is gone.
    (
        REGISTRATIONS,
        "approvals.registration/agt_1",
        AgentClaimExpired(AT + 9),
        Delete(AGENT),
    ),
    (
        REGISTRATIONS,
        "approvals.registration/agt_1",
        AgentSelfRegistered("Robby", "", "crewai", "wr_x", HASH, HASH, AT, AT + 7),
        Put(
            AGENT,
            {
                "name": "Robby",
                "description": "",
                "platform": "crewai",
                "key_prefix": "wr_x",
                "key_hash": HASH,
                "registered_at": AT,
                "expires_at": AT + 7,
                "claimed_at": None,
            },
        ),
    ),
    (
        REGISTRATIONS,
        "approvals.registration/agt_1",
        AgentClaimed("ten_2", "usr_1", "cmd_1", "Robby", "", "crewai", "wr_x", HASH, AT + 6),
        Set(AGENT, {"claimed_at": AT + 6}),
    ),
    (
        WATCHERS,
        "approvals.watcher/wat_1",
        WatcherCreated(*IDS, ["signal.broadcast"], '{"type":"x"}', "https://a.example", AT),
        Put(
            WATCHER,
            {
                "room_id": "room_1",
                "agent_id": "agt_1",
                "event_types": '["signal.broadcast"]',
                "filter": '{"type":"x"}',
                "webhook_url": "https://a.example",
                "created_at": AT,
                "removed_at": None,
                "triggered_at": None,
                "triggered_by": "",
            },
        ),
    ),
    (
        WATCHERS,
        "approvals.watcher/wat_1",
        WatcherTriggered(*IDS, "evt_1", "signal.broadcast", 2, 7, AT + 1),
        Set(WATCHER, {"triggered_at": AT + 1, "triggered_by": "evt_1"}),
    ),
    (
        WATCHERS,
        "approvals.watcher/wat_1",
        WatcherRemoved(*IDS, AT + 2),
        Set(WATCHER, {"removed_at": AT + 2}),
    ),
]


@pytest.mark.parametrize(("view", "stream", "event", "statement"), CASES)
def test_an_event_gives_its_statements_and_no_other_view_cares(
    view: View, stream: str, event: Any, statement: Any
) -> None:
    pairs = reduce_all(VIEWS, [(envelope(stream), event)])
    expected = [(of.name, made) for of, _, about, made in CASES if about is event]
    assert (view.name, statement) in expected
    assert [(found.name, made) for found, made in pairs] == expected


def test_every_event_of_the_domain_has_a_case() -> None:
    assert {type(event) for _, _, event, _ in CASES} == set(EVENTS) - UNSHOWN


def rows(view: View, history: Iterable[tuple[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The table that a history gives, as the statements mean it."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    events = [(envelope(stream), event) for stream, event in history]
    for batch in fold(view, [made for _, made in reduce_all([view], events)]):
        for key, statement in batch.items():
            match statement:
                case Put():
                    table[key] = table.get(key, {}) | dict(statement.values)
                case Set() if key in table:
                    table[key] |= statement.values
                case Delete():
                    table.pop(key, None)
    return table


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_reducing_a_history_twice_equals_reducing_it_once(view: View) -> None:
    history = [(stream, event) for _, stream, event, _ in CASES]
    once = rows(view, history)
    assert once
    assert rows(view, [*history, *history]) == once


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_statements_name_columns_of_the_view(view: View) -> None:
    for of, _, _, statement in CASES:
        if of is view:
            assert set(statement.key) == set(view.key)
            if isinstance(statement, Delete):
                continue
            assert set(statement.values) <= set(view.columns) - set(view.key)
            if isinstance(statement, Put):
                assert set(statement.values) == set(view.columns) - set(view.key)


def test_a_page_asks_for_the_tenant_the_room_and_what_was_filtered() -> None:
    filters = {"status": "pending", "risk_level": "high", "urgency": "low", "agent_id": "agt_1"}
    sql, parameters = page("ten_1", "room_1", filters, (AT, "ci_9"), 51)
    values = ["ten_1", "room_1", "high", "low", "agt_1", AT, "ci_9", 51]
    assert parameters == values
    assert sql.count("%s") == len(parameters)
    assert "status = 'pending'" in sql
    ended = page("ten_1", "room_1", {"status": "approved"}, (AT, "ci_9"), 51)
    assert ended[1] == ["ten_1", "room_1", "approved", AT, "ci_9", 51]
    assert page("ten_1", "room_1", {}, (1, ""), 2)[1] == ["ten_1", "room_1", 1, "", 2]


def test_a_page_of_tasks_asks_for_the_tenant_and_what_was_filtered() -> None:
    filters = {"room_id": "room_1", "agent_id": "agt_1", "status": "pending", "claimed": False}
    sql, parameters = page_of_tasks("ten_1", filters, (AT, "task_9"), 51)
    assert parameters == ["ten_1", "room_1", "agt_1", "pending", False, AT, "task_9", 51]
    assert sql.count("%s") == len(parameters)
    assert page_of_tasks("ten_1", {}, (1, ""), 2)[1] == ["ten_1", 1, "", 2]
