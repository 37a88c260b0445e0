"""The decider's requests to Kafka are lost, delayed and cut, one kind at a time.

Each kind of request has a partition of its own, so that the four suffer side by side. Time-outs are
short here; what they mean is the same. A delayed request reaches the broker when its sender has
given up long since and a new one with the same transactional id is at work.
"""

import asyncio
import dataclasses

import pytest

from infra import kafka, kafka_transactions
from infra.config import Settings
from infra.kafka import create_topics
from tests.faults.ledger import Ledger, judge
from tests.faults.proxy import (
    ADD_PARTITIONS_TO_TXN,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    Fault,
    KafkaProxy,
    Rule,
)
from tests.loops import deciding, talking

TIMEOUT_SECONDS = 1.5
DELAY_SECONDS = 3.5
KINDS = (END_TXN, PRODUCE, INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN)


def rules_for(api_key: int, partition: int, fault: Fault) -> list[Rule]:
    """The fault, twice in a row; and what makes a decider fence itself in anew."""
    owner = f"decider-{partition}"
    rules = [Rule(api_key, owner, fault, times=2, delay=DELAY_SECONDS)]
    if api_key == INIT_PRODUCER_ID:
        rules.append(Rule(END_TXN, owner, Fault.DROP_ANSWER))
    return rules


async def suffer(proxy: KafkaProxy, ledger: Ledger, rules: list[Rule]) -> None:
    """Commands before, under and after the faults."""
    await ledger.commands(2)
    proxy.rules += rules
    await ledger.commands(6)
    for rule in rules:
        # One batch may have needed a single request; the next ones run into what is left.
        while rule.times:
            await ledger.command()
        await rule.passed.wait()
    await ledger.commands(2)


@pytest.mark.parametrize("fault", Fault)
async def test_a_faulty_network_loses_and_doubles_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(kafka_transactions, "TXN_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    monkeypatch.setattr(kafka_transactions, "FENCE_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    monkeypatch.setattr(kafka, "CLOSE_SECONDS", 0.3)
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    broker_port = int(settings.kafka_bootstrap_servers.rpartition(":")[2])
    async with KafkaProxy(broker_port) as proxy:
        behind = dataclasses.replace(settings, kafka_bootstrap_servers=proxy.bootstrap)
        async with deciding(behind), talking(settings) as bus:
            ledgers = [Ledger(settings, bus, partition) for partition in range(len(KINDS))]
            await asyncio.gather(
                *(
                    suffer(proxy, ledger, rules_for(api_key, partition, fault))
                    for partition, (api_key, ledger) in enumerate(zip(KINDS, ledgers, strict=True))
                )
            )
    assert proxy.connections > len(KINDS)  # the proxy was not passed by
    await judge(settings, ledgers)
