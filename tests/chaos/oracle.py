"""The ledger oracle: what the read models must hold, as a plain fold of the raw log.

It shares no code with the product: librdkafka reads the topics, fastavro and the schema files
decode them, the folds are written anew from the documents. What it and the product get wrong alike
must be wrong in the documents.
"""

import hashlib
import io
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

ROOT = Path(__file__).resolve().parents[2]
GENESIS = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One committed record: where it stands, what its headers say, and its fields."""

    topic: str
    partition: int
    offset: int
    headers: Mapping[str, str]
    type: str
    fields: Mapping[str, Any]

    @property
    def tenant(self) -> str:
        return self.headers["ce_tenant"]

    @property
    def stream_id(self) -> str:
        return self.headers["ce_subject"].partition("/")[2]


def read_log(bootstrap: str, topics: Iterable[str], tenant: str = "") -> dict[str, list[Entry]]:
    """Every committed record of the topics, in offset order of each partition.

    tenant: only its records, where topics are shared with those who test what can't be read.
    """
    schemas = _schemas()
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "oracle-that-commits-nothing",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # What it reads is there: a fetch that waits for more holds up the next topic.
            "fetch.wait.max.ms": 20,
        }
    )
    found: dict[str, list[Entry]] = {}
    try:
        for topic in topics:
            numbers = sorted(reader.list_topics(topic, 30).topics[topic].partitions)
            reader.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in numbers])
            found[topic] = _drain(reader, topic, len(numbers), schemas, tenant)
    finally:
        reader.close()
    return found


def _drain(
    reader: Consumer,
    topic: str,
    partitions: int,
    schemas: Mapping[int, tuple[str, Any]],
    tenant: str,
) -> list[Entry]:
    entries: list[Entry] = []
    ended: set[int] = set()
    while len(ended) < partitions:
        message = reader.poll(30)
        assert message is not None, f"{topic} could not be read to its end"
        error = message.error()
        if error is not None:
            assert error.name() == "_PARTITION_EOF", error
            ended.add(message.partition())
            continue
        if tenant and ("ce_tenant", tenant.encode()) not in (message.headers() or []):
            continue
        headers = {name: value.decode() for name, value in message.headers() or []}
        value = message.value()
        magic, schema_id = struct.unpack_from(">bI", value)
        assert magic == 0
        name, schema = schemas[schema_id]
        fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        entries.append(Entry(topic, message.partition(), message.offset(), headers, name, fields))
    return sorted(entries, key=lambda entry: (entry.partition, entry.offset))


def _schemas() -> dict[int, tuple[str, Any]]:
    folder = ROOT / "schemas" / "avro"
    return {
        row["id"]: (
            row["subject"].rsplit(".", 1)[0],
            fastavro.parse_schema(json.loads((folder / row["file"]).read_text())),
        )
        for row in json.loads((folder / "index.json").read_text())
    }


# Folds.


@dataclass
class RunTotals:
    """What one run's reports sum to; each item id counts once."""

    calls: set[str] = field(default_factory=set)
    tokens: int = 0
    cost: Decimal = Decimal(0)
    steps: set[str] = field(default_factory=set)
    completed: bool = False
    started: bool = False


def runs(telemetry: Iterable[Entry]) -> dict[str, RunTotals]:
    """Run id -> totals."""
    found: dict[str, RunTotals] = defaultdict(RunTotals)
    for entry in telemetry:
        run = found[entry.stream_id]
        match entry.type:
            case "observability.run_started":
                run.started = True
            case "observability.run_completed":
                run.completed = True
            case "observability.llm_calls_recorded":
                for call in entry.fields["calls"]:
                    if call["id"] not in run.calls:
                        run.calls.add(call["id"])
                        run.tokens += call["tokens_in"] + call["tokens_out"]
                        run.cost += Decimal(repr(call["cost"] or 0.0))
            case "observability.steps_recorded":
                run.steps |= {step["id"] for step in entry.fields["steps"]}
    return found


