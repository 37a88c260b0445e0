"""A thread: numbered messages of people and of the agents that take part."""

from typing import Any

import msgspec
import pytest

from commands.approvals.check_in import DECIDER as CHECK_IN
from commands.approvals.check_in_state import CheckInNotFound
from commands.approvals.task import DECIDER as TASK
from commands.approvals.thread import (
    DECIDER,
    MESSAGES_MAX,
    MessageAnswered,
    Posted,
    PostMessage,
    Thread,
    ThreadFull,
)
from commands.decider import Context, Emit, Ref
from commands.refusals import ActorForbidden
from schemas.approvals.check_in import CheckInRejected
from schemas.approvals.task import TaskClaimRenewed, TaskDecided, TaskHelperJoined
from schemas.approvals.thread import MessagePosted
from schemas.envelope import SYSTEM, Actor
from tests.commands.approvals.histories import (
    AGENT_ID,
    CHECK_IN_ID,
    ROOM_ID,
    created,
    decision,
)
from tests.commands.approvals.tasks import (
    HALF,
    HELPER,
    MINUTE,
    OTHER,
    OTHER_ID,
    TASK_ID,
    all_states,
    claimed,
    posted,
)
from tests.given import AGENT, HUMAN, NOW, Given

BY_PERSON = PostMessage(ROOM_ID, "", "hello")
BY_AGENT = PostMessage(ROOM_ID, AGENT_ID, "hello")
BY_OTHER = PostMessage(ROOM_ID, OTHER_ID, "hello")
OF_CHECK_IN = (created(),)
OF_TASK = (posted(), claimed())


def message(number: int = 1, actor: Actor = HUMAN, at: int = NOW, **fields: Any) -> MessagePosted:
    defaults: dict[str, Any] = {
        "room_id": ROOM_ID,
        "message_id": "msg_1",
        "number": number,
        "author_kind": actor.kind,
        "author_id": actor.id,
        "author_name": actor.name,
        "body": "hello",
        "message_type": "comment",
        "metadata": "{}",
        "attachments": "[]",
        "posted_at": at,
    }
    return MessagePosted(**defaults | fields)


def given(about: tuple[Any, ...], *events: Any, actor: Actor = HUMAN, **loaded: Any) -> Given:
    """A thread about a task or a check-in with this history."""
    decider, id = (TASK, TASK_ID) if about[:1] == (posted(),) else (CHECK_IN, CHECK_IN_ID)
    state = decider.initial
    for event in about:
        state = decider.evolve(state, event)
    states = all_states(**loaded) | {Ref(decider.stream, id): state}
    return Given(DECIDER, *events, id=id, actor=actor, states=states)


@pytest.mark.parametrize("about", [OF_CHECK_IN, OF_TASK, (posted(),)])
def test_people_write_everywhere(about: Any) -> None:
    given(about).when(BY_PERSON).then(message())


@pytest.mark.parametrize("about", [OF_CHECK_IN, OF_TASK, (posted(),)])
def test_the_agent_that_asked_or_works_or_may_claim_writes(about: Any) -> None:
    given(about, actor=AGENT).when(BY_AGENT).then(message(actor=AGENT))


def test_another_agent_writes_as_a_helper_only() -> None:
    for about in (OF_CHECK_IN, OF_TASK):
        given(about, actor=OTHER).when(BY_OTHER).then_refused(ActorForbidden)
    helped = (*OF_TASK, TaskHelperJoined(ROOM_ID, AGENT_ID, OTHER_ID, [HELPER], NOW))
    given(helped, actor=OTHER).when(BY_OTHER).then(message(actor=OTHER))


def test_what_is_decided_is_still_talked_about() -> None:
    rejected = CheckInRejected(ROOM_ID, AGENT_ID, decision())
    given((*OF_CHECK_IN, rejected), actor=AGENT).when(BY_AGENT).then(message(actor=AGENT))
    ended = (*OF_TASK, TaskDecided(ROOM_ID, AGENT_ID, "approved", decision()))
    given(ended, actor=AGENT).at(HALF).when(BY_AGENT).then(message(actor=AGENT, at=HALF))
    given(ended, actor=OTHER).when(BY_OTHER).then_refused(ActorForbidden)


def test_all_that_a_message_carries_is_kept() -> None:
    command = PostMessage(ROOM_ID, "", "look", "escalation", '{"a":1}', '[{"url":"x"}]')
    expected = message(
        body="look", message_type="escalation", metadata='{"a":1}', attachments='[{"url":"x"}]'
    )
    given(OF_CHECK_IN).when(command).then(expected)


def test_messages_are_numbered_and_a_repeat_is_quiet() -> None:
    first = message(message_id="msg_0")
    given_ = given(OF_CHECK_IN, first).when(BY_PERSON).then(message(2))
    given_.when(BY_PERSON).then_quiet()
    context = Context("ten_1", CHECK_IN_ID, HUMAN, NOW + 9, "cmd_1", {}, {})
    answer = DECIDER.answer(BY_PERSON, given_.state, context)
    assert answer == MessageAnswered("msg_1", 2, NOW)


def test_a_message_of_the_agent_at_work_renews_its_lease() -> None:
    renewed = TaskClaimRenewed(ROOM_ID, AGENT_ID, HALF + 60 * MINUTE)
    given(OF_TASK, actor=AGENT).at(HALF).when(BY_AGENT).then(
        message(actor=AGENT, at=HALF), Emit("approvals.task", TASK_ID, renewed)
    )
    given(OF_TASK).at(HALF).when(BY_PERSON).then(message(at=HALF))


@pytest.mark.parametrize("command", [BY_PERSON, BY_AGENT])
def test_there_must_be_something_to_write_about(command: Any) -> None:
    actor = AGENT if command.agent_id else HUMAN
    given((), actor=actor).when(command).then_refused(CheckInNotFound)
    elsewhere = msgspec.structs.replace(command, room_id="room_2")
    given(OF_TASK, actor=actor).when(elsewhere).then_refused(CheckInNotFound)


def test_an_agent_that_does_not_see_the_room_finds_nothing() -> None:
    narrow = given(OF_TASK, actor=AGENT, room_scopes=["room_2"])
    narrow.when(BY_AGENT).then_refused(CheckInNotFound)


def test_nobody_writes_for_somebody_else() -> None:
    given(OF_TASK, actor=AGENT).when(BY_OTHER).then_refused(ActorForbidden)
    given(OF_TASK, actor=AGENT, active=False).when(BY_AGENT).then_refused(ActorForbidden)
    given(OF_TASK, actor=SYSTEM).when(BY_PERSON).then_refused(ActorForbidden)


def test_a_thread_has_an_end() -> None:
    given_ = given(OF_CHECK_IN)
    given_.state = Thread(MESSAGES_MAX, [Posted("msg_0", MESSAGES_MAX, NOW)])
    given_.when(BY_PERSON).then_refused(ThreadFull)


def test_what_was_written_is_not_in_the_audit() -> None:
    assert DECIDER.describe(BY_PERSON) == {"room_id": ROOM_ID, "message_type": "comment"}
