"""Sealing what is personal in reports of a person, and opening it again.

`sealed` is for whoever reports. A `Keyring` is for one reader of the log: it fetches the keys of
the records that it is about to read, and opens them one by one. What was sealed under a key that
was destroyed comes out blank. What was sealed under a key that is not there is an error: nothing
is erased then, the object store has lost it or is another one.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct, structs

from infra.objects import ObjectMissing
from schemas.avro_derivation import tag_of
from schemas.codec import Codec, Undecodable
from schemas.envelope import SEALED_FOR, Envelope
from schemas.observability.erasure import PersonForgotten
from schemas.observability.personal import with_personal, without_personal
from schemas.observability.run import RunEvent
from streams.memory import Recent
from streams.person_keys import REMEMBERED, KeyUnusable, PersonKey, PersonKeys, seal, unseal

_FORGOTTEN = tag_of(PersonForgotten)


class LogRecord(Protocol):
    """A record as the consumer gives it."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Opened(NamedTuple):
    """A record as it would be if nothing had been sealed. `written`: as it lies on the log."""

    written: Any
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Seal(Struct, frozen=True):
    """How reports of a person are written. Without a key what is personal is left out: the person
    was erased, and what is told of runs from before does not bring them back."""

    key: PersonKey | None


def sealed(event: RunEvent, how: Seal, tenant: str, stream: str) -> RunEvent:
    """The event with what is personal in it sealed for its place on the log."""
    left, document = without_personal(event)
    if not document or how.key is None:
        return left
    place = _place(tenant, stream, tag_of(type(event)))
    return structs.replace(left, sealed=seal(how.key.cipher, document, place))


class Keyring:
    """The keys that one reader of the log has.

    It reads what it holds in the order of the log. A key that it has is dropped at the record that
    tells of its destruction: what comes behind that one comes out blank, whatever was fetched.
    """

    def __init__(self, keys: PersonKeys, codec: Codec) -> None:
        self._keys, self._codec = keys, codec
        self._known: Recent[tuple[str, str], PersonKey | None] = Recent(REMEMBERED)
        self._problems: dict[tuple[str, str], str] = {}
        self.dropped: list[tuple[str, str]] = []
        """Tenant and name of each key with which something was opened before it was dropped."""

    async def fetch(self, records: Iterable[Any]) -> None:
        """Get the keys of these records. Raises ObjectsUnavailable."""
        wanted = {name for record in records if (name := _sealed_for(record))}
        self._problems = {}
        if not wanted:
            return
        _, missing = self._known.pick(wanted)

        async def find(tenant: str, name: str) -> None:
            try:
                self._known.update({(tenant, name): await self._keys.find(tenant, name)})
            except ObjectMissing:
                self._problems[tenant, name] = f"its key {name} is not in the object store"
            except KeyUnusable as error:
                self._problems[tenant, name] = str(error)

        await asyncio.gather(*(find(tenant, name) for tenant, name in missing))

    def opened(self, record: LogRecord, envelope: Envelope) -> Opened:
        """A sealed record, open or blank; `fetch` came before. Raises Undecodable."""
        tenant, name = envelope.tenant, envelope.sealed_for
        known, missing = self._known.pick([(tenant, name)])
        if missing:
            raise Undecodable(self._problems.get((tenant, name), f"its key {name} was not fetched"))
        event, key = self._codec.decode(record.value), known[tenant, name]
        document, event = event.sealed, structs.replace(event, sealed=b"")
        if document and key is not None:
            try:
                place = _place(tenant, envelope.stream, envelope.type)
                event = with_personal(event, unseal(key.cipher, document, place))
            except ValueError as error:
                raise Undecodable(f"what is sealed in it: {error}") from None
        return Opened(
            record,
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            self._codec.encode(event),
            record.headers,
        )

    def pass_by(self, record: LogRecord, envelope: Envelope) -> None:
        """Drop the key that a record tells to be destroyed, if it does and we have it.

        Whoever looks for it from now on is told by the object store.
        """
        if envelope.type != _FORGOTTEN:
            return
        place = (envelope.tenant, self._codec.decode(record.value).key)
        known, _ = self._known.pick([place])
        if known.get(place) is not None:
            self.dropped.append(place)
            self._known.update({place: None})


def _place(tenant: str, stream: str, tag: str) -> bytes:
    return f"{tenant}\0{stream}\0{tag}".encode()


def _sealed_for(record: Any) -> tuple[str, str] | None:
    """Tenant and name of the key that a record is sealed under."""
    headers = record.headers
    if not headers or headers[-1][0] != SEALED_FOR:
        return None
    tenant = next((value for name, value in headers if name == "ce_tenant"), b"")
    return tenant.decode(), headers[-1][1].decode()
