"""Trials: few a day for each address, each with a tenant, a quota and a key that stops."""

from hypothesis import given
from hypothesis import strategies as st

from commands.billing.account_state import Account
from commands.decider import Context, Emit, Ref, SetTimer
from commands.fhe.job import DEADLINE_MICROS
from commands.refusals import NotFound
from commands.tenancy import trial, trial_origin
from commands.tenancy.trial import (
    ERASED_AFTER_MICROS,
    LIFE_MICROS,
    BeginTrial,
    EndTrial,
)
from commands.tenancy.trial_origin import (
    TRIALS_MAX,
    WINDOW_MICROS,
    GrantTrial,
    TooManyTrials,
    TrialOrigin,
)
from schemas.billing.account import PlanAssigned
from schemas.identity.api_key import ApiKeyIssued
from schemas.tenancy.tenant import TenantCreated
from schemas.tenancy.trial import TrialBegan, TrialEnded, TrialGranted
from tests.given import HUMAN, NOW, Given

BEGIN = BeginTrial("key_1", "wax_sk_abc", "ab" * 32)
ENDS = NOW + LIFE_MICROS
BEGAN = TrialBegan(ENDS, ENDS + ERASED_AFTER_MICROS)


def test_a_trial_begins_whole_in_one_decision_and_once() -> None:
    given_ = Given(trial.DECIDER, id="trial", states={Ref("billing.account", "account"): Account()})
    given_.when(BEGIN).then(
        BEGAN,
        Emit("tenancy.tenant", "ten_1", TenantCreated("Trial")),
        Emit("billing.account", "account", PlanAssigned(plan_code="trial")),
        Emit(
            "identity.api_key",
            "key_1",
            ApiKeyIssued(
                name="Trial",
                prefix="wax_sk_abc",
                key_hash="ab" * 32,
                roles=["compute"],
                expires_at=ENDS,
            ),
        ),
    ).then_quiet()


def test_a_trial_ends_once_when_no_job_can_be_under_way_any_more() -> None:
    given_ = Given(trial.DECIDER, BEGAN, id="trial")
    given_.when(EndTrial()).then(TrialEnded(NOW)).then_quiet()
    Given(trial.DECIDER, id="trial").when(EndTrial()).then_refused(NotFound)
    assert trial.DECIDER.timers(BEGAN, "trial") == [SetTimer("end", BEGAN.erased_at, EndTrial())]
    assert trial.DECIDER.timers(TrialEnded(NOW), "trial") == []
    assert ERASED_AFTER_MICROS > DEADLINE_MICROS


def grants(*instants: int) -> list[TrialGranted]:
    return [TrialGranted(f"ten_{number}", at) for number, at in enumerate(instants)]


def test_an_address_begins_so_many_trials_a_day() -> None:
    full = grants(*range(NOW, NOW + TRIALS_MAX))
    given_ = Given(trial_origin.DECIDER, *full).at(NOW + 10)
    refusal = given_.when(GrantTrial("ten_new")).then_refused(TooManyTrials)
    assert refusal.details == {"retry_after": WINDOW_MICROS // 1_000_000}
    # A repeat of one that was granted is no new one.
    given_.when(GrantTrial("ten_1")).then_quiet()
    later = NOW + WINDOW_MICROS
    given_.at(later).when(GrantTrial("ten_new")).then(TrialGranted("ten_new", later))
    given_.when(GrantTrial("ten_newer")).then_refused(TooManyTrials)


@given(st.lists(st.integers(0, WINDOW_MICROS), max_size=40))
def test_no_day_has_more_trials_than_it_may_and_the_state_stays_small(pauses: list[int]) -> None:
    state, now, granted = TrialOrigin(), NOW, list[int]()
    for number, pause in enumerate(pauses):
        now += pause // 4
        context = Context("_directory", "o", HUMAN, now, "cmd", {}, {})
        try:
            events = trial_origin.decide(GrantTrial(f"ten_{number}"), state, context)
        except TooManyTrials:
            continue
        for event in events:
            state = trial_origin.evolve(state, event)
            granted.append(now)
        assert len(state.granted) <= TRIALS_MAX
        assert sum(at > now - WINDOW_MICROS for at in granted) <= TRIALS_MAX
