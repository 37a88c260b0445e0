"""The analytics loop in a process of its own that kills itself at a given insert.

`python -m tests.integration.analytics_child before|during|after N`; settings in the environment.
"""

import asyncio
import os
import signal
import sys
import threading
from typing import Any

from infra.clickhouse import ClickHouse
from infra.config import load_settings
from infra.kafka import Log
from projections import CLICKHOUSE_VIEWS
from projections.clickhouse import tables_by_topic
from streams.analytics import AnalyticsLoop, Limits
from streams.runtime import codec, person_keys


class Mortal(ClickHouse):
    """Dies before, during or after its n-th insert."""

    def __init__(self, url: str, point: str, count: int) -> None:
        super().__init__(url, tables=tables_by_topic(CLICKHOUSE_VIEWS))
        self._point, self._left = point, count

    async def insert(self, table: str, *args: Any, **named: Any) -> None:
        self._left -= 1
        if self._left == 0 and self._point == "before":
            die()
        if self._left == 0 and self._point == "during":
            # An insert takes some milliseconds: in its midst, wherever that is.
            threading.Timer(0.004, die).start()
        await super().insert(table, *args, **named)
        if self._left <= 0 and self._point != "during":
            die()


def die() -> None:
    """SIGKILL to oneself: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main(point: str, count: int) -> None:
    settings = load_settings()
    clickhouse = Mortal(settings.clickhouse_url, point, count)
    loop = AnalyticsLoop(
        bootstrap=settings.kafka_bootstrap_servers,
        clickhouse=clickhouse,
        views=CLICKHOUSE_VIEWS,
        codec=codec(),
        dead_letters=Log(settings.kafka_bootstrap_servers, "child"),
        person_keys=person_keys(settings),
        limits=Limits(age_seconds=0.05),
    )
    await loop.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
