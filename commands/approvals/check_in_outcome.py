"""What came of a check-in that was allowed, as its agent reports it. Pure."""

from collections.abc import Sequence

from commands.approvals.agent import STREAM as AGENT
from commands.approvals.agent import Agent
from commands.approvals.check_in_state import (
    CheckIn,
    CheckInNotFound,
    Emitted,
    NothingWasAllowed,
    OutcomeReported,
    ReportOutcome,
)
from commands.approvals.thread import MESSAGES_MAX, Thread, posted
from commands.approvals.thread import STREAM as THREAD
from commands.decider import Context, Emit
from commands.refusals import ActorForbidden
from schemas.approvals.check_in import CheckInOutcomeReported, Outcome


def report(command: ReportOutcome, check_in: CheckIn, context: Context) -> Sequence[Emitted]:
    """What came of it, also as a message of the thread while there is room for one.

    Raises CheckInNotFound, ActorForbidden, NothingWasAllowed, OutcomeReported.
    """
    named = (command.room_id, command.agent_id)
    if check_in.status == "absent" or named != (check_in.room_id, check_in.agent_id):
        raise CheckInNotFound("no such check-in")
    agent: Agent = context.state(AGENT, command.agent_id)
    if context.actor.kind != "agent" or context.actor.id != check_in.agent_id or not agent.active:
        raise ActorForbidden("only the agent that asked reports what came of it")
    if check_in.status not in ("approved", "modified"):
        raise NothingWasAllowed(
            f"the check-in is {check_in.status}: nothing was allowed to run", status=check_in.status
        )
    outcome = Outcome(command.status, command.message, command.details, context.now)
    before = check_in.outcome
    if before is not None:
        if (before.status, before.message, before.details) == (
            outcome.status,
            outcome.message,
            outcome.details,
        ):
            return []
        raise OutcomeReported(
            f"the outcome is {before.status} already",
            outcome=before.status,
            reported_at=before.reported_at,
        )
    reported = CheckInOutcomeReported(*named, outcome)
    thread: Thread = context.state(THREAD, context.stream_id)
    if thread.count >= MESSAGES_MAX:
        return [reported]
    message = posted(
        thread,
        context,
        room_id=check_in.room_id,
        body=outcome.message or outcome.status,
        message_type="result",
        metadata=f'{{"details":{outcome.details},"outcome":"{outcome.status}"}}',
    )
    return [reported, Emit(THREAD, context.stream_id, message)]
