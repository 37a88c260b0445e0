"""A bench's figure, with both sides; and how calls that are in flight at once are timed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import Struct

Call = Callable[[], Awaitable[Any]]


class Figure(Struct, frozen=True):
    """One line of the table.

    bare, ours: what each side did, in words with units; `bare` is empty where there is nothing to
    compare with. ratio: ours over bare. at_least, at_most: what the ratio is held to, if anything.
    """

    name: str
    bare: str
    ours: str
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """`kept`, `missed`, or nothing for a figure that promises nothing."""
        if self.ratio is None or (self.at_least is None and self.at_most is None):
            return ""
        low = self.at_least is not None and self.ratio < self.at_least
        high = self.at_most is not None and self.ratio > self.at_most
        return "missed" if low or high else "kept"

    @property
    def bound(self) -> str:
        """What the ratio is held to, in words."""
        if self.at_least is not None:
            return f">= {self.at_least:.2f}"
        return "" if self.at_most is None else f"<= {self.at_most:.2f}"

    def line(self) -> str:
        """The figure as one line for a person."""
        parts = [f"{self.name}: "]
        if self.bare:
            parts.append(f"bare {self.bare} | ours ")
        parts.append(self.ours)
        if self.ratio is not None:
            parts.append(f" | ratio {self.ratio:.2f}")
        if self.verdict:
            parts.append(f" ({self.bound}: {self.verdict})")
        return "".join(parts)


class Timed(NamedTuple):
    """p50 and p99 in milliseconds, and calls per second."""

    p50: float
    p99: float
    rate: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms, {self.rate:,.0f}/s"


async def timed(call: Call, in_flight: int, seconds: float) -> Timed:
    """Keep so many calls in flight for so long. The first error of a call is raised."""
    spent: list[float] = []
    began = time.perf_counter()
    ends = began + seconds

    async def work() -> None:
        while (start := time.perf_counter()) < ends:
            await call()
            spent.append(time.perf_counter() - start)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    took = time.perf_counter() - began
    return timed_of(spent, took)


def timed_of(spent: list[float], took: float) -> Timed:
    """The figures of calls that lasted `spent` seconds each, within `took` seconds in all."""
    spent = sorted(spent)
    last = len(spent) - 1
    return Timed(spent[last // 2] * 1e3, spent[int(last * 0.99)] * 1e3, len(spent) / took)
