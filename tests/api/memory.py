"""The API's surroundings in memory: the real deciders, and stores that tests tell what to answer.

`MemoryBus(DECIDERS)` decides with the very code of the decider loop (`streams.deciding`), so a
route's test sees real refusals, answers and events, without Kafka.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from api.credentials import AgentKey, ApiKey, Session, User
from commands import DECIDERS
from commands.decider import Decider
from infra.clock import Clock, ManualClock
from infra.ids import new_id
from infra.kafka import Record
from schemas.avro_derivation import tag_of
from schemas.envelope import Envelope, Position
from streams.bus import CommandRequest, Reply
from streams.deciding import Registry, Workspace
from streams.effects import Incoming, Recorded

Apply = Callable[[Sequence[Recorded]], Awaitable[None]]
Rows = list[dict[str, Any]]


class MemoryBus:
    """The command bus over the real deciders, in memory.

    requests: all sent. apply: awaited with the new events of each command, before the reply (to
    bring read models up to date). fail_with: raised instead, when set, to stand for a log that is
    down or an answer that doesn't come.
    """

    def __init__(
        self,
        deciders: Iterable[Decider[Any, Any, Any]] = DECIDERS,
        clock: Clock | None = None,
        apply: Apply | None = None,
    ) -> None:
        self.clock = clock or ManualClock()
        self.apply = apply
        self.requests: list[CommandRequest] = []
        self.fail_with: Exception | None = None
        self._registry = Registry(deciders)
        self._workspace = Workspace(
            registry=self._registry, states={}, lookups={}, outcomes={}, heads={}, new_id=new_id
        )

    @property
    def events(self) -> list[Recorded]:
        """Every event recorded so far, with its envelope."""
        return self._workspace.effects.events

    def payloads(self) -> list[Any]:
        """Every event recorded so far, bare."""
        return [item.event for item in self.events]

    def emitted(self, cls: type[Struct]) -> list[Any]:
        """The events of one type that were recorded."""
        return [event for event in self.payloads() if isinstance(event, cls)]

    def state(self, tenant: str, stream: str, id: str) -> Any:
        """The state of a stream now."""
        found = self._workspace.effects.states.get((tenant, stream, id))
        return found[1] if found else self._registry.by_stream[stream].initial

    async def send(self, request: CommandRequest, timeout: float = 5.0) -> Reply:
        if self.fail_with is not None:
            raise self.fail_with
        self.requests.append(request)
        before = len(self.events)
        stream = self._registry.streams[type(request.command)]
        envelope = Envelope(
            id=request.command_id,
            type=tag_of(type(request.command)),
            tenant=request.tenant,
            stream=f"{stream}/{request.stream_id}",
            version=0,
            time=self.clock.now(),
            actor=request.actor,
            correlation_id=request.correlation_id,
        )
        incoming = Incoming(
            len(self.requests),
            envelope,
            request.command,
            request.fingerprint,
            timer=request.timer,
        )
        outcome = self._workspace.handle(incoming, self.clock.now())
        if self.apply is not None:
            await self.apply(self.events[before:])
        return Reply(
            command_id=request.command_id,
            status=outcome.status,
            code=outcome.code,
            kind=outcome.kind,
            message=outcome.message,
            details=outcome.details,
            answer=outcome.answer,
            stream=outcome.stream,
            version=outcome.version,
            position=f"events:0:{len(self.events)}",
            replayed=outcome.replay,
            incident=outcome.incident,
        )

    async def post(self, request: CommandRequest) -> None:
        await self.send(request)

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        for request in requests:
            await self.post(request)


class MemoryLog:
    """The producer in memory: `records` by topic.

    fail_with: raised instead, when set; with `takes_it_all_the_same`, after the records are in.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {}
        self.fail_with: Exception | None = None
        self.takes_it_all_the_same = False

    async def append(
        self, topic: str, records: Sequence[Record], timeout: float = 5.0
    ) -> list[Position]:
        if self.fail_with is not None and not self.takes_it_all_the_same:
            raise self.fail_with
        log = self.records.setdefault(topic, [])
        log.extend(records)
        if self.fail_with is not None:
            raise self.fail_with
        return [Position(topic, 0, len(log) - len(records) + i) for i in range(len(records))]


class MemoryReads:
    """Postgres in memory, told what to answer: `reads.when("FROM rooms", [row])`.

    The newest `when` whose text is in the SQL counts; a callable gets the parameters. What nobody
    told is no row. asked: every query with its parameters.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.fail_with: Exception | None = None
        self._answers: list[tuple[str, Rows | Callable[..., Rows]]] = []

    def when(self, text: str, rows: Rows | Callable[..., Rows]) -> None:
        """Answer queries that contain `text` with these rows."""
        self._answers.insert(0, (text, rows))

    async def all(self, sql: str, *params: Any) -> Rows:
        if self.fail_with is not None:
            raise self.fail_with
        self.asked.append((sql, params))
        for text, rows in self._answers:
            if text in sql:
                return list(rows(*params) if callable(rows) else rows)
        return []

    async def one(self, sql: str, *params: Any) -> dict[str, Any] | None:
        rows = await self.all(sql, *params)
        return rows[0] if rows else None


class MemoryAnalytics:
    """ClickHouse in memory, told what to answer as `MemoryReads` is. position: how far it is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.position: Position | None = None
        self._answers: list[tuple[str, Rows]] = []

    def when(self, text: str, rows: Rows) -> None:
        """Answer queries that contain `text` with these rows."""
        self._answers.insert(0, (text, rows))

    async def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Rows:
        self.asked.append((sql, dict(params or {})))
        return next((rows for text, rows in self._answers if text in sql), [])

    async def reached(self, position: Position, timeout: float) -> bool:
        return self.position is None or self.position >= position


class MemoryCredentials:
    """A credential store that tests fill. Replace a record to revoke it. asked: look-ups so far."""

    def __init__(self) -> None:
        self.api_keys: dict[str, ApiKey] = {}
        self.agents: dict[str, AgentKey] = {}
        self.sessions: dict[str, Session] = {}
        self.users: dict[str, User] = {}
        self.asked = 0
        self.fail_with: Exception | None = None

    def _ask(self) -> None:
        self.asked += 1
        if self.fail_with is not None:
            raise self.fail_with

    async def get_api_key(self, prefix: str) -> ApiKey | None:
        self._ask()
        return self.api_keys.get(prefix)

    async def get_agent_key(self, prefix: str) -> AgentKey | None:
        self._ask()
        return self.agents.get(prefix)

    async def get_session(self, session_id: str) -> Session | None:
        self._ask()
        return self.sessions.get(session_id)

    async def get_session_by_cookie(self, cookie_hash: str) -> Session | None:
        self._ask()
        return next((s for s in self.sessions.values() if s.cookie_hash == cookie_hash), None)

    async def get_user(self, user_id: str) -> User | None:
        self._ask()
        return self.users.get(user_id)

    async def get_user_by_email(self, email: str) -> User | None:
        self._ask()
        return next((user for user in self.users.values() if user.email == email), None)
