"""What is drawn for the machine: who and which, questions, tasks, policies, watchers."""

from hypothesis import strategies as st

from tests.waitroom.model import UNIT_MINUTES

RISKS = st.sampled_from(["low", "medium", "high", "critical"])
WORDS = st.sampled_from(["refund an order", "drop a table", "send mail"])
MINUTES = st.sampled_from([UNIT_MINUTES, 2 * UNIT_MINUTES, 3 * UNIT_MINUTES])
TIMEOUTS = st.sampled_from(["cancel", "auto_approve", "hold"])
CONTEXTS = st.fixed_dictionaries({}, optional={"amount": st.integers(0, 100)})
CONDITIONS = st.sampled_from(
    [
        {"action": {"prefix": "Drop"}},
        {"risk_levels": ["low", "critical"]},
        {"trust": {"min": 15.5}},
        {"context": [{"path": "$.amount", "operator": "gte", "value": 50}]},
        {"action": {"prefix": "refund"}, "risk_levels": ["medium"]},
    ]
)
RULES = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["auto_approve", "require_approval", "forbid"]),
        "when": CONDITIONS,
    }
) | st.fixed_dictionaries(
    {
        "action": st.just("require_approval"),
        "when": CONDITIONS,
        "approvals_required": st.sampled_from([1, 2]),
    }
)
# Never at the minute of a timeout, so that one comes first; sometimes later than it.
ESCALATIONS = st.sampled_from([None, UNIT_MINUTES // 2, UNIT_MINUTES + UNIT_MINUTES // 2])
POLICIES = st.fixed_dictionaries(
    {
        "default_action": st.sampled_from(["require_approval"] * 4 + ["auto_approve", "forbid"]),
        "timeout_minutes": MINUTES,
        "timeout_action": TIMEOUTS,
        "rules": st.lists(RULES, max_size=2),
        "trust_thresholds": st.sampled_from(
            [None, {"auto_approve_low": 15}, {"auto_approve_low": 90, "auto_approve_medium": 16}]
        ),
        "timeout_override": st.sampled_from([True, True, False]),
        "claim_minutes": MINUTES,
        "approvals_required": st.sampled_from([1, 1, 2, 3]),
        "escalate_after_minutes": ESCALATIONS,
    }
)
TASKS = st.fixed_dictionaries({"action": WORDS, "risk_level": RISKS, "context": CONTEXTS})
QUESTIONS = st.fixed_dictionaries(
    {"action": WORDS, "risk_level": RISKS, "context": CONTEXTS},
    optional={"timeout_minutes": MINUTES, "timeout_action": TIMEOUTS},
)
ASKED = st.lists(QUESTIONS, min_size=1, max_size=3)
WATCHED = st.lists(
    st.sampled_from(
        [
            "check_in.created",
            "check_in.decided",
            "check_in.expired",
            "check_in.voted",
            "check_in.escalated",
            "check_in.outcome",
            "signal.broadcast",
        ]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)
VERBS = st.sampled_from(["approve", "approve", "reject", "modify"])
CHANGES = st.sampled_from([{"amount": 1}, {"amount": None, "note": "half"}])
OUTCOMES = st.sampled_from(["succeeded", "failed", "skipped"])
# Who or which: a number among those there are.
ONE = st.integers(0, 59)
OFTEN = st.sampled_from([True, True, True, False])
# Hypothesis begins with the simplest example, in which next to nothing happens; its draw is 0.
CHANCE = st.integers(0, 2**31)
# What people answer one after the other, over what was asked, what stands, or without a word of it.
ANSWERS = st.lists(
    st.fixed_dictionaries(
        {
            "who": ONE,
            "person": OFTEN,
            "verb": VERBS,
            "changes": CHANGES,
            "hashed": st.sampled_from(["", "hash", "standing", "standing"]),
            "twice": st.booleans(),
        }
    ),
    min_size=1,
    max_size=3,
)
