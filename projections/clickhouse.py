"""ClickHouse read models: one `ClickHouseView` per table, filled by `streams/analytics.py`.

A view names the topic it reads and turns an event into rows; the loop decodes, batches and inserts.

    def rows(event: AuditRecorded, envelope: Envelope) -> list[Row]:
        return [(envelope.tenant, event.seq, event.action, event.at)]

    AUDIT_RECORDS = ClickHouseView(
        name="audit_records",
        version=1,
        topic="audit",
        events=(AuditRecorded,),
        columns={
            "tenant": TENANT,
            "seq": "UInt64",
            "action": "LowCardinality(String)",
            "at": INSTANT,
        },
        order_by=("tenant", "seq"),
        rows=rows,
    )

A view of an event that is a list of items, and of which there are very many, makes columns instead
of rows: `item_columns` in place of `rows`, and its records are read hundreds at once.

List it in `projections.CLICKHOUSE_VIEWS` and read it with `analytics.query(f"SELECT … FROM
{AUDIT_RECORDS.table} WHERE tenant = {{tenant:String}}", {"tenant": …})`. Reads see every table
deduplicated (`FINAL` is always on; `observability/unmerged.py` says where it need not be), so that
counts and sums are exact before any merge.

Why nothing is lost or counted twice, three belts deep:
1. A flush is one block per table, which ClickHouse commits whole or not at all. Each row carries
   `_partition` and `_offset`, so a restarted loop reads from the table how far it had come.
2. A repeated insert carries the same `insert_deduplication_token` and is dropped.
3. `order_by` identifies the event (or the item of it), and the table replaces by it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from schemas.envelope import Envelope

Row = tuple[Any, ...]
Rows = Callable[[Any, Envelope], Sequence[Row]]
Column = Any
"""An Arrow array of text, or a numpy array of numbers."""


class Items(NamedTuple):
    """Items of many records, a row each: their fields, and what the envelope says of each row.

    Text is in Arrow arrays, numbers are in numpy arrays, an absent float is NaN.
    """

    fields: Mapping[str, Column]
    tenant: Column
    stream_id: Column
    sealed_for: Column
    time: Column


ItemColumns = Callable[[Items], Sequence[Column]]

# Column types with their Python values.
TENANT = "LowCardinality(String)"  # str
INSTANT = "DateTime64(6, 'UTC')"  # int, microseconds since 1970 UTC
JSON_TEXT = "String CODEC(ZSTD(3))"  # str that is a JSON document
KEY_NAME = "String CODEC(ZSTD(1))"  # str, the envelope's `sealed_for`

DEDUPLICATION_WINDOW = 1000
"""Insert tokens that a table remembers: minutes of flushes, and a retry comes within seconds."""


class ClickHouseView(Struct, frozen=True, kw_only=True):
    """A ClickHouse read model, one table.

    name: plural; the table is `<name>_v<version>`, and a new version fills a new table from the
    start of the log. topic: the one topic it reads. events: the structs it wants of that topic.
    columns: name -> ClickHouse type, in order; the first is always `tenant`. Values are str, int,
    float, bool, list, or None where the type is Nullable; an INSTANT takes microseconds.
    order_by: identifies a row: two rows that agree on it are one, and `keep` says whether the first
    or the last on the log stands. Name columns here that never change for the same thing (a time
    of arrival does). derived: columns that ClickHouse makes of these, name -> `type MATERIALIZED
    expression`. indexes: skip indexes, `name expression TYPE …`. projections: what the engine keeps
    of each part beside its rows, name -> SELECT; read by queries without FINAL only.
    rows(event, envelope): pure; tuples in the order of `columns`, distinct in `order_by`.
    item_columns(items): instead of `rows`, for a view of one event that is a list of items with an
    `id`, and what is sealed of them; pure; the values in the order of `columns`. Of items of one
    record with the same id it sees the first.
    personal: columns that hold what a report had sealed -> SQL of what they hold once the person is
    erased, which is what `rows` makes of the blank event. Such a view has a column `sealed_for`.
    """

    name: str
    version: int
    topic: str
    events: tuple[type[Struct], ...]
    columns: Mapping[str, str]
    order_by: tuple[str, ...]
    rows: Rows | None = None
    item_columns: ItemColumns | None = None
    keep: Literal["first", "last"] = "last"
    derived: Mapping[str, str] = {}
    indexes: tuple[str, ...] = ()
    projections: Mapping[str, str] = {}
    settings: Mapping[str, str | int] = {}
    personal: Mapping[str, str] = {}

    @property
    def table(self) -> str:
        """The live table of this version."""
        return f"{self.name}_v{self.version}"

    @property
    def stored(self) -> tuple[str, ...]:
        """Every column that an insert names: the view's own, then the place in the log."""
        return (*self.columns, "_partition", "_offset", "_index")

    @property
    def types(self) -> tuple[str, ...]:
        """The types of `stored`, without codecs."""
        own = (kind.partition(" CODEC(")[0] for kind in self.columns.values())
        return (*own, "UInt32", "UInt64", "UInt32")

    def ddl(self, table: str | None = None) -> str:
        """The statement that creates the table (or one beside it) if it isn't there."""
        lines = [f"`{name}` {kind}" for name, kind in self.columns.items()]
        lines += [
            "_partition UInt32 CODEC(Delta, ZSTD(1))",
            "_offset UInt64 CODEC(Delta, ZSTD(1))",
            "_index UInt32 CODEC(Delta, ZSTD(1))",
        ]
        lines += [f"`{name}` {made}" for name, made in self.derived.items()]
        version = "_offset"
        if self.keep == "first":
            # The engine keeps the greatest version: the complement makes the first the greatest.
            lines.append("_precedence UInt64 MATERIALIZED bitNot(_offset) CODEC(Delta, ZSTD(1))")
            version = "_precedence"
        lines += [f"INDEX {index}" for index in self.indexes]
        settings = {"non_replicated_deduplication_window": DEDUPLICATION_WINDOW, **self.settings}
        if self.projections:
            lines += [f"PROJECTION {name} ({sql})" for name, sql in self.projections.items()]
            # A merge that replaces rows makes what is kept of them anew.
            settings["deduplicate_merge_projection_mode"] = "rebuild"
        return (
            f"CREATE TABLE IF NOT EXISTS {table or self.table} (\n  "
            + ",\n  ".join(lines)
            + f"\n) ENGINE = ReplacingMergeTree({version})\nORDER BY ({', '.join(self.order_by)})"
            + "\nSETTINGS "
            + ", ".join(f"{name} = {value!r}" for name, value in settings.items())
        )


def tables_by_topic(views: Sequence[ClickHouseView]) -> dict[str, list[str]]:
    """The live tables by the topic they are filled from."""
    found: dict[str, list[str]] = {}
    for view in views:
        found.setdefault(view.topic, []).append(view.table)
    return found
