"""The prompts surface over memory, with a builder and an agent's key."""

from collections.abc import AsyncIterator

import pytest

from api.prompts import ROUTES
from infra.clock import ManualClock
from tests.api.harness import Harness
from tests.api.prompts.client import PromptsClient
from tests.api.prompts.tables import Tables

NOON = 1_736_942_400_000_000  # 2025-01-15T12:00:00Z


class Prompts(PromptsClient):
    """The client over a harness, whose clock stands at noon until a test moves it."""

    def __init__(self, harness: Harness, clock: ManualClock, tables: Tables) -> None:
        builder = harness.human(roles=("developer",), cookie=True)
        super().__init__(harness.client, builder, harness.key(roles=("viewer",)))
        self.harness, self.clock, self.tables = harness, clock, tables


@pytest.fixture
async def prompts() -> AsyncIterator[Prompts]:
    tables, clock = Tables(), ManualClock(NOON)
    async with Harness(ROUTES, apply=tables.apply, clock=clock) as harness:
        tables.answer(harness.reads)
        yield Prompts(harness, clock, tables)
