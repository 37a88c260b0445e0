"""Properties of tasks, threads and claims over any sequence of commands by anybody."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from commands.approvals.registration import DECIDER as REGISTRATION
from commands.approvals.registration import ClaimAgent, ExpireAgentClaim, Registration
from commands.approvals.task import DECIDER as TASK
from commands.approvals.task_state import (
    ClaimTask,
    DecideTask,
    JoinTask,
    ReleaseTask,
    RenewTaskClaim,
    RequestHelp,
    ReturnTask,
    Task,
)
from commands.approvals.thread import DECIDER as THREAD
from commands.approvals.thread import MESSAGES_MAX, PostMessage, Thread
from commands.approvals.trust import DECIDER as TRUST
from commands.approvals.trust import Trust, trust_id
from commands.decider import Context, Emit, Ref
from commands.refusals import Refusal
from schemas.approvals.registration import AgentClaimed
from schemas.approvals.task import TaskClaimed, TaskDecided, TaskReleased
from schemas.envelope import SYSTEM, Actor
from tests.commands.approvals.histories import AGENT_ID, ROOM_ID
from tests.commands.approvals.tasks import (
    MINUTE,
    OTHER,
    OTHER_ID,
    POST,
    TASK_ID,
    all_states,
    posted,
)
from tests.commands.approvals.test_registration import ENDS, REGISTERED, TOKEN_HASH
from tests.given import AGENT, HUMAN, NOW

BOTH = (AGENT_ID, OTHER_ID)
ACTORS = st.sampled_from([HUMAN, AGENT, OTHER, SYSTEM])
ACTS = st.sampled_from(
    [
        act(ROOM_ID, agent_id)
        for act in (ClaimTask, ReleaseTask, RenewTaskClaim, RequestHelp, JoinTask)
        for agent_id in BOTH
    ]
)
ENDINGS = st.builds(
    DecideTask,
    st.just(ROOM_ID),
    st.sampled_from(["", *BOTH]),
    st.sampled_from(["approved", "rejected", "modified"]),
)
MINUTES = st.integers(0, 40)
# A return is made of the lease as it stands, or of one that is over.
STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(POST), ACTS, ACTS, ENDINGS, st.sampled_from(["return", "stale"])),
        ACTORS,
        MINUTES,
    ),
    max_size=25,
)


def returned(kind: str, task: Task) -> ReturnTask:
    until = task.claim.until if task.claim else 0
    return ReturnTask(ROOM_ID, task.agent_id, until if kind == "return" else until + 1)


@given(STEPS)
def test_one_agent_at_a_time_has_a_task_and_it_ends_once(steps: list[Any]) -> None:
    task, now, holder, ended = TASK.evolve(Task(), posted()), NOW, "", 0
    trust = dict.fromkeys(BOTH, Trust())
    for number, (step, actor, minutes) in enumerate(steps):
        now += minutes * MINUTE
        command = returned(step, task) if isinstance(step, str) else step
        states = all_states() | {
            Ref("approvals.trust", trust_id(agent_id, ROOM_ID)): score
            for agent_id, score in trust.items()
        }
        context = Context("ten_1", TASK_ID, actor, now, f"cmd_{number}", states, {})
        try:
            events = TASK.decide(command, task, context)
        except Refusal:
            continue
        for event in events:
            if isinstance(event, Emit):
                agent_id = event.event.agent_id
                trust[agent_id] = TRUST.evolve(trust[agent_id], event.event)
                continue
            assert not ended, f"{event} after the end"
            task = TASK.evolve(task, event)
            match event:
                case TaskClaimed():
                    assert holder == ""
                    holder = event.agent_id
                case TaskReleased():
                    assert holder == event.agent_id
                    holder = ""
                case TaskDecided():
                    assert event.agent_id == holder
                    ended += 1
        assert task.agent_id == holder
        assert holder not in {helper.agent_id for helper in task.helpers}
        assert (task.status == "in_progress") is (bool(holder) and not ended)
        # Whoever has the task has a timer, and it is never later than a whole lease.
        if task.status == "in_progress":
            assert task.claim is not None
            assert task.claim.until <= now + 60 * MINUTE
    moves = sum(t.approved_count + t.rejected_count + t.modified_count for t in trust.values())
    assert moves == (1 if ended and holder else 0)


MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 9),  # the command's number: one that comes again is a repeat
        st.sampled_from([("", HUMAN), (AGENT_ID, AGENT), (OTHER_ID, OTHER), ("", SYSTEM)]),
    ),
    max_size=30,
)


@given(MESSAGES, st.integers(0, 12))
def test_a_thread_is_numbered_without_a_gap_and_a_repeat_adds_nothing(
    messages: list[Any], room_left: int
) -> None:
    task = TASK.evolve(Task(), TASK.decide(POST, Task(), _context(HUMAN, "cmd_p"))[0])
    thread, seen = Thread(count=MESSAGES_MAX - room_left), set()
    for number, (agent_id, actor) in messages:
        command = PostMessage(ROOM_ID, agent_id, "hello")
        context = _context(actor, f"cmd_{number}", task)
        try:
            events = THREAD.decide(command, thread, context)
        except Refusal:
            continue
        assert (len(events) == 0) is (number in seen)
        for event in events:
            assert event.number == thread.count + 1 <= MESSAGES_MAX
            thread = THREAD.evolve(thread, event)
            seen.add(number)
        answer = THREAD.answer(command, thread, context)
        assert answer.number <= thread.count
    assert thread.count == MESSAGES_MAX - room_left + len(seen)


def _context(actor: Actor, command_id: str, task: Task | None = None) -> Context:
    states = all_states() | {Ref("approvals.task", TASK_ID): task or Task()}
    return Context("ten_1", TASK_ID, actor, NOW, command_id, states, {})


CLAIMS = st.lists(
    st.tuples(
        st.one_of(
            st.builds(
                ClaimAgent,
                st.sampled_from([TOKEN_HASH, "00" * 32]),
                st.sampled_from(["ten_1", "ten_2"]),
            ),
            st.just(ExpireAgentClaim(ENDS)),
        ),
        st.sampled_from([HUMAN, AGENT, SYSTEM]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=12,
)


@given(CLAIMS)
def test_an_agent_is_claimed_once_at_most_and_never_after_its_time(claims: list[Any]) -> None:
    registration, now = REGISTRATION.evolve(Registration(), REGISTERED), NOW
    won: list[AgentClaimed] = []
    for command, actor, number, days in claims:
        now += days * 86_400_000_000
        context = Context("_directory", AGENT_ID, actor, now, f"cmd_{number}", {}, {})
        try:
            events = REGISTRATION.decide(command, registration, context)
        except Refusal:
            continue
        if isinstance(command, ClaimAgent):
            # What is accepted, repeats included, is the claim that won.
            assert command.claim_token_hash == TOKEN_HASH
            assert not won or won[0].claim_id == context.command_id
        for event in events:
            if isinstance(event, AgentClaimed):
                assert now < ENDS
                won.append(event)
            registration = REGISTRATION.evolve(registration, event)
    assert len(won) <= 1
    assert registration.claim == (won[0] if won else None)
    assert not (won and registration.expired)
