"""A tenant whose every command changes one stream, and what was acknowledged of it.

Clients repeat a command with its id until it is answered; at the end the log is judged by the chaos
oracle, which shares no code with the product.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from commands.billing.budget import SetBudget, budget_id
from infra.config import Settings
from infra.ids import new_id
from infra.partitioning import partition_for
from streams.bus import KafkaCommandBus, OutcomeUnknown, Reply
from tests.chaos import oracle
from tests.loops import Loops

METER = "faults.proxy"


class Ledger:
    """One tenant, on a partition of the test's choosing."""

    def __init__(self, settings: Settings, bus: KafkaCommandBus, partition: int = 0) -> None:
        self.tenant = new_id("ten")
        while partition_for(self.tenant, settings.partitions) != partition:
            self.tenant = new_id("ten")
        self._running = Loops(settings, bus)
        self._number = 0
        self.replies: list[Reply] = []

    async def command(self, timeout: float = 3.0) -> Reply:
        """Set the budget to what it never was, as often as it takes to get an answer."""
        self._number += 1
        set_budget = SetBudget(meter=METER, window="day", limit=self._number, alert_percents=[100])
        id = new_id("cmd")
        while True:
            try:
                reply = await self._running.send(
                    self.tenant,
                    budget_id(METER, "day"),
                    set_budget,
                    command_id=id,
                    fingerprint="f",
                    timeout=timeout,
                )
            except OutcomeUnknown:
                continue
            self.replies.append(reply)
            return reply

    async def commands(self, count: int) -> None:
        """Several at once."""
        await asyncio.gather(*(self.command() for _ in range(count)))

    def check(self, log: Mapping[str, Sequence[oracle.Entry]]) -> None:
        """Each command exactly once, versions 1..n, the audit chain and the outcomes whole."""
        assert {reply.status for reply in self.replies} == {"accepted"}
        expected = list(range(1, self._number + 1))
        assert sorted(reply.version for reply in self.replies) == expected
        ours = {
            name: [entry for entry in entries if entry.tenant == self.tenant]
            for name, entries in log.items()
        }
        oracle.check_versions(ours["events"])
        oracle.check_ids(ours["events"])
        oracle.check_copies(ours["events"], ours["billing"], "billing.")
        oracle.check_outcomes(ours["outcomes"], ours["audit"])
        caused = {entry.headers["ce_causationid"] for entry in ours["events"]}
        assert caused == {reply.command_id for reply in self.replies}
        assert len(ours["events"]) == len(expected)
        assert oracle.check_audit(ours["audit"]) == {self.tenant: len(expected)}


async def judge(settings: Settings, ledgers: Iterable[Ledger]) -> None:
    """Read the log once, without the product's help, and check every ledger against it."""
    log = await asyncio.to_thread(
        oracle.read_log,
        settings.kafka_bootstrap_servers,
        ("events", "billing", "audit", "outcomes"),
    )
    for ledger in ledgers:
        ledger.check(log)
