"""What this API process tells the others of lost answers, and hears from them.

Only what is lost is told: to answer a request costs nothing here. A process that dies tells nobody,
so what it appends to the log bears its name and the request's (`Envelope.attempt`), and its beats
say since when it may have left a request unanswered. Whoever finds it gone reads the log from there
on, and tells for it. Its last quarter of a second, between two beats, counts as unanswered.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import psycopg

from api.retries import WINDOW_SECONDS, Retries
from infra.kafka import LogUnavailable, header
from infra.lost_answers import Dead, LostAnswers, Told
from infra.postgres import DatabaseUnavailable
from infra.telemetry import LOST_ANSWERS
from schemas.envelope import ATTEMPT
from schemas.instants import parse_iso
from streams.replay import Bound, NoSuchTopic, TopicReader
from streams.telemetry import TOPIC

logger = logging.getLogger(__name__)

T = TypeVar("T")

BEAT_SECONDS = 0.25
PATIENCE_SECONDS = 0.5
_PAUSE_SECONDS = 2.0
_ROUND_SECONDS = 5.0
_READ_SECONDS = 20.0
_PENDING_MOST = 10_000
_ASKING_MOST = 64
_OUTLIVED_MICROS = 2_000_000
_KNOWN_MOST = 100_000


class OtherProcesses:
    """`api.retries.Others` over Postgres and the log. name: this process, unlike any other.

    While Postgres is away nothing is told or heard, and requests go on: what there is to tell waits
    a minute for it.
    """

    def __init__(self, database: str, bootstrap: str, name: str) -> None:
        self.name = name
        self._database, self._bootstrap = database, bootstrap
        self._store: LostAnswers | None = None
        self._pending: dict[str, tuple[str, float, bool]] = {}  # request, when, told before
        self._answered: dict[str, None] = {}  # commands that Postgres may show as lost still
        self._wake, self._tried, self._stopping = asyncio.Event(), asyncio.Event(), False
        self._task: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Future[Any]] = set()

    async def start(self, retries: Retries) -> None:
        """Begin to tell and hear. Returns once what was lost before is known, or cannot be."""
        self._task = asyncio.create_task(self._run(retries), name="lost answers")
        waiting = asyncio.create_task(self._tried.wait())
        await asyncio.wait({waiting}, timeout=_ROUND_SECONDS)
        waiting.cancel()

    async def stop(self) -> None:
        """Tell the last ones and take leave, if Postgres is there."""
        self._stopping = True
        self._wake.set()
        tasks = [task for task in (self._task, *self._beside) if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_SECONDS * 2)
        for task in tasks:
            task.cancel()
        if tasks:
            # A query that is cancelled may wait for the server once more.
            await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)

    def tell(self, fingerprint: str, command_id: str, *, again: bool) -> None:
        """As `Others`. Beyond ten thousand that wait, the oldest are forgotten."""
        # What nobody has heard of yet is news, although it happened twice.
        known = self._pending.pop(command_id, None)
        again = again if known is None else known[2]
        self._pending[command_id] = (fingerprint, time.monotonic(), again)
        if len(self._pending) > _PENDING_MOST:
            del self._pending[next(iter(self._pending))]
        self._wake.set()

    async def claim(self, fingerprint: str) -> str | None:
        """As `Others`."""

        async def work(store: LostAnswers) -> str | None:
            await self._flush(store)
            return await store.claim(fingerprint)

        store = self._reached()
        return await self._within(work(store))

    async def settle(self, command_id: str) -> None:
        """As `Others`; what Postgres is not told of now, it is told when it is back."""
        self._pending.pop(command_id, None)
        self._answered[command_id] = None
        if len(self._answered) > _PENDING_MOST:
            del self._answered[next(iter(self._answered))]
        with contextlib.suppress(DatabaseUnavailable):
            await self._within(self._flush(self._reached()))

    def _reached(self) -> LostAnswers:
        if self._store is None:
            raise DatabaseUnavailable("there is no session")
        if len(self._beside) >= _ASKING_MOST:
            raise DatabaseUnavailable("too many ask")
        return self._store

    async def _within(self, work: Awaitable[T]) -> T:
        """What comes of it in time. What is late goes on: a query is not cancelled at once."""
        task = asyncio.ensure_future(work)
        self._keep(task)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
        try:
            if done:
                return task.result()
        except psycopg.Error as error:
            raise DatabaseUnavailable(str(error).strip()) from error
        raise DatabaseUnavailable("no answer in time")

    def _keep(self, task: "asyncio.Future[T]") -> None:
        """Let a task go on beside, whether or not anybody waits for it."""
        self._beside.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Future[T]") -> None:
        self._beside.discard(task)
        if not task.cancelled():
            task.exception()  # nobody asks for it any more

    async def _run(self, retries: Retries) -> None:
        """Follow the others until it is to stop, with sessions that are made anew."""
        pause = BEAT_SECONDS
        while not self._stopping:
            try:
                async with LostAnswers(
                    self._database, self.name, WINDOW_SECONDS, _KNOWN_MOST
                ) as store:
                    pause = BEAT_SECONDS
                    await self._follow(store, retries)
            except (psycopg.Error, DatabaseUnavailable, TimeoutError) as error:
                logger.warning("answers that others lose are not known: %s", error)
            except Exception:
                logger.exception("answers that others lose are not known")
            finally:
                self._store = None
                self._tried.set()
            if not self._stopping:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_SECONDS)

    async def _follow(self, store: LostAnswers, retries: Retries) -> None:
        """Tell, hear and beat until it is to stop or a session fails."""
        hearing = asyncio.create_task(self._hear(store, retries))
        inheriting: asyncio.Task[None] | None = None
        try:
            for told in await store.known():
                retries.hear(told.request, told.command_id, told.age)
            self._store = store
            while not hearing.done():
                self._wake.clear()
                async with asyncio.timeout(_ROUND_SECONDS):
                    retries.lose_abandoned()
                    now_and_since = retries.unanswered_since()
                    await self._flush(store)
                    if self._stopping:
                        await store.leave()
                        return
                    dead = await store.beat(*now_and_since)
                if dead and (inheriting is None or inheriting.done()):
                    inheriting = asyncio.create_task(self._inherit(store, retries, dead))
                    self._keep(inheriting)
                    if not self._tried.is_set():
                        await asyncio.wait({inheriting}, timeout=_ROUND_SECONDS)
                LOST_ANSWERS.set(retries.lost)
                self._tried.set()
                await self._pause()
            await hearing
        finally:
            if inheriting is not None:
                inheriting.cancel()
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _pause(self) -> None:
        """Until the next beat, or until there is something to tell."""
        waiting = asyncio.create_task(self._wake.wait())
        await asyncio.wait({waiting}, timeout=BEAT_SECONDS)
        waiting.cancel()

    async def _flush(self, store: LostAnswers) -> None:
        """Tell what waits to be told."""
        if not (self._pending or self._answered):
            return
        pending, self._pending = self._pending, {}
        answered, self._answered = self._answered, {}
        now = time.monotonic()
        news, again = [], []
        for command, (request, when, told_before) in pending.items():
            if told_before:
                again.append(command)
            elif now - when < WINDOW_SECONDS:
                news.append(Told(request, command, now - when))
        try:
            await store.tell(news, again, answered)
        except BaseException:
            self._pending = {**pending, **self._pending}
            self._answered = {**answered, **self._answered}
            raise

    async def _hear(self, store: LostAnswers, retries: Retries) -> None:
        async for told in store.heard():
            retries.hear(told.request, told.command_id, told.age)
            LOST_ANSWERS.set(retries.lost)

    async def _inherit(self, store: LostAnswers, retries: Retries, dead: list[Dead]) -> None:
        """Tell for processes that died; what the log does not say now, it is asked again."""
        for process in dead:
            lost: list[Told] = []
            if process.silent < WINDOW_SECONDS:
                try:
                    async with asyncio.timeout(_READ_SECONDS):
                        lost = await left_on_log(self._bootstrap, process)
                except (LogUnavailable, NoSuchTopic, TimeoutError) as error:
                    logger.warning("what %s left unanswered is not known: %s", process.name, error)
                    continue
            if await store.inherit(process, lost):
                logger.info("%s died and left %d reports unanswered", process.name, len(lost))
                for told in lost:
                    retries.hear(told.request, told.command_id)


async def left_on_log(bootstrap: str, dead: Dead) -> list[Told]:
    """The reports that a process appended and may not have answered.

    None for one that went on for seconds after its last beat: it had lost Postgres, not its life,
    and what it has answered meanwhile it told nobody. Raises LogUnavailable and NoSuchTopic.
    """
    found: dict[str, str] = {}
    async with TopicReader(bootstrap, TOPIC, "weir-api-lost-answers") as reader:
        spans = await reader.spans(Bound(instant=dead.unanswered_since), skew_ms=0)
        async for records in reader.read(spans):
            for record in records:
                process, _, request = header(record.headers, ATTEMPT).partition(".")
                if process != dead.name:
                    continue
                appended_at = parse_iso(header(record.headers, "ce_time"))
                if appended_at > dead.said_at + _OUTLIVED_MICROS:
                    return []
                if appended_at >= dead.unanswered_since:
                    found[header(record.headers, "ce_causationid")] = request
    return [Told(request, command) for command, request in found.items()]
