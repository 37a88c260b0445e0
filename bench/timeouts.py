"""Check-ins that time out: `python -m bench --only timeouts`.

Ten thousand of one room, which nobody decides: all due in the same instant, and due within a minute
(`--seconds` shortens both the minute and their number). How late each expires is the time from when
it was due until its event can be read from the log. Decider and scheduler run in this process, by
a clock that stands still while the check-ins are made and is then set to their time.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import uvloop

from api.live import LiveHub
from api.subscription import LiveEvent
from bench.figure import Figure
from bench.servers import servers
from commands.approvals.agent import RegisterAgent
from commands.approvals.check_in_state import CreateCheckIn
from commands.approvals.room import CreateRoom
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import consumer
from infra.memory import tune_collector
from infra.postgres import Reads
from projections.approvals.check_ins import CHECK_INS
from schemas.approvals.check_in import CheckInExpired
from schemas.approvals.policies import Policies
from schemas.avro_derivation import tag_of
from schemas.envelope import Actor
from streams.runtime import codec
from streams.scheduler import Scheduler
from tests.loops import Loops, loops

COUNT_AT_FOUR_SECONDS = 10_000
MINUTE_AT_FOUR_SECONDS = 60.0
LATE_MOST = 2.0
_STEPS = 100
_EXPIRED = tag_of(CheckInExpired)
_POLICIES = Policies(default_action="require_approval", timeout_minutes=1, timeout_action="cancel")
_ADA = Actor("user", "usr_bench", "Ada")


class SettableClock:
    """The machine's clock, or an instant at which it stands (microseconds)."""

    def __init__(self) -> None:
        self.stands_at: int | None = None
        self._behind = 0

    def now(self) -> int:
        if self.stands_at is not None:
            return self.stands_at
        return SYSTEM_CLOCK.now() - self._behind

    def go_on_from(self, instant: int) -> None:
        """Run again, from that instant."""
        self._behind, self.stands_at = SYSTEM_CLOCK.now() - instant, None


async def ask(
    running: Loops,
    clock: SettableClock,
    tenant: str,
    count: int,
    within: float,
    *,
    steps: int = _STEPS,
) -> int:
    """Make check-ins that are due within so many seconds, in that many instants; when the first of
    them is due (microseconds)."""
    room, agent = new_id("room"), Actor("agent", new_id("agt"), "Robby")
    for id, command in (
        (room, CreateRoom("Payments", _POLICIES, slug=room)),
        (agent.id, RegisterAgent("Robby", new_id("wr"), "0" * 64)),
    ):
        assert (await running.send(tenant, id, command, actor=_ADA)).status == "accepted"
    began = clock.stands_at = SYSTEM_CLOCK.now()
    question = CreateCheckIn(room_id=room, agent_id=agent.id, action="pay_invoice")
    for step in range(steps):
        clock.stands_at = began + int(within * 1e6 * step / steps)
        ids = [new_id("ci") for _ in range(count // steps)]
        sent = (running.send(tenant, id, question, actor=agent, timeout=60) for id in ids)
        assert {reply.status for reply in await asyncio.gather(*sent)} == {"accepted"}
    return began + 60_000_000


@contextlib.asynccontextmanager
async def firing(settings: Settings, running: Loops, clock: SettableClock) -> AsyncIterator[None]:
    """A scheduler by this clock."""
    scheduler = Scheduler(
        database=settings.database_url,
        bus=running.bus,
        codec=codec(),
        clock=clock,
        owner=new_id("bench"),
    )
    task = asyncio.create_task(scheduler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def lateness(settings: Settings, count: int, within: float) -> tuple[list[float], float]:
    """Seconds that each was late, sorted, and the processor time of one, in seconds."""
    clock, tenant = SettableClock(), new_id("ten")
    late: dict[str, float] = {}
    over = asyncio.Event()

    def told(event: LiveEvent) -> None:
        if event.tenant == tenant and event.type == _EXPIRED:
            id = event.envelope.stream_id
            assert id not in late, "a check-in has expired twice"
            late[id] = (clock.now() - due[id]) / 1e6
            if len(late) == count:
                over.set()

    async with (
        loops(settings, clock=clock) as running,
        firing(settings, running, clock),
        reading(settings) as reads,
    ):
        first = await ask(running, clock, tenant, count, within)
        rows = await reads.all(
            f"SELECT id, due_at FROM {CHECK_INS.table} WHERE tenant = %s", tenant
        )
        due = {row["id"]: row["due_at"] for row in rows}
        hub = LiveHub(lambda: consumer(settings.kafka_bootstrap_servers, "bench-tail"), codec())
        hub.on_event(told)
        await hub.start()
        clock.go_on_from(first)
        began = time.process_time()
        async with asyncio.timeout(within + 120):
            await over.wait()
        spent = time.process_time() - began
        await hub.stop()
    return sorted(late.values()), spent / count


@contextlib.asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Reads]:
    """Queries on the read models."""
    reads = Reads(settings.database_url)
    await reads.start()
    try:
        yield reads
    finally:
        await reads.stop()


async def run(settings: Settings, seconds: float) -> list[Figure]:
    """Both ways to time out."""
    share = min(1.0, seconds / 4.0)
    count = int(COUNT_AT_FOUR_SECONDS * share)
    figures = []
    for within, when in ((0.0, "at once"), (MINUTE_AT_FOUR_SECONDS * share, "within a minute")):
        late, spent = await lateness(settings, count, within)
        p50, p99 = late[count // 2], late[int(count * 0.99)]
        name = f"{count:,} check-ins time out {when}" + (f" ({within:.0f} s)" if within else "")
        figures.append(
            Figure(
                name=name,
                bare=f"{LATE_MOST:.0f} s asked",
                ours=f"late p50 {p50:.2f} s, p99 {p99:.2f} s, the last {late[-1]:.2f} s;"
                f" {spent * 1e6:.0f} us of CPU each",
                ratio=p99 / LATE_MOST,
                at_most=1.0,
            )
        )
        print(figures[-1].line(), flush=True)
    return figures


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on a stack of its own."""
    tune_collector()  # as every role does
    with servers() as settings:
        return uvloop.run(run(settings, seconds))


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
