"""The read models of policies: every event, the statements it gives, no database."""

import msgspec

from projections.observability import policies, policy_revisions
from projections.statements import Delete, Put, Set
from schemas.envelope import Actor, Envelope
from schemas.observability.policy import (
    BudgetRule,
    Definition,
    PolicyCreated,
    PolicyDeleted,
    PolicyRevised,
    rules_of,
)

AT = 1_700_000_000_000_000
KEY = {"tenant": "ten_1", "policy_id": "pol_1"}
DEFINITION = Definition(
    name="daily", rules=rules_of(BudgetRule(unit="usd", limit=10, window="day")), enabled=False
)
TEXT = msgspec.json.encode(DEFINITION).decode()
CREATED = PolicyCreated(policy_id="pol_1", revision=1, definition=DEFINITION, at=AT)
REVISED = PolicyRevised(policy_id="pol_1", revision=2, definition=DEFINITION, at=AT + 1)
DELETED = PolicyDeleted(policy_id="pol_1", revision=3, at=AT + 2)
ENVELOPE = Envelope(
    "evt_1", "x", "ten_1", "observability.policy/pol_1", 1, AT, Actor("user", "usr_9", "Ada")
)
WHO = {"actor_kind": "user", "actor_id": "usr_9", "actor_name": "Ada"}


def test_a_policy_is_a_row_while_it_stands() -> None:
    values = {"kind": "budget", "enabled": False, "definition": TEXT}
    assert policies.reduce(CREATED, ENVELOPE) == [
        Put(KEY, {"revision": 1, **values, "created_at": AT, "updated_at": AT})
    ]
    assert policies.reduce(REVISED, ENVELOPE) == [
        Set(KEY, {"revision": 2, **values, "updated_at": AT + 1})
    ]
    assert policies.reduce(DELETED, ENVELOPE) == [Delete(KEY)]


def test_each_revision_stays_with_who_made_it() -> None:
    assert policy_revisions.reduce(CREATED, ENVELOPE) == [
        Put({**KEY, "revision": 1}, {"change": "created", "definition": TEXT, "at": AT, **WHO})
    ]
    assert policy_revisions.reduce(REVISED, ENVELOPE) == [
        Put({**KEY, "revision": 2}, {"change": "revised", "definition": TEXT, "at": AT + 1, **WHO})
    ]
    assert policy_revisions.reduce(DELETED, ENVELOPE) == [
        Put({**KEY, "revision": 3}, {"change": "deleted", "definition": None, "at": AT + 2, **WHO})
    ]


def test_other_events_are_nothing_to_them() -> None:
    assert policies.reduce("other", ENVELOPE) == policy_revisions.reduce("other", ENVELOPE) == []
