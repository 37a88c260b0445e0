"""A check-in's round trip against the bare loop: `python -m bench.check_in [SECONDS]`.

Ours: an agent asks for leave in a room (`CreateCheckIn`), from the command bus through the decider
to the answer: policies judged, events, audit record and outcome on the log, state, timer and read
model in Postgres. Both sides run in this process, on one partition each, and take turns, so that
what else the machine does hits both.
"""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvloop

from bench import bare_loop
from bench.figure import Call, Figure, Timed, timed
from commands.approvals.agent import RegisterAgent
from commands.approvals.check_in_state import CreateCheckIn
from commands.approvals.room import CreateRoom
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import create_topics, partition_for
from infra.memory import tune_collector
from schemas.approvals.policies import Policies
from schemas.envelope import Actor
from tests.loops import Loops, loops
from tests.stack import fresh_stores

IN_FLIGHT = (1, 32, 256)
ROUNDS = 3
AT_MOST = 1.5
_ADA = Actor("user", "usr_bench", "Ada")
_POLICIES = Policies(default_action="require_approval", timeout_minutes=30, timeout_action="cancel")
_CONTEXT = '{"amount":1250,"currency":"EUR","invoice":"INV-2026-118","vendor":"Acme"}'


@contextlib.asynccontextmanager
async def ours(settings: Settings) -> AsyncIterator[Call]:
    """The product's loop and one room of one tenant in it."""
    tenant = next(
        id for id in iter(lambda: new_id("ten"), "") if partition_for(id, settings.partitions) == 0
    )
    async with loops(settings) as running:
        room, agent = await _furnish(running, tenant)
        command = CreateCheckIn(
            room_id=room,
            agent_id=agent.id,
            action="pay_invoice",
            description="Pay the invoice of a known vendor",
            risk_level="medium",
            context=_CONTEXT,
        )

        async def call() -> None:
            reply = await running.send(tenant, new_id("ci"), command, actor=agent)
            assert reply.status == "accepted", reply

        yield call


async def _furnish(running: Loops, tenant: str) -> tuple[str, Actor]:
    """A room and an agent that may ask in it."""
    room, agent = new_id("room"), Actor("agent", new_id("agt"), "Robby")
    made = await running.send(tenant, room, CreateRoom("Payments", _POLICIES), actor=_ADA)
    assert made.status == "accepted", made
    register = RegisterAgent("Robby", "wr_bench", "0" * 64)
    made = await running.send(tenant, agent.id, register, actor=_ADA)
    assert made.status == "accepted", made
    return room, agent


async def run(settings: Settings, seconds: float) -> list[Figure]:
    """Measure both sides in turn, `seconds` for each side, load and round."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    await bare_loop.create_topics(settings.kafka_bootstrap_servers)
    figures = []
    async with bare_loop.bare(settings) as bare_call, ours(settings) as our_call:
        for call in (bare_call, our_call):
            await timed(call, 32, 2)
        for in_flight in IN_FLIGHT:
            bare, mine = [], []
            for _ in range(ROUNDS):
                bare.append(await timed(bare_call, in_flight, seconds))
                mine.append(await timed(our_call, in_flight, seconds))
            figures.append(_figure(in_flight, _median(bare), _median(mine)))
            print(figures[-1].line(), flush=True)
    return figures


def _median(rounds: Sequence[Timed]) -> Timed:
    return Timed(*(statistics.median(values) for values in zip(*rounds, strict=True)))


def _figure(in_flight: int, bare: Timed, mine: Timed) -> Figure:
    return Figure(
        name=f"check-in round trip, {in_flight} in flight",
        bare=str(bare),
        ours=str(mine),
        ratio=mine.p50 / bare.p50,
        at_most=AT_MOST,
    )


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on a stack of its own."""
    tune_collector()  # as every role does
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        stores = Path(folder, "stores")
        stores.mkdir()
        with Stack(Path(folder, "data")) as stack:
            return uvloop.run(run(fresh_stores(stack, stores), seconds))


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
