"""What this process can reach, and how far the loops are behind.

Asked by health checks, so it must be cheap and must end: every question has two seconds, answers
are kept for one second, and any number of askers share one round of questions.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol, get_args

from msgspec import Struct

from api.limits import Monotonic
from api.services import Reads
from infra.clock import Clock
from infra.log_view import Group
from infra.objects import Objects
from infra.telemetry import (
    DEPENDENCY_UP,
    LOOP_LAG,
    WEBHOOK_ATTEMPTS,
    WEBHOOK_OLDEST,
    WEBHOOK_SECONDS,
    WEBHOOKS,
)
from projections.billing import usage_windows
from projections.platform import webhook_deliveries
from schemas.platform.webhook import WebhookOutcome

ASK_SECONDS = 2.0
_KEEP_SECONDS = 1.0
_STORE_KEEP_SECONDS = 10.0
_PROBE_OBJECT = "health/probe"
_RECENT_MICROS = 300_000_000


class Dependency(Struct, frozen=True):
    """A server behind us: whether it answered, in how many milliseconds, and what it said."""

    ok: bool
    ms: float
    error: str = ""


class Loop(Struct, frozen=True):
    """A loop: processes that are alive, and how much it has still to do.

    lag: records to read (for the scheduler: timers overdue); None when it can't be told.
    """

    alive: int
    lag: int | None = None


class Readiness(Struct, frozen=True):
    """status: `ready`, `degraded` (something is away that requests can do without), `unready`."""

    status: str
    dependencies: dict[str, Dependency]
    loops: dict[str, Loop]


class Log(Protocol):
    """What is asked of Kafka (`infra.log_view.LogView`)."""

    async def ends(self, topic: str) -> dict[int, int]: ...

    async def group(self, name: str) -> Group: ...


# Loops that are consumer groups. Their modules can't be imported here; a test compares the names.
GROUPS = {
    "streams": "streams.v1",
    "audit-exports": "streams.platform.audit_exports.v1",
    "adoptions": "streams.approvals.adoptions.v1",
    "announcements": "streams.platform.announcements.v1",
    "watchers": "streams.approvals.watchers.v1",
    "fhe-worker": "fhe-workers",
    "key-erasing": "streams.fhe.erasing.v1",
}


class Probes:
    """Asks the servers behind this process, and the log and its read models about the loops.

    analytics: `query`, `positions` and `fills` of ClickHouse.
    """

    def __init__(
        self,
        *,
        log: Log,
        reads: Reads,
        analytics: Any,
        objects: Objects,
        clock: Clock,
        now: Monotonic = time.monotonic,
    ) -> None:
        self._log, self._reads, self._analytics = log, reads, analytics
        self._objects, self._clock, self._now = objects, clock, now
        self._lock, self._store_lock = asyncio.Lock(), asyncio.Lock()
        self._kept: tuple[float, Readiness] | None = None
        self._store: tuple[float, Dependency] | None = None

    async def readiness(self) -> Readiness:
        """The state of everything, at most a second old."""
        async with self._lock:
            if self._kept is None or self._now() - self._kept[0] > _KEEP_SECONDS:
                report = await self._ask()
                self._kept = (self._now(), report)
            return self._kept[1]

    async def storage(self) -> Dependency:
        """Whether an object can be written and read back, at most ten seconds old."""
        async with self._store_lock:
            if self._store is None or self._now() - self._store[0] > _STORE_KEEP_SECONDS:
                found = await _asked(self._write_and_read())
                self._store = (self._now(), found)
            return self._store[1]

    async def _ask(self) -> Readiness:
        names = ("kafka", "postgres", "clickhouse", "objects")
        answers = await asyncio.gather(
            _asked(self._log.ends("commands")),
            _asked(self._reads.one("SELECT 1 AS one")),
            _asked(self._analytics.query("SELECT 1 AS one")),
            _asked(self._objects.exists(_PROBE_OBJECT)),
        )
        found = dict(zip(names, answers, strict=True))
        for name, answer in found.items():
            DEPENDENCY_UP.labels(dependency=name).set(answer.ok)
        loops: dict[str, Loop] = {}
        if found["kafka"].ok and found["postgres"].ok:
            loops = await self._loops()
        if not (found["kafka"].ok and found["postgres"].ok):
            status = "unready"
        elif all(answer.ok for answer in answers):
            status = "ready"
        else:
            status = "degraded"
        return Readiness(status, found, loops)

    async def _loops(self) -> dict[str, Loop]:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                rows = await self._reads.all(
                    "SELECT loop, count(*) AS alive FROM lease_members WHERE expires_at > now() "
                    "GROUP BY loop"
                )
                alive = {row["loop"]: int(row["alive"]) for row in rows}
                lags = {
                    "decider": await self._decider_lag(),
                    "analytics": await self._analytics_lag(),
                    "scheduler": await self._timers_overdue(),
                }
                for name, group in GROUPS.items():
                    alive[name], lags[name] = await self._group(group)
                lags["streams"] = await self._usage_lag()
                lags["webhooks"] = await self._webhooks_lag()
                await self._measure_webhooks()
        except Exception:
            # Tables that no decider has made yet, a server that went away just now: not known.
            return {}
        for name, lag in lags.items():
            if lag is not None:
                LOOP_LAG.labels(loop=name).set(lag)
        if self._analytics.fills:
            # An engine inside this process needs no lease: the loop is this process's.
            alive.setdefault("analytics", 1)
        names = sorted({*lags, *alive})
        return {name: Loop(alive.get(name, 0), lags.get(name)) for name in names}

    async def _decider_lag(self) -> int:
        ends = await self._log.ends("commands")
        rows = await self._reads.all("SELECT partition, commands_next FROM decider_checkpoints")
        done = {row["partition"]: row["commands_next"] for row in rows}
        return sum(max(0, end - done.get(partition, 0)) for partition, end in ends.items())

    async def _analytics_lag(self) -> int | None:
        reached: Mapping[tuple[str, int], int] = await self._analytics.positions()
        # Nothing is known before a loop has stored anything.
        return await self._behind(reached) if reached else None

    async def _group(self, name: str) -> tuple[int, int]:
        """A group's members, and how many records it has still to read."""
        group = await self._log.group(name)
        return group.members, await self._behind(group.offsets)

    async def _usage_lag(self) -> int:
        """Of the Faust processors, which commit their offsets to Postgres and none to Kafka."""
        rows = await self._reads.all(usage_windows.REACHED)
        return await self._behind(
            {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        )

    async def _webhooks_lag(self) -> int:
        """Of the sender, whose offsets are in Postgres."""
        rows = await self._reads.all(webhook_deliveries.REACHED)
        return await self._behind(
            {("deliveries", row["partition"]): row["next_offset"] for row in rows}
        )

    async def _measure_webhooks(self) -> None:
        now = self._clock.now()
        depths = await self._reads.one(webhook_deliveries.DEPTHS, now)
        if depths is not None:
            for status in ("waiting", "dead"):
                WEBHOOKS.labels(status=status).set(depths[status])
            WEBHOOK_OLDEST.set(depths["oldest"] / 1_000_000)
        rows = await self._reads.all(webhook_deliveries.RECENT, now - _RECENT_MICROS)
        counts = {row["outcome"]: row["n"] for row in rows}
        for outcome in get_args(WebhookOutcome):
            WEBHOOK_ATTEMPTS.labels(outcome=outcome).set(counts.get(outcome, 0))
        row = await self._reads.one(webhook_deliveries.DURATIONS, now - _RECENT_MICROS)
        for quantile, name in (("0.5", "p50"), ("0.99", "p99")):
            found = row[name] if row is not None else None
            WEBHOOK_SECONDS.labels(quantile=quantile).set((found or 0) / 1000)

    async def _behind(self, reached: Mapping[tuple[str, int], int]) -> int:
        lag = 0
        for topic in {topic for topic, _ in reached}:
            for partition, end in (await self._log.ends(topic)).items():
                # The end counts the markers of transactions, which no reader ever sees.
                lag += max(0, end - reached.get((topic, partition), end) - 1)
        return lag

    async def _timers_overdue(self) -> int:
        row = await self._reads.one(
            "SELECT count(*) AS n FROM timers WHERE due_at < %s", self._clock.now() - 1_000_000
        )
        return int(row["n"]) if row else 0

    async def _write_and_read(self) -> None:
        await self._objects.put(_PROBE_OBJECT, b"ok")
        if not await self._objects.exists(_PROBE_OBJECT):
            raise OSError("what was written is not there")


async def _asked(question: Awaitable[Any]) -> Dependency:
    began = time.perf_counter()
    error = ""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await question
    except TimeoutError:
        error = f"no answer within {ASK_SECONDS:.0f} s"
    except Exception as problem:
        # Whatever a driver raises counts as "not there"; its text could name hosts and users.
        error = type(problem).__name__
    return Dependency(not error, round((time.perf_counter() - began) * 1000, 2), error)
