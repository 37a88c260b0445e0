"""Records that nobody can process, and what a loop has put aside of them."""

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition
from msgspec import Struct

from infra.config import Settings
from infra.kafka import as_mapping, consumer, stop_consumer
from schemas.codec import Codec
from schemas.envelope import Headers

MARK = "mark"


def bad_values(codec: Codec, good: Struct, other: Struct) -> dict[str, bytes | None]:
    """By name, what a record's value may be instead of `good`; `other` is of another topic."""
    value = codec.encode(good)
    return {
        "empty": b"",
        "tombstone": None,
        "one byte": value[:1],
        "shorter than a frame": value[:4],
        "only a frame": value[:5],
        "wrong magic byte": b"\x07" + value[1:],
        "unknown schema id": value[:1] + (2**31 - 1).to_bytes(4, "big") + value[5:],
        "negative schema id": value[:1] + b"\xff" * 4 + value[5:],
        "short": value[:-1],
        "trailing bytes": value + b"\x00",
        "a length beyond the end": value[:5] + b"\xfe\xff\xff\xff\x0f" + value[5:],
        "JSON": b'{"type": "x"}',
        "another topic's record": codec.encode(other),
    }


def bad_headers(good: Headers) -> dict[str, Headers]:
    """By name, headers that are no envelope."""

    def changed(name: str, value: bytes) -> Headers:
        return [(key, value if key == name else old) for key, old in good]

    return {
        "no headers": [],
        "a header is missing": [item for item in good if item[0] != "ce_tenant"],
        "no number": changed("ce_time", b"yesterday"),
        "not UTF-8": changed("ce_id", b"\xff\xfe"),
    }


async def put_aside(settings: Settings, topic: str, mark: bytes, count: int) -> Mapping[str, str]:
    """Wait until a dead-letter topic holds `count` records whose key is `mark`, not one more.

    Value in hex (empty for none) and number of it -> the reason.
    """
    reader = consumer(settings.kafka_bootstrap_servers, "poison", auto_offset_reset="earliest")
    await reader.start()
    found: dict[str, str] = {}
    try:
        reader.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(60):
            while len(found) < count:
                for records in (await reader.getmany(timeout_ms=200)).values():
                    for record in records:
                        if record.key == mark:
                            reason = as_mapping(record.headers)["reason"]
                            found[f"{len(found)}:{(record.value or b'').hex()}"] = reason
        return found
    finally:
        await stop_consumer(reader)
