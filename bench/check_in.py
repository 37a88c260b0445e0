"""A check-in's round trip against the bare loop: `python -m bench.check_in [SECONDS]`.

Ours: an agent asks for leave in a room (`CreateCheckIn`), from the command bus through the decider
to the answer: policies judged, events, audit record and outcome on the log, state, timer and read
model in Postgres. The bare loop comes twice: with the same records and rows, made beforehand, which
shows what our code costs and is what we hold ourselves to; and with one event and one row, which
shows what all that a check-in keeps costs. All sides run in this process, on one partition each,
and take turns, so that what else the machine does hits all.
"""

import contextlib
import statistics
import sys
from collections.abc import AsyncIterator, Sequence

import uvloop

from bench.bare_loop import Least, bare
from bench.figure import Call, Figure, Timed, timed
from bench.same_writes import Asked, SameWrites
from bench.servers import servers
from commands.approvals.agent import RegisterAgent
from commands.approvals.check_in_state import CreateCheckIn
from commands.approvals.room import CreateRoom
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import create_topics
from infra.memory import tune_collector
from infra.partitioning import partition_for
from schemas.approvals.policies import Policies
from schemas.envelope import Actor
from tests.loops import loops

IN_FLIGHT = (1, 32, 256)
ROUNDS = 3
AT_MOST = 1.5
_ADA = Actor("user", "usr_bench", "Ada")
_POLICIES = Policies(default_action="require_approval", timeout_minutes=30, timeout_action="cancel")
_CONTEXT = '{"amount":1250,"currency":"EUR","invoice":"INV-2026-118","vendor":"Acme"}'


def _asked() -> list[Asked]:
    """What makes a room, an agent that may ask in it, and a question."""
    room, agent = new_id("room"), Actor("agent", new_id("agt"), "Robby")
    question = CreateCheckIn(
        room_id=room,
        agent_id=agent.id,
        action="pay_invoice",
        description="Pay the invoice of a known vendor",
        risk_level="medium",
        context=_CONTEXT,
    )
    return [
        Asked(room, CreateRoom("Payments", _POLICIES, slug=room), _ADA),
        Asked(agent.id, RegisterAgent("Robby", new_id("wr"), "0" * 64), _ADA),
        Asked(new_id("ci"), question, agent),
    ]


@contextlib.asynccontextmanager
async def ours(settings: Settings) -> AsyncIterator[Call]:
    """The product's loop and one room of one tenant in it."""
    tenant = next(
        id for id in iter(lambda: new_id("ten"), "") if partition_for(id, settings.partitions) == 0
    )
    async with loops(settings) as running:
        *before, question = _asked()
        for asked in before:
            reply = await running.send(tenant, asked.stream_id, asked.command, actor=asked.actor)
            assert reply.status == "accepted", reply

        async def call() -> None:
            reply = await running.send(tenant, new_id("ci"), question.command, actor=question.actor)
            assert reply.status == "accepted", reply

        yield call


async def run(settings: Settings, seconds: float) -> list[Figure]:
    """Measure the sides in turn, `seconds` for each side, load and round."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    same = SameWrites(new_id("ten"), _asked())
    figures = []
    async with (
        ours(settings) as our_call,
        bare(settings, same) as same_call,
        bare(settings, Least()) as least_call,
    ):
        calls = (same_call, least_call, our_call)
        for call in calls:
            await timed(call, 32, 2)
        for in_flight in IN_FLIGHT:
            rounds = [
                [await timed(call, in_flight, seconds) for call in calls] for _ in range(ROUNDS)
            ]
            same_, least, mine = (_median(side) for side in zip(*rounds, strict=True))
            name = f"check-in round trip, {in_flight} in flight"
            figures += [
                _figure(f"{name}, to the same writes", same_, mine, AT_MOST),
                _figure(f"{name}, to one event and one row", least, mine, None),
            ]
            for figure in figures[-2:]:
                print(figure.line(), flush=True)
    return figures


def _median(rounds: Sequence[Timed]) -> Timed:
    return Timed(*(statistics.median(values) for values in zip(*rounds, strict=True)))


def _figure(name: str, bare: Timed, mine: Timed, at_most: float | None) -> Figure:
    ratio = mine.p50 / bare.p50
    return Figure(name=name, bare=str(bare), ours=str(mine), ratio=ratio, at_most=at_most)


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on a stack of its own."""
    tune_collector()  # as every role does
    with servers() as settings:
        return uvloop.run(run(settings, seconds))


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
