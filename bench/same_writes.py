"""The bare loop's other `Work`: the very records and rows of a check-in, made beforehand.

One check-in is decided once by the product's own code; its records (event, audit, outcome, answer)
and its rows (state, timer, outcome, audit head, read model) are kept as bytes and text, in which
the id alone is exchanged afterwards. So both sides give Kafka and Postgres the same to do, and the
difference is what Weir's own code costs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from msgspec import Struct

from bench.bare_loop import Message
from infra.ids import new_id
from schemas.avro_derivation import tag_of
from schemas.envelope import Actor, Envelope
from streams.bus import CommandRequest, to_record
from streams.deciding import Workspace
from streams.effects import Effects, Incoming
from streams.records import records_of, reply_record
from streams.runtime import codec, registry
from streams.writes import writes

_PARTITION = 1_000
"""A partition that no decider has."""
_AT = 1_790_000_000_000_000


class Asked(NamedTuple):
    """A command of somebody, on a stream."""

    stream_id: str
    command: Struct
    actor: Actor


class SameWrites:
    """What the last of `asked` writes, once those before it have been decided."""

    name = "same"

    def __init__(self, tenant: str, asked: Sequence[Asked]) -> None:
        known = Effects()
        for item in asked:
            done = _decided(tenant, item, known)
            known.states |= done.states
            known.lookups |= done.lookups
            known.heads |= done.heads
        last = asked[-1]
        self._id, (_, outcome) = last.stream_id, done.outcomes[0]
        request = CommandRequest(
            tenant=tenant,
            stream_id=last.stream_id,
            command=last.command,
            actor=last.actor,
            command_id=new_id("cmd"),
        )
        stream = registry().streams[type(last.command)]
        command = to_record(request, stream, codec(), _AT, "api/0")
        reply = reply_record(outcome, "events:0:1")
        self._command: Message = (command.value or b"", command.headers)
        self._reply: Message = (reply.value or b"", reply.headers)
        self._records: dict[str, list[Message]] = {
            f"{self.name}.{topic}": [(record.value or b"", record.headers) for record in records]
            for topic, records in records_of(done, codec()).items()
        }
        self.topics = tuple(self._records)
        written = writes(done, codec())
        self._sql, self._views = written.sql, written.views
        # Without the brackets: a batch's rows are joined anew. The end of the audit chain is one
        # row, whatever the batch.
        self._rows = [(rows[1:-1], '"hash"' in rows) for rows in written.rows]
        self._outcome_id = outcome.command_id
        self._next = 0

    def command(self, id: str) -> Message:
        return self._command

    def reply(self, id: str) -> Message:
        return self._reply

    def records(self, ids: list[str]) -> dict[str, list[Message]]:
        return {topic: messages * len(ids) for topic, messages in self._records.items()}

    async def prepare(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(
            "INSERT INTO decider_checkpoints VALUES (%s, 0, 0, 0, 0, '')", (_PARTITION,)
        )

    async def rows(self, connection: psycopg.AsyncConnection[Any], ids: list[str]) -> None:
        before, self._next = self._next, self._next + len(ids)
        cursor = await connection.execute(
            self._sql,
            (
                *[self._next] * 4,
                _PARTITION,
                *[before] * 3,
                *(f"[{rows}]" if once else self._joined(rows, ids) for rows, once in self._rows),
            ),
        )
        assert await cursor.fetchone() == (1,)
        for sql, rows in self._views:
            await connection.execute(sql, (self._joined(rows[1:-1], ids),))

    def _joined(self, row: str, ids: list[str]) -> str:
        made = (row.replace(self._id, id).replace(self._outcome_id, f"cmd_{id}") for id in ids)
        return f"[{','.join(made)}]"


def _decided(tenant: str, asked: Asked, known: Effects) -> Effects:
    """What a command does after what is known."""
    stream, kind = registry().streams[type(asked.command)], tag_of(type(asked.command))
    place = f"{stream}/{asked.stream_id}"
    envelope = Envelope(new_id("cmd"), kind, tenant, place, 0, _AT, asked.actor)
    workspace = Workspace(
        registry=registry(),
        states=known.states,
        lookups=known.lookups,
        outcomes={},
        heads=known.heads,
        new_id=new_id,
    )
    outcome = workspace.handle(Incoming(0, envelope, asked.command, reply_to="api/0"), _AT)
    assert outcome.status == "accepted", outcome
    return workspace.effects
