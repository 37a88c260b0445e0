"""Replays through proposed policies: in a thread, and one at a time in a process."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from api.services import Services

P = ParamSpec("P")
T = TypeVar("T")


async def replayed(
    services: Services, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What `work` returns. It takes a second of the processor at most: others wait for it."""
    async with services.caches.setdefault("policy_replays", asyncio.Lock()):
        return await asyncio.to_thread(work, *args, **kwargs)
