"""Commands as they are read from the log: whole, or poison with the reason why.

A decider's transaction commits whatever a command says of itself, so what Postgres or an answer
could not hold must be found before: after the commit it would stop the partition for good.
"""

import re
from collections.abc import Container
from typing import Any, NamedTuple, get_args

from msgspec import Struct

from schemas.codec import Codec, Undecodable
from schemas.envelope import SYSTEM, ActorKind, Envelope, from_headers
from streams.bus import FINGERPRINT, REPLY_TO, TIMER
from streams.effects import Incoming

_KINDS = frozenset(get_args(ActorKind))
_REPLY_TO = re.compile(r"[^/]+/[0-9]{1,9}")
_TIMER = re.compile(r".+@[0-9]{1,18}")
_INSTANT_MAX = 2**63


class _Extras(NamedTuple):
    """What a command's headers say besides the envelope."""

    fingerprint: str
    reply_to: str
    timer: str


def read_command(
    record: Any, partition: int, codec: Codec, known: Container[type[Struct]]
) -> Incoming:
    """The command of a record; `command` is None, and `error` says why, when it is poison.

    known: the commands that have a decider. Never raises.
    """
    key, raw = record.key or b"", record.value or b""
    try:
        envelope = from_headers(record.headers)
        extras = _extras(record, envelope)
    except (KeyError, ValueError) as error:
        # Not even an envelope: it belongs to nobody, and is put aside for us.
        envelope = _nameless(key, partition, record.offset)
        return Incoming(
            record.offset, envelope, None, key=key, raw=raw, error=f"no envelope: {error!r}"
        )
    command, problem = None, ""
    try:
        command = codec.decode(record.value)
        if type(command) not in known:
            command, problem = None, f"{envelope.type} has no decider"
    except Undecodable as error:
        problem = str(error)
    return Incoming(
        record.offset,
        envelope,
        command,
        fingerprint=extras.fingerprint if command is not None else "",
        reply_to=extras.reply_to,
        timer=extras.timer,
        key=key,
        raw=raw,
        error=problem,
    )


def _extras(record: Any, envelope: Envelope) -> _Extras:
    """The other headers. Raises ValueError for what could not be written or answered later."""
    if b"\x00" in b"".join([value for _, value in record.headers]):
        raise ValueError("NUL in a header")
    if (record.key or b"") != envelope.tenant.encode() or not envelope.tenant:
        raise ValueError("the key is not the tenant")
    if envelope.actor.kind not in _KINDS:
        raise ValueError("no such kind of actor")
    if not 0 <= envelope.time < _INSTANT_MAX:
        raise ValueError("no such time")
    headers = dict(record.headers)
    fingerprint, reply_to, timer = (
        headers.get(name, b"").decode() for name in (FINGERPRINT, REPLY_TO, TIMER)
    )
    if reply_to and not _REPLY_TO.fullmatch(reply_to):
        raise ValueError("it wants its answer at no place there is")
    if timer and not _TIMER.fullmatch(timer):
        raise ValueError("not a timer and its time")
    return _Extras(fingerprint, reply_to, timer)


def _nameless(key: bytes, partition: int, offset: int) -> Envelope:
    tenant = key.decode(errors="replace").replace("\x00", "\ufffd") or "_unknown"
    return Envelope(
        f"cmd_offset_{partition}_{offset}",
        "platform.unreadable.v1",
        tenant,
        "platform.unreadable/0",
        0,
        0,
        SYSTEM,
    )
