"""What proposed policies would have said of check-ins that were asked. Pure.

Each is judged as it was when it was asked: its instant, and the agent's trust at that instant.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from commands.approvals.conditions import Asked
from commands.approvals.policy import approvals_required, judge
from schemas.approvals.policies import Policies, Verdict
from schemas.approvals.vocabulary import PolicyAction


class Judged(Struct, frozen=True):
    """What policies say of a check-in, and how many people must approve it then."""

    verdict: Verdict
    approvals_required: int

    def differs(self, other: "Judged") -> bool:
        """Whether it would have gone otherwise: the same answer by another rule is the same."""
        first = (self.verdict.action, self.approvals_required)
        return first != (other.verdict.action, other.approvals_required)


class Replayed(Struct, frozen=True):
    """A check-in as it was asked, and what was said of it then."""

    id: str
    asked: Asked
    before: Judged


class Difference(Struct, frozen=True):
    """A check-in that would have gone otherwise."""

    check_in: Replayed
    after: Judged


class Tally:
    """What check-ins were told and would have been told, and those that differ, as they come."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self.before: Counter[PolicyAction] = Counter()
        self.after: Counter[PolicyAction] = Counter()

    def add(self, check_ins: Iterable[Replayed]) -> Sequence[Difference]:
        """Judge these; those that would have gone otherwise, in their order."""
        found = []
        for check_in in check_ins:
            verdict = judge(self._policies, check_in.asked)
            after = Judged(verdict, approvals_required(self._policies, verdict))
            self.before[check_in.before.verdict.action] += 1
            self.after[verdict.action] += 1
            if after.differs(check_in.before):
                found.append(Difference(check_in, after))
        return found
