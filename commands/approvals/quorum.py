"""A check-in that several people must approve: whose yes counts, and for what. Pure.

All of them say yes to the same payload. Whoever modifies proposes a change of it: what was said yes
to before counts no more, and the others say yes to the change by its hash.
"""

from commands.approvals.check_in_state import (
    ApproveCheckIn,
    CheckIn,
    ModifyCheckIn,
    PayloadMismatch,
    VotedAlready,
    check_payload,
)
from commands.approvals.payload import payload_hash
from commands.decider import Context
from schemas.approvals.check_in import CheckInVoted, Vote
from schemas.types import Json


def standing_hash(check_in: CheckIn) -> str:
    """The hash of what an approval is about now: what was asked, or the change proposed last."""
    return _hash_of(check_in, check_in.proposed)


def voted(
    command: ApproveCheckIn | ModifyCheckIn, check_in: CheckIn, context: Context
) -> CheckInVoted | None:
    """A person's yes; None when this very command has given it. Raises PayloadMismatch,
    VotedAlready."""
    if any(vote.id == context.command_id for vote in check_in.votes):
        return None
    standing, changes = standing_hash(check_in), check_in.proposed
    if isinstance(command, ModifyCheckIn):
        changes = command.modifications
    elif changes is not None and not command.payload_hash:
        # Or somebody would approve a change that was proposed while they looked.
        raise PayloadMismatch(
            "a change is proposed: approve it by its payload_hash", payload_hash=standing
        )
    check_payload(command.payload_hash, standing)
    about = _hash_of(check_in, changes)
    before = check_in.votes if about == standing else []
    if any(vote.by == context.actor.id for vote in before):
        raise VotedAlready(
            "you have approved this already; others have to, too",
            approvals=len(before),
            approvals_required=check_in.approvals_required,
        )
    vote = Vote(
        id=context.command_id,
        by=context.actor.id,
        by_name=context.actor.name,
        reason=command.reason,
        payload_hash=about,
        voted_at=context.now,
    )
    return CheckInVoted(
        room_id=check_in.room_id,
        agent_id=check_in.agent_id,
        votes=[*before, vote],
        approvals_required=check_in.approvals_required,
        modifications=changes,
    )


def _hash_of(check_in: CheckIn, modifications: Json | None) -> str:
    if modifications is None:
        return check_in.payload_hash
    return payload_hash(check_in.action, check_in.context, modifications)
