"""A hard cap under many clients while the decider is killed: never exceeded, equal to the log."""

import asyncio
import random
import signal
from typing import Any

from commands.billing.account import SetSpendingCaps
from commands.fhe.evaluation_key import RegisterEvaluationKey
from commands.fhe.job import CancelJob, Input, RecordJobFailure, RecordJobResult, SubmitJob
from commands.fhe.pricing import price_of
from infra.config import Settings
from infra.ids import new_id
from infra.kafka import create_topics
from schemas.billing.account import ACCOUNT_ID, SpendingCap
from streams.bus import KafkaCommandBus, OutcomeUnknown, Reply
from tests.commands.fhe.cases import FINGERPRINT, RELIN, cipher
from tests.faults.departed import end_leases
from tests.faults.roles import RoleProcess
from tests.loops import Loops, deciding, read_topic, talking

CLIENTS, JOBS_EACH = 64, 3
PRICE = price_of("add", "ckks-n13", 1, 0).amount
CAP = 40 * PRICE
SUBMIT = SubmitJob("ek_1", "add", [Input(cipher("a")), Input(cipher("b"))])
RESULT = RecordJobResult(cipher("out"), 900, 1)


class Clients:
    """Clients and workers of one tenant; each repeats what it has no answer to."""

    def __init__(self, settings: Settings, bus: KafkaCommandBus, seed: int) -> None:
        self.tenant, self.chance = new_id("ten"), random.Random(seed)
        self.refused, self.answers = 0, 0
        self._running = Loops(settings, bus)
        self._kill_at = asyncio.Event()
        self._threshold = self.chance.randint(40, 160)

    async def sent(self, stream_id: str, command: Any) -> Reply:
        id = new_id("cmd")
        while True:
            try:
                reply = await self._running.send(
                    self.tenant, stream_id, command, command_id=id, fingerprint="f", timeout=3
                )
            except OutcomeUnknown:
                continue
            self.answers += 1
            if self.answers >= self._threshold:
                self._kill_at.set()
            return reply

    async def midst(self) -> None:
        """Return when a random number of answers has come."""
        await self._kill_at.wait()

    async def client(self) -> None:
        for _ in range(JOBS_EACH):
            job = new_id("job")
            reply = await self.sent(job, SUBMIT)
            if reply.status == "refused":
                assert (reply.code, reply.kind) == ("budget_cap_reached", "payment_required")
                self.refused += 1
                continue
            assert reply.status == "accepted"
            # Two workers may report one job, and the client may cancel it meanwhile.
            ends = [RESULT, RESULT, RecordJobFailure("engine_failure", "x"), CancelJob()]
            await asyncio.gather(
                *(self.sent(job, end) for end in self.chance.sample(ends, 2)),
            )


async def test_many_clients_on_one_cap_never_spend_beyond_it_whatever_is_killed(
    settings: Settings,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    async with talking(settings) as bus:
        clients = Clients(settings, bus, seed)
        with RoleProcess(settings, ["decider"]) as doomed:
            await clients.sent("ek_1", RegisterEvaluationKey("ckks-n13", FINGERPRINT, "", [RELIN]))
            cap = SpendingCap(CAP, True, [50, 100])
            await clients.sent(ACCOUNT_ID, SetSpendingCaps(month=cap))
            working = [asyncio.create_task(clients.client()) for _ in range(CLIENTS)]
            await clients.midst()
            doomed.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(doomed.process.wait)
        await end_leases(settings)
        async with deciding(settings), asyncio.timeout(120):
            await asyncio.gather(*working)
    check(await read_topic(settings, "events", clients.tenant), clients.refused, seed)


def check(records: list[Any], refused: int, seed: int) -> None:
    """The log itself: no balance beyond the cap, each charge ended once, one sum everywhere."""
    events: dict[str, list[Any]] = {}
    for headers, event in records:
        name = headers["ce_type"].split(".")[1]
        events.setdefault(name, []).append(event)
        if hasattr(event, "balance"):
            balance = event.balance
            assert balance.month_spent + balance.reserved <= CAP, f"seed {seed}"
    reserved, committed = events["charge_reserved"], events["charge_committed"]
    released = events.get("charge_released", [])
    ended = [event.charge_id for event in (*committed, *released)]
    assert sorted(ended) == sorted(event.charge_id for event in reserved), f"seed {seed}"
    assert len(ended) + refused == CLIENTS * JOBS_EACH
    spent = sum(event.amount for event in committed)
    used = [e for e in events["usage_recorded"] if e.meter == "fhe.price_nanodollars"]
    assert sum(event.quantity for event in used) == spent
    assert len(events["job_succeeded"]) * PRICE == spent
    last = max((*committed, *released), key=lambda event: event.balance.month_spent)
    assert last.balance.month_spent == spent <= CAP
    assert refused > 0, "the cap was never felt"
    reached = [event.percent for event in events["cap_threshold_reached"]]
    assert reached == [percent for percent in (50, 100) if spent * 100 >= CAP * percent]
