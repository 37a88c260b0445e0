"""`weir tail`: records of a topic as they arrive, decoded, as lines to read or to pipe."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
from rich.text import Text

from infra.clock import iso
from schemas.codec import Codec
from streams.export_files import json_row
from streams.replay import UNBOUNDED, Bound, Entry, Filter, TopicReader, decode
from streams.sealing import Keyring


async def tail(
    bootstrap: str,
    topic: str,
    codec: Codec,
    *,
    start: Bound | None = None,
    wanted: Filter = Filter(),  # noqa: B008  # frozen
    limit: int | None = None,
    follow: bool = True,
    keyring: Keyring | None = None,
) -> AsyncIterator[Entry]:
    """The wanted records from `start` on (None: from now on), at most `limit` of them.

    follow: go on when the end is reached; else stop at the end that the topic has now. keyring:
    opens what is sealed; without it that stays sealed. Raises NoSuchTopic, LogUnavailable,
    ObjectsUnavailable.
    """
    if limit == 0:
        return
    async with TopicReader(bootstrap, topic, "weir-tail") as reader:
        spans = await reader.spans(start or UNBOUNDED)
        if start is None:
            spans = [msgspec.structs.replace(span, first=span.end) for span in spans]
        if start is not None and start.instant is not None:
            wanted = msgspec.structs.replace(wanted, since=start.instant)
        batches = reader.follow(spans) if follow else reader.read(spans)
        given = 0
        async with aclosing(batches):
            async for records in batches:
                if keyring is not None:
                    await keyring.fetch(records)
                for record in records:
                    if wanted.passes(record):
                        yield decode(record, codec, keyring)
                        given += 1
                        if given == limit:
                            return


def json_line(entry: Entry) -> str:
    """The row of an export in jsonl, without the line's end."""
    return msgspec.json.encode(json_row(entry)).decode()


def _printable(text: str) -> str:
    """The text with what a terminal would obey, or break the line at, made visible.

    Names come from strangers. JSON escapes such characters by itself.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pretty_line(entry: Entry) -> Text:
    """Position, time, tenant, type, stream and data; without colours it is plain text."""
    line = Text(no_wrap=True, end="")
    line.append(str(entry.position), style="dim")
    line.append(" ")
    envelope = entry.envelope
    line.append(iso(envelope.time if envelope else entry.timestamp_ms * 1000), style="green")
    if envelope is not None:
        actor = envelope.actor
        line.append(" " + _printable(envelope.tenant), style="yellow")
        line.append(" " + _printable(envelope.type), style="bold cyan")
        line.append(f" {_printable(envelope.stream)}#{envelope.version}", style="magenta")
        line.append(" by " + _printable(f"{actor.kind}:{actor.name or actor.id}"), style="dim")
    elif entry.key:
        line.append(f" key={_printable(entry.key)}", style="yellow")
    if entry.problem:
        line.append(f" {entry.problem} ({len(entry.raw or b'')} bytes)", style="bold red")
    else:
        line.append(" " + msgspec.json.encode(entry.data).decode())
    return line
