"""What policies say of a request: every action, every kind of rule, and who wins."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.observability.policy_check import (
    SEVERITY,
    Amount,
    Asked,
    Policy,
    Total,
    Usage,
    Verdict,
    evaluate,
    span_of,
    totals_of,
)
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    PolicyScope,
    RateRule,
    RedactionRule,
    Rule,
    ScheduleRule,
    kind_of,
    rules_of,
)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


NOW = at("2026-03-04T10:20:30")  # a Wednesday
BOT = Asked("support-bot", "tickets", "a-1")


def policy(rule: Rule, id: str = "pol_1", **more: Any) -> Policy:
    return Policy(id, 3, Definition(name=f"the {kind_of(rule)}", rules=rules_of(rule), **more))


def ask(rule: Rule, asked: Asked = BOT, now: int = NOW, **used: int) -> Verdict:
    window = getattr(rule, "window", "day")
    totals = {"pol_1": Total(span_of(window, now)[0], Amount(**used))}
    return evaluate([policy(rule)], asked, totals, now)


def test_without_policies_everything_is_allowed() -> None:
    assert evaluate([], BOT, {}, NOW) == Verdict("allow", "", {}, [])


def test_a_budget_allows_warns_and_then_does_what_it_says() -> None:
    rule = BudgetRule(unit="usd", limit=10, window="day", warn_percent=80)
    allowed = ask(rule, nanodollars=7_999_999_999)
    assert (allowed.action, allowed.reason, allowed.metadata) == ("allow", "", {})
    assert allowed.evaluations[0].metadata["budget"] == {
        "unit": "usd", "window": "day", "limit": 10, "used": 7.999999999,
        "remaining": 2.000000001, "window_start": "2026-03-04T00:00:00Z",
        "resets_at": "2026-03-05T00:00:00Z",
    }  # fmt: skip
    warned = ask(rule, nanodollars=8_000_000_000)
    assert (warned.action, warned.reason) == (
        "warn", "budget at 80 percent: 8 of 10 usd used in this day",
    )  # fmt: skip
    blocked = ask(rule, nanodollars=10_000_000_000)
    assert (blocked.action, blocked.reason) == (
        "block", "budget exhausted: 10 of 10 usd used in this day",
    )  # fmt: skip
    assert blocked.metadata["budget"]["remaining"] == 0
    assert blocked.metadata["policy_id"] == "pol_1"
    assert blocked.metadata["policy_name"] == "the budget"


@pytest.mark.parametrize("action", ["block", "throttle", "skip", "retry", "warn"])
@pytest.mark.parametrize("unit", ["tokens", "calls"])
def test_a_budget_has_the_action_of_its_owner(action: Any, unit: Any) -> None:
    rule = BudgetRule(unit=unit, limit=5, window="hour", action=action)
    assert ask(rule, **{unit: 4}).action == "allow"
    found = ask(rule, **{unit: 5})
    assert found.action == action
    waits = action in ("throttle", "retry")
    assert found.metadata.get("retry_after_seconds") == (39 * 60 + 30 if waits else None)


def test_a_total_of_a_window_that_has_passed_counts_as_nothing() -> None:
    rule = BudgetRule(unit="calls", limit=1, window="hour")
    old = {"pol_1": Total(span_of("hour", NOW)[0], Amount(calls=9))}
    assert evaluate([policy(rule)], BOT, old, NOW).action == "block"
    assert evaluate([policy(rule)], BOT, old, NOW + 3_600_000_000).action == "allow"
    assert evaluate([policy(rule)], BOT, {}, NOW).action == "allow"


@pytest.mark.parametrize("unit", ["runs", "calls"])
def test_a_rate_throttles_for_the_rest_of_the_window_or_as_said(unit: Any) -> None:
    rule = RateRule(unit=unit, limit=3, window="minute")
    assert ask(rule, **{unit: 2}).action == "allow"
    throttled = ask(rule, **{unit: 3})
    assert (throttled.action, throttled.metadata["retry_after_seconds"]) == ("throttle", 30)
    assert throttled.reason == f"rate exceeded: 3 of 3 {unit} in this minute"
    rule = RateRule(unit=unit, limit=3, window="hour", retry_after_seconds=7)
    assert ask(rule, **{unit: 3}).metadata["retry_after_seconds"] == 7


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        (AgentsRule(allow=["support-bot"]), "allow"),
        (AgentsRule(allow=["support-*"]), "allow"),
        (AgentsRule(allow=["Support-*"]), "block"),
        (AgentsRule(allow=["sales-*", "hr"]), "block"),
        (AgentsRule(deny=["support-?ot"]), "block"),
        (AgentsRule(allow=["*"], deny=["support-bot"], action="skip"), "skip"),
        (AgentsRule(deny=["sales-*"], action="warn"), "allow"),
        (AgentsRule(deny=["*"], action="warn"), "warn"),
    ],
)
def test_agents_are_allowed_and_denied(rule: AgentsRule, action: str) -> None:
    assert ask(rule).action == action


def test_a_name_with_brackets_is_itself() -> None:
    assert ask(AgentsRule(deny=["bot [1]"]), Asked("bot [1]", "w")).action == "block"


def test_models_are_judged_when_they_are_named() -> None:
    rule = ModelsRule(allow=["claude-*"])
    unnamed = ask(rule)
    assert unnamed.action == "allow"
    assert unnamed.evaluations[0].metadata == {"allowed_models": ["claude-*"]}
    assert ask(rule, Asked("a", "w", model="claude-sonnet-4-5")).action == "allow"
    refused = ask(rule, Asked("a", "w", model="gpt-4o"))
    assert (refused.action, refused.reason) == (
        "block", "model 'gpt-4o' is not among those allowed",
    )  # fmt: skip


def test_all_that_any_policy_wants_left_out_is_told() -> None:
    found = evaluate(
        [
            policy(RedactionRule(fields=["iban", "name"]), "pol_1"),
            policy(RedactionRule(fields=["name"], patterns=[r"\d{16}"]), "pol_2"),
        ],
        BOT,
        {},
        NOW,
    )
    assert (found.action, found.reason) == ("redact", "leave out fields iban, name")
    assert found.metadata["redact"] == {"fields": ["iban", "name"], "patterns": [r"\d{16}"]}
    assert [said.action for said in found.evaluations] == ["redact", "redact"]


@pytest.mark.parametrize(
    ("rule", "moment", "opening"),
    [
        (ScheduleRule(weekdays=["wed"]), "2026-03-04T00:00:00", ""),
        (ScheduleRule(weekdays=["thu"]), "2026-03-04T12:00:00", "2026-03-05T00:00:00Z"),
        (ScheduleRule(from_time="09:00", until_time="17:00"), "2026-03-04T16:59:59", ""),
        (ScheduleRule(from_time="09:00", until_time="17:00"), "2026-03-04T17:00:00",
         "2026-03-05T09:00:00Z"),
        (ScheduleRule(from_time="22:00", until_time="06:00", weekdays=["wed"]),
         "2026-03-05T05:59:00", ""),
        (ScheduleRule(from_time="22:00", until_time="06:00", weekdays=["wed"]),
         "2026-03-04T05:59:00", "2026-03-04T22:00:00Z"),
        (ScheduleRule(from_time="22:00", until_time="06:00", weekdays=["wed"]),
         "2026-03-05T06:00:00", "2026-03-11T22:00:00Z"),
        # Berlin is an hour ahead in winter; on 2026-03-29 its clocks go from 02:00 to 03:00.
        (ScheduleRule(timezone="Europe/Berlin", from_time="09:00"), "2026-03-04T07:59:59",
         "2026-03-04T08:00:00Z"),
        (ScheduleRule(timezone="Europe/Berlin", from_time="09:00"), "2026-03-29T00:30:00",
         "2026-03-29T07:00:00Z"),
    ],
)  # fmt: skip
def test_outside_the_schedule_it_says_when_it_opens(
    rule: ScheduleRule, moment: str, opening: str
) -> None:
    found = ask(rule, now=at(moment))
    assert found.action == ("block" if opening else "allow")
    assert found.metadata.get("opens_at", "") == opening


@pytest.mark.parametrize("outside", ["skip", "block", "retry"])
def test_outside_the_schedule_its_owner_says_what_to_do(outside: Any) -> None:
    found = ask(ScheduleRule(from_time="11:00", outside=outside))
    assert found.action == outside
    seconds = 39 * 60 + 30
    assert found.metadata.get("retry_after_seconds") == (seconds if outside == "retry" else None)


@pytest.mark.parametrize(
    ("scope", "speaks"),
    [
        (PolicyScope(), True),
        (PolicyScope(agent_names=["x", "support-*"]), True),
        (PolicyScope(agent_names=["x"]), False),
        (PolicyScope(workflow_names=["tickets"], agent_ids=["a-?"]), True),
        (PolicyScope(workflow_names=["tickets"], agent_ids=["b"]), False),
    ],
)
def test_only_those_speak_whose_scope_fits(scope: PolicyScope, speaks: bool) -> None:
    found = evaluate([policy(AgentsRule(deny=["*"]), scope=scope)], BOT, {}, NOW)
    assert found.action == ("block" if speaks else "allow")
    assert len(found.evaluations) == speaks


def test_a_disabled_policy_is_silent() -> None:
    assert evaluate([policy(AgentsRule(deny=["*"]), enabled=False)], BOT, {}, NOW) == Verdict()


def test_the_reason_is_the_owners_and_of_two_the_one_with_priority() -> None:
    deny = AgentsRule(deny=["*"])
    found = evaluate(
        [
            policy(deny, "pol_1", reason="one"),
            policy(deny, "pol_2", reason="two", priority=5),
            policy(deny, "pol_3", reason="three", priority=5),
        ],
        BOT,
        {},
        NOW,
    )
    assert (found.reason, found.metadata["policy_id"]) == ("two", "pol_2")
    assert [said.policy_id for said in found.evaluations] == ["pol_2", "pol_3", "pol_1"]


def test_totals_are_of_those_in_scope_and_of_the_window_that_counts() -> None:
    usages = [
        Usage("day", "a", "w", "", Amount(runs=1, nanodollars=5)),
        Usage("day", "ab", "w", "", Amount(calls=2, nanodollars=7)),
        Usage("day", "", "", "", Amount(calls=1)),
        Usage("minute", "a", "w", "", Amount(runs=3)),
    ]
    day, minute = span_of("day", NOW)[0], span_of("minute", NOW)[0]
    budget = BudgetRule(unit="usd", limit=1, window="day")
    rate = RateRule(unit="runs", limit=1, window="minute")
    found = totals_of(
        [
            policy(budget, "all"),
            policy(budget, "a*", scope=PolicyScope(agent_names=["a*"])),
            policy(rate, "b", scope=PolicyScope(agent_names=["b"])),
            policy(rate, "rate"),
            policy(ModelsRule(["m"]), "uncounted"),
        ],
        usages,
        NOW,
    )
    assert found == {
        "all": Total(day, Amount(1, 3, 0, 12)),
        "a*": Total(day, Amount(1, 2, 0, 12)),
        "b": Total(minute, Amount()),
        "rate": Total(minute, Amount(runs=3)),
    }


# One rule for each action, each of which speaks.
SPEAKING: dict[str, Rule] = {
    "block": AgentsRule(deny=["*"]),
    "throttle": RateRule(unit="runs", limit=1, window="minute"),
    "skip": ScheduleRule(from_time="11:00", outside="skip"),
    "retry": ScheduleRule(from_time="11:00", outside="retry"),
    "redact": RedactionRule(fields=["x"]),
    "warn": AgentsRule(deny=["*"], action="warn"),
    "allow": ModelsRule(["m"]),
}


@given(
    st.lists(st.tuples(st.sampled_from(SEVERITY), st.integers(-3, 3), st.booleans()), max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_most_severe_wins_in_whatever_order_policies_come(
    given_: list[tuple[str, int, bool]], dice: Any
) -> None:
    policies = [
        policy(SPEAKING[action], f"pol_{n}", priority=priority, enabled=enabled)
        for n, (action, priority, enabled) in enumerate(given_)
    ]
    totals = {one.id: Total(span_of("minute", NOW)[0], Amount(runs=1)) for one in policies}
    found = evaluate(policies, BOT, totals, NOW)
    speaking = [action for action, _, enabled in given_ if enabled]
    assert found.action == min([*speaking, "allow"], key=SEVERITY.index)
    assert sorted(said.action for said in found.evaluations) == sorted(speaking)
    dice.shuffle(policies)
    assert evaluate(policies, BOT, totals, NOW) == found
    if found.action != "allow":
        told = next(one for one in found.evaluations if one.action == found.action)
        assert (found.reason, found.metadata["policy_id"]) == (told.reason, told.policy_id)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(1, 100))
def test_a_budget_never_gets_milder_as_it_is_used(used: int, limit: int, warn: int) -> None:
    rule = BudgetRule(unit="calls", limit=limit, window="day", warn_percent=warn)
    before, after = ask(rule, calls=used).action, ask(rule, calls=used + 1).action
    assert SEVERITY.index(after) <= SEVERITY.index(before)
    assert (before == "block") == (used >= limit)
