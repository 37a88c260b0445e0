"""The surface over memory: real deciders, real reducers, a real store, and a worker on demand."""

import base64
import io
import json
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from api.fhe import ROUTES
from api.live import TooManyListeners
from commands.fhe.job_state import RecordJobFailure, RecordJobResult
from fhe_workers import jobs
from fhe_workers.contexts import ContextCache
from fhe_workers.engines import engine_of
from fhe_workers.execution import work_of
from fhe_workers.key_child import answer_to
from fhe_workers.refusals import JobRefused
from infra.ids import new_id
from infra.objects import Objects
from infra.sandbox import Sandbox
from projections.fhe import FHE_JOBS, FHE_KEY_UPLOAD_PARTS, FHE_KEY_UPLOADS, FHE_KEYS
from projections.statements import Delete, Statement, View
from schemas.envelope import SYSTEM
from schemas.fhe.job import JobSubmitted, Operand
from streams.bus import CommandRequest
from streams.effects import Recorded
from tests.api.harness import Harness

Row = dict[str, Any]


class Table:
    """A view's rows, filled by its own reducer and asked by its own queries."""

    def __init__(self, view: View, id: str) -> None:
        self.view, self.id = view, id
        self.rows: dict[tuple[Any, ...], Row] = {}

    def key_of(self, statement: Statement) -> tuple[Any, ...]:
        return statement.key["tenant"], statement.key[self.id]

    def apply(self, recorded: Recorded) -> None:
        for statement in self.view.reduce(recorded.event, recorded.envelope):
            key = self.key_of(statement)
            if isinstance(statement, Delete):
                self.rows.pop(key, None)
                continue
            row = self.rows.setdefault(key, dict(statement.key))
            for name, value in statement.values.items():
                is_json = self.view.columns[name] == "jsonb" and value is not None
                row[name] = json.loads(value) if is_json else value

    def answer(self, *params: Any) -> list[Row]:
        tenant = params[0]
        if len(params) == 2:
            row = self.rows.get((tenant, params[1]))
            return [row] if row else []
        *filters, created_at, id, limit = params[1:]
        rows = [row for (owner, *_), row in self.rows.items() if owner == tenant]
        rows = [row for row in rows if row.get("deleted_at") is None]
        rows = [row for row in rows if (row["created_at"], row[self.id]) < (created_at, id)]
        if filters:
            status, key_id = filters[0], filters[2]
            rows = [row for row in rows if status in (None, row["status"])]
            rows = [row for row in rows if key_id in (None, row["key_id"])]
        rows.sort(key=lambda row: (row["created_at"], row[self.id]), reverse=True)
        return rows[:limit]


class PartTable(Table):
    """The rows of uploads' parts, in order."""

    def __init__(self, view: View) -> None:
        super().__init__(view, "part")

    def key_of(self, statement: Statement) -> tuple[Any, ...]:
        return tuple(statement.key[name] for name in self.view.key)

    def answer(self, *params: Any) -> list[Row]:
        return [row for key, row in sorted(self.rows.items()) if key[:2] == params]


class InThisProcess(Sandbox):
    """What the process that touches keys does, without the time that a process takes."""

    def __init__(self) -> None:
        super().__init__("fhe_workers.key_child")

    async def ask(self, request: Struct, body: AsyncIterator[bytes] | None = None) -> bytes:
        data = msgspec.json.encode(request)
        parts = [len(data).to_bytes(4), data]
        if body is not None:
            parts += [chunk async for chunk in body]
        return answer_to(io.BytesIO(b"".join(parts)))


class FakeLive:
    """The live hub's part: whoever waits lets the worker run first."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.is_full = False

    async def subscribe(self, tenant: str, wants: Any) -> "FakeLive":
        if self.is_full:
            raise TooManyListeners("full")
        return self

    async def __aenter__(self) -> "FakeLive":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    ended = ""

    async def batch(self, timeout: float) -> list[str]:
        if not self._world.has_worker:
            self.ended = "nobody works here"
            return []
        await self._world.work()
        return ["an end"]


class World:
    """`async with World() as world:` then `world.client`, `world.headers`."""

    def __init__(self) -> None:
        self.keys, self.jobs = Table(FHE_KEYS, "key_id"), Table(FHE_JOBS, "job_id")
        self.uploads = Table(FHE_KEY_UPLOADS, "upload_id")
        self.upload_parts = PartTable(FHE_KEY_UPLOAD_PARTS)
        self.harness = Harness(ROUTES, apply=self._apply)
        self.objects = Objects("memory:///")
        self.harness.services.objects = self.objects
        self.harness.services.key_child = InThisProcess()
        self.live = FakeLive(self)
        self.harness.services.live = self.live
        self.harness.reads.when("FROM fhe_keys", self.keys.answer)
        self.harness.reads.when("FROM fhe_jobs", self.jobs.answer)
        self.harness.reads.when("FROM fhe_key_uploads", self.uploads.answer)
        self.harness.reads.when("FROM fhe_key_upload_parts", self.upload_parts.answer)
        self.headers = self.harness.key()
        self.has_worker = True
        self._cache = ContextCache(10**9)
        self._done = 0

    async def __aenter__(self) -> "World":
        await self.harness.__aenter__()
        self.client = self.harness.client
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.harness.__aexit__()

    async def _apply(self, recorded: Sequence[Recorded]) -> None:
        for item in recorded:
            self.keys.apply(item)
            self.jobs.apply(item)
            self.uploads.apply(item)
            self.upload_parts.apply(item)

    async def stored(self) -> list[str]:
        """Every object in the store."""
        return sorted(await self.objects.names("fhe"))

    async def work(self) -> None:
        """Do every job that was submitted and not yet done, with the real engine."""
        recorded = list(self.harness.bus.events)
        for item in recorded[self._done :]:
            self._done += 1
            if isinstance(item.event, JobSubmitted):
                await self._report(item, await self._outcome(item.event))

    async def _report(self, item: Recorded, outcome: Any) -> None:
        await self.harness.bus.send(
            CommandRequest(
                tenant=item.envelope.tenant,
                stream_id=item.envelope.stream_id,
                command=outcome,
                actor=SYSTEM,
                command_id=new_id("cmd"),
            )
        )

    async def _outcome(self, job: JobSubmitted) -> RecordJobResult | RecordJobFailure:
        work = work_of(job)
        operands = [await self._read(operand) for operand in job.operands]
        try:
            # Here is no helper either.
            engine_of(jobs.parameters(job.params_id))
            context = jobs.context_for(work, self._cache)
            if context is None:
                parts = [await self._read(part) for part in job.key_parts]
                context = jobs.learn_key(work, parts, self._cache)
            result = jobs.compute(work, context, operands)
        except JobRefused as error:
            return RecordJobFailure(error.reason, error.message, job.attempt)
        digest = sha256(result.data).hexdigest()
        object = f"fhe/results/{job.job_id}/{digest}"
        await self.objects.put(object, result.data)
        size, count = len(result.data), result.count
        operand = Operand("cipher", object, digest, size, result.level, result.scale, count)
        return RecordJobResult(operand, cpu_us=3_300, tries=1, attempt=job.attempt)

    async def _read(self, stored: Any) -> bytes:
        return await self.objects.get(stored.object, size=stored.size_bytes, digest=stored.sha256)


def b64(data: bytes) -> str:
    """Base64 as JSON carries it."""
    return base64.b64encode(data).decode()
