"""Clients that are let go before they have done anything: it must not look like a cancellation."""

import asyncio

from infra.config import Settings
from infra.ids import new_id
from infra.kafka import consumer, stop_consumer
from infra.kafka_transactions import Transactions


async def test_a_producer_that_was_just_fenced_in_can_be_thrown_away(settings: Settings) -> None:
    # A decider whose Postgres is away does exactly this, again and again.
    transactions = Transactions(settings.kafka_bootstrap_servers, new_id("txn"))
    for _ in range(3):
        await transactions.fence()
        await transactions.discard()
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_consumer_that_was_never_assigned_anything_can_be_stopped(
    settings: Settings,
) -> None:
    reader = consumer(settings.kafka_bootstrap_servers, "test")
    await reader.start()
    await stop_consumer(reader)
    assert reader._closed
