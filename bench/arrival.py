"""When a webhook arrives at a bench's own receiver."""

import asyncio
import time

from tests.integration.webhook_rig import Behaviour


class Arrival:
    """The webhook that comes next; `at` is when the last one came (`time.perf_counter`)."""

    def __init__(self) -> None:
        self._come = asyncio.Event()
        self.at = 0.0

    def expect(self) -> None:
        """Have `wait` wait for one that comes from now on."""
        self._come.clear()

    async def wait(self) -> None:
        """Wait for it."""
        await self._come.wait()

    def told(self, behaviour: Behaviour) -> Behaviour:
        """The receiver's behaviour, and this is told of it first."""

        async def tell(writer: asyncio.StreamWriter) -> None:
            self.at = time.perf_counter()
            self._come.set()
            await behaviour(writer)

        return tell
