"""What a proposed policy would have changed: past runs, judged with it and without. Pure.

The policies are those that stand now, whatever stood then. What was used counts as it was, also
what a run used that the proposed policy would have stopped.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from commands.observability.policy_check import (
    SEVERITY,
    Amount,
    Asked,
    Policy,
    Total,
    Verdict,
    covers,
    evaluate,
    span_of,
    window_counted,
)
from schemas.observability.policy import Action


class Began(NamedTuple):
    """A run began. models: all that it went on to call, as the policies about models see it."""

    at: int
    run_id: str
    asked: Asked
    models: Sequence[str] = ()


class Used(NamedTuple):
    """Somebody used something."""

    at: int
    asked: Asked
    amount: Amount


class Difference(Struct, frozen=True):
    """A run that would have been told something else."""

    run_id: str
    at: int
    asked: Asked
    before: Verdict
    after: Verdict


class Outcome(Struct, frozen=True):
    """How many runs would have been told what, and the newest that would have been told else."""

    runs: int
    before: Mapping[Action, int]
    after: Mapping[Action, int]
    changed: int
    sample: list[Difference]


def replay(
    now: Sequence[Policy],
    then: Sequence[Policy],
    moments: Iterable[Began | Used],
    since: int,
    sample_max: int,
) -> Outcome:
    """Judge the runs that began from `since` on by the policies `now` and by those `then`.

    moments: in the order of time, from before `since` too, as far as windows reach back.
    """
    by_now, by_then = _Totals(now), _Totals(then)
    before: Counter[Action] = Counter()
    after: Counter[Action] = Counter()
    newest: deque[Difference] = deque(maxlen=sample_max)
    differ = 0
    for moment in moments:
        if isinstance(moment, Used):
            by_now.add(moment.at, moment.asked, moment.amount)
            by_then.add(moment.at, moment.asked, moment.amount)
            continue
        if moment.at >= since:
            first, second = _judge(now, moment, by_now), _judge(then, moment, by_then)
            before[first.action] += 1
            after[second.action] += 1
            if first.action != second.action:
                differ += 1
                newest.appendleft(Difference(moment.run_id, moment.at, moment.asked, first, second))
        by_now.add(moment.at, moment.asked, Amount(runs=1))
        by_then.add(moment.at, moment.asked, Amount(runs=1))
    return Outcome(before.total(), before, after, differ, list(newest))


def _judge(policies: Sequence[Policy], run: Began, totals: "_Totals") -> Verdict:
    """The most severe of what the run would have been told, asking with each of its models."""
    asked = [Asked(*_names(run.asked), model) for model in run.models] or [run.asked]
    verdicts = [evaluate(policies, one, totals.by_policy, run.at) for one in asked]
    return min(verdicts, key=lambda verdict: SEVERITY.index(verdict.action))


def _names(asked: Asked) -> tuple[str, str, str]:
    return asked.agent_name, asked.workflow_name, asked.agent_id


class _Totals:
    """What the scopes of the policies that count have used in the windows of the last moment."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._policies = [one for one in policies if window_counted(one.definition.rule)]
        self.by_policy: dict[str, Total] = {}

    def add(self, at: int, asked: Asked, amount: Amount) -> None:
        for policy in self._policies:
            definition = policy.definition
            if covers(definition.scope, asked):
                start, _ = span_of(window_counted(definition.rule), at)
                known = self.by_policy.get(policy.id)
                if known is not None and known.start == start:
                    amount_so_far = known.amount.plus(amount)
                else:
                    amount_so_far = amount
                self.by_policy[policy.id] = Total(start, amount_so_far)