def runs_of(telemetry: Iterable[Entry], prefix: str) -> dict[str, set[str]]:
    """Agent name -> its runs, of the names that begin so."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in telemetry:
        name = entry.fields.get("agent_name", "")
        if entry.type == "observability.run_started" and name.startswith(prefix):
            found[name].add(entry.stream_id)
    return dict(found)


_DECIDED = {
    "approvals.check_in_approved": "approved",
    "approvals.check_in_rejected": "rejected",
    "approvals.check_in_modified": "modified",
    "approvals.check_in_withdrawn": "withdrawn",
    "approvals.check_in_expired": "expired",
}


def check_ins(events: Iterable[Entry]) -> dict[str, str]:
    """Check-in id -> status."""
    found: dict[str, str] = {}
    for entry in events:
        if entry.type == "approvals.check_in_created":
            assert entry.stream_id not in found, f"{entry.stream_id} was created twice"
            found[entry.stream_id] = "pending"
        elif entry.type in _DECIDED:
            before = found[entry.stream_id]
            assert before == "pending", f"{entry.stream_id}: {before}, then {entry.type}"
            found[entry.stream_id] = _DECIDED[entry.type]
    return found


def usage(billing: Iterable[Entry]) -> dict[tuple[str, str], int]:
    """(tenant, meter) -> quantity, each usage id once."""
    totals: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[str, str]] = set()
    for entry in billing:
        if entry.type == "billing.usage_recorded":
            key = (entry.tenant, entry.stream_id)
            assert key not in seen, f"usage {key} was recorded twice"
            seen.add(key)
            totals[entry.tenant, entry.fields["meter"]] += entry.fields["quantity"]
    return dict(totals)


def jobs(events: Iterable[Entry]) -> dict[str, str]:
    """Job id -> status."""
    found: dict[str, str] = {}
    for entry in events:
        if entry.type.startswith("fhe.job_"):
            id, what = entry.stream_id, entry.type.removeprefix("fhe.job_")
            before = found.get(id)
            assert before == (None if what == "submitted" else "submitted"), (id, before, what)
            found[id] = what
    return found


def prices(events: Iterable[Entry]) -> int:
    """What the jobs that were submitted cost together, in nanodollars."""
    submitted = (entry for entry in events if entry.type == "fhe.job_submitted")
    return sum(entry.fields["price_nanodollars"] for entry in submitted)


def tasks(events: Iterable[Entry]) -> dict[str, str]:
    """Task id -> status."""
    found: dict[str, str] = {}
    for entry in events:
        id, what = entry.stream_id, entry.type.removeprefix("approvals.task_")
        match what:
            case "posted":
                assert id not in found, f"{id} was posted twice"
                found[id] = "pending"
            case "claimed":
                assert found[id] == "pending", f"{id}: {found[id]}, then claimed"
                found[id] = "in_progress"
            case "released":
                assert found[id] == "in_progress", f"{id}: {found[id]}, then released"
                found[id] = "pending"
            case "decided":
                assert found[id] in ("pending", "in_progress"), f"{id}: {found[id]}, then decided"
                found[id] = entry.fields["status"]
    return found


_OBSERVED = {
    "approvals.task_posted": "check_in.created",
    "approvals.task_claimed": "check_in.claimed",
    "approvals.task_released": "check_in.released",
    "approvals.task_decided": "check_in.decided",
}


@dataclass
class Watcher:
    """The ids of the events that it is to be told of, in order, and of those that it was.

    Who has left may have missed the last of them.
    """

    room: str
    types: set[str]
    filter: dict[str, Any]
    wanted: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    removed: bool = False


def watchers(events: Iterable[Entry]) -> dict[str, Watcher]:
    """Watcher id -> what it saw; of rooms of tasks, with filters of equal fields of the event."""
    found: dict[str, Watcher] = {}
    for entry in events:
        match entry.type:
            case "approvals.watcher_created":
                fields = entry.fields
                found[entry.stream_id] = Watcher(
                    fields["room_id"], set(fields["event_types"]), json.loads(fields["filter"])
                )
            case "approvals.watcher_triggered":
                watcher = found[entry.stream_id]
                assert not watcher.removed, f"{entry.stream_id} was told after it had left"
                watcher.told.append(entry.fields["event_id"])
            case "approvals.watcher_removed":
                found[entry.stream_id].removed = True
        for watcher in found.values():
            if (
                not watcher.removed
                and _OBSERVED.get(entry.type) in watcher.types
                and entry.fields["room_id"] == watcher.room
                and watcher.filter.items() <= entry.fields.items()
            ):
                watcher.wanted.append(entry.headers["ce_id"])
    return found


@dataclass
class PromptFold:
    """versions: the hashes of their contents. labels: where each points. moves: of labels."""

    versions: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    moves: int = 0

    def move(self, fields: Mapping[str, Any]) -> None:
        """A label changes: numbered without a gap, and from where it was."""
        self.moves += 1
        assert fields["move"] == self.moves, fields
        assert fields["from_version"] == self.labels.pop(fields["label"], 0), fields


def prompts(events: Iterable[Entry]) -> dict[str, PromptFold]:
    """Prompt id -> its versions and labels."""
    found: dict[str, PromptFold] = {}
    for entry in events:
        id, fields = entry.stream_id, entry.fields
        match entry.type:
            case "prompts.prompt_created":
                assert id not in found, f"{id} was created twice"
                found[id] = PromptFold()
            case "prompts.prompt_version_added":
                found[id].versions.append(fields["content_hash"])
                assert fields["version"] == len(found[id].versions), fields
            case "prompts.prompt_label_moved":
                found[id].move(fields)
                assert 1 <= fields["version"] <= len(found[id].versions), fields
                found[id].labels[fields["label"]] = fields["version"]
            case "prompts.prompt_label_removed":
                found[id].move(fields)
    return found


def erasures(events: Iterable[Entry]) -> dict[str, str]:
    """Erasure id -> how far it is; each step once and in its order, each read model once."""
    steps = ["requested", "key_dropped", "completed"]
    found: dict[str, str] = {}
    cleaned: set[tuple[str, str]] = set()
    for entry in events:
        id = entry.stream_id
        match entry.type.removeprefix("observability."):
            case "user_erasure_requested":
                step = "requested"
            case "user_key_dropped":
                step = "key_dropped"
            case "user_erasure_completed":
                step = "completed"
            case "read_model_erased":
                assert found[id] == "key_dropped", f"{id}: {found[id]}, then a view was cleaned"
                assert (id, entry.fields["read_model"]) not in cleaned, entry
                cleaned.add((id, entry.fields["read_model"]))
                continue
            case _:
                continue
        before = found.get(id)
        place = 0 if before is None else steps.index(before) + 1
        assert step == steps[place], f"{id}: {before}, then {step}"
        found[id] = step
    return found


# Properties of the log itself.


def check_silence(entries: Iterable[Entry], secret: str) -> None:
    """No record has this text in its headers or fields, as such or in what they hold as JSON."""
    for entry in entries:
        assert secret not in str(entry.headers) + str(entry.fields), (entry.type, entry.offset)


def check_versions(events: Iterable[Entry]) -> None:
    """Within each stream the versions are exactly 1..n, in offset order."""
    expected: Counter[tuple[str, str]] = Counter()
    for entry in events:
        key = (entry.tenant, entry.headers["ce_subject"])
        expected[key] += 1
        assert int(entry.headers["ce_streamversion"]) == expected[key], entry


def check_ids(entries: Iterable[Entry]) -> None:
    """No event id occurs twice on a topic."""
    counts = Counter(entry.headers["ce_id"] for entry in entries)
    assert [id for id, count in counts.items() if count > 1] == []


def check_audit(audit: Iterable[Entry]) -> dict[str, int]:
    """Every tenant's chain is whole; returns tenant -> length."""
    heads: dict[str, tuple[int, str]] = {}
    for entry in audit:
        record = dict(entry.fields)
        seq, prev = heads.get(record["tenant"], (0, GENESIS))
        assert record["seq"] == seq + 1, f"{record['tenant']}: {record['seq']} after {seq}"
        assert record["prev_hash"] == prev
        claimed = record.pop("hash")
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(canonical.encode()).hexdigest() == claimed, record
        heads[record["tenant"]] = (record["seq"], claimed)
    return {tenant: seq for tenant, (seq, _) in heads.items()}


def check_outcomes(outcomes: Iterable[Entry], audit: Iterable[Entry]) -> None:
    """Each command was handled once, has one audit record, and offsets never go back."""
    handled = Counter(
        (entry.tenant, entry.fields["command_id"])
        for entry in outcomes
        if not entry.fields["replay"]
    )
    assert [key for key, count in handled.items() if count > 1] == []
    audited = Counter((entry.tenant, entry.fields["command_id"]) for entry in audit)
    assert audited == handled
    last: dict[int, int] = {}
    for entry in outcomes:
        offset = entry.fields["command_offset"]
        assert offset > last.get(entry.partition, -1), "a command was handled twice"
        last[entry.partition] = offset


def check_copies(events: Iterable[Entry], copies: Iterable[Entry], prefix: str) -> None:
    """A copy topic holds exactly the events of its kind, in their order."""
    originals = [entry.headers["ce_id"] for entry in events if entry.type.startswith(prefix)]
    assert [entry.headers["ce_id"] for entry in copies] == originals
