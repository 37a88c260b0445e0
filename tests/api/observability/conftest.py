"""A world per test: an engine of its own, so that no test sees another's rows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.observability.world import World
from tests.api.observability.world import world as made


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with made(tmp_path) as found:
        yield found
