"""Waitroom's roles as processes: against a small model of its document, under kills, and crowded.

`python -m tests.waitroom --minutes 10 --kill --seed 7` does it for longer. The seed is printed.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from infra.embedded.stack import Stack
from tests.waitroom.crowd import listening
from tests.waitroom.machine import WaitroomMachine
from tests.waitroom.model import UNIT_MINUTES, Waitroom
from tests.waitroom.organisation import Organisation
from tests.waitroom.rig import Killer, Rig

# What the suite does; with minutes given it is done again, by other seeds, until they are over.
EXAMPLES = 3
MINUTES = float(os.environ.get("WAITROOM_MINUTES", "0"))
STEPS = int(os.environ.get("WAITROOM_STEPS", "25"))
SEED = int(os.environ.get("WAITROOM_SEED") or random.SystemRandom().randrange(2**31))
TIMEOUT_SECONDS = MINUTES * 60 + 600


@pytest.fixture(scope="module")
def rig(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    running = Rig(stack, tmp_path_factory.mktemp("waitroom"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def drive(rig: Rig, examples: int) -> int:
    """Run the machine on the rig; how many examples. Raises what it finds, and how one gets there.

    Each example is a history on a log that is not taken back; so none is tried to be made shorter.
    """
    ends, run = time.monotonic() + MINUTES * 60, itertools.count()
    for number in run:
        chosen = SEED + number
        print(f"waitroom: seed {chosen}, {examples} examples of {STEPS} steps", flush=True)
        machine = type("Machine", (WaitroomMachine,), {"rig": rig})
        run_state_machine_as_test(
            seed(chosen)(machine),
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        if time.monotonic() >= ends:
            break
    return next(run) * examples


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_the_api_is_what_the_model_says(rig: Rig) -> None:
    assert drive(rig, EXAMPLES) >= EXAMPLES


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_the_api_is_what_the_model_says_under_kills(rig: Rig) -> None:
    killer = Killer(rig, SEED)
    killer.start()
    try:
        drive(rig, 1)
    finally:
        print(f"waitroom: killed {'; '.join(killer.schedule)}; {rig.repeats} repeats")
        killer.finish()
    assert killer.schedule


def opened(rig: Rig, people: int = 2) -> tuple[Organisation, dict[str, str]]:
    """An organisation with so many people, the room `crowd`, and the headers of an agent."""
    its = Organisation(rig, Waitroom(), people)
    admin = its.people[0]
    policies = {"timeout_minutes": UNIT_MINUTES, "timeout_action": "cancel"}
    body = {"name": "Crowd", "slug": "crowd", "policies": policies}
    room = its.call(admin, "POST", "/v1/rooms", body)
    made = its.call(admin, "POST", "/v1/agents/register", {"name": "Robby"})
    assert (room.status_code, made.status_code) == (201, 201)
    its.position = room.headers["x-log-position"]
    return its, {"Authorization": f"Bearer {made.json()['data']['api_key']}"}


def ask(rig: Rig, agent: dict[str, str], **fields: object) -> str:
    """The id of a new check-in."""
    body = {"action": "refund an order", **fields}
    answer = rig.call("POST", "/v1/rooms/crowd/check-in", agent, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["id"])


def test_64_people_decide_at_once_and_one_wins(rig: Rig) -> None:
    its, agent = opened(rig, people=64)
    path = f"/v1/check-ins/{ask(rig, agent)}/approve"
    answers = rig.at_once(lambda person: its.call(person, "POST", path, {}), its.people)
    (won,) = [answer.json()["data"] for answer in answers if answer.status_code == 200]
    lost = [answer.json()["error"] for answer in answers if answer.status_code == 409]
    assert len(lost) == 63
    assert {error["code"] for error in lost} == {"CONFLICT"}
    assert {error["details"]["decision_id"] for error in lost} == {won["decision_id"]}
    assert {error["details"]["decided_by"] for error in lost} == {won["decided_by"]}
    its.recorded.update((person.id, "approve_check_in", "refused") for person in its.people)
    its.recorded[won["decided_by"], "approve_check_in", "refused"] -= 1
    its.recorded[won["decided_by"], "approve_check_in", "accepted"] += 1
    trail = its.trail("event_type=approvals.approve_check_in", 64)
    found = Counter((record["actor_id"], record["outcome"]) for record in trail)
    accepted = {(won["decided_by"], "accepted")}
    refused = {(p.id, "refused") for p in its.people if p.id != won["decided_by"]}
    assert found == Counter(accepted | refused)


def test_hundreds_time_out_at_once_and_each_expires_once_through_restarts(rig: Rig) -> None:
    its, agent = opened(rig)
    ids = rig.at_once(lambda _: ask(rig, agent), range(300))
    killed = [rig.parts["scheduler"], rig.parts["decider"]]
    stream, person = "/v1/rooms/crowd/events", its.headers[its.people[0]]
    expired = list[str]()
    with rig.following(stream, person, its.position) as events:
        rig.clock.advance(UNIT_MINUTES)
        for _, name, data in events:
            if name == "signal.broadcast":
                break
            if name == "check_in.expired":
                expired.append(data["check_in_id"])
                if len(expired) == 1:
                    for part in killed:
                        part.kill()
                    for part in killed:
                        part.wait_ready()
                if len(expired) == len(ids):
                    # What is due once more would be told before a signal that comes later.
                    its.until(lambda: rig.timers(its.tenant), 0)
                    its.call(its.people[0], "POST", "/v1/rooms/crowd/signal", {"type": "end"})
    assert sorted(expired) == sorted(ids)


def test_a_thousand_listen_to_a_room_and_the_log_does_not_notice(rig: Rig) -> None:
    _, agent = opened(rig)
    api = psutil.Process(rig.parts["api+analytics"].pid)
    kafka = int(rig.settings.kafka_bootstrap_servers.rpartition(":")[2])

    def connections() -> int:
        """How many the API holds to the broker."""
        found = api.net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port == kafka for one in found)

    async def listen() -> tuple[int, int]:
        before, path = connections(), "/v1/rooms/crowd/events"
        async with listening(rig.settings.port, path, agent, 1000) as crowd:
            during = connections()
            id = await asyncio.to_thread(ask, rig, agent)
            async with asyncio.timeout(60):
                await asyncio.gather(*(one.until(id.encode(), b"payload_hash") for one in crowd))
        return before, during

    before, during = asyncio.run(listen())
    assert during - before < 10, "a listener has a connection to the broker of its own"
