"""What a batch writes to Postgres, as SQL: pure, so that it is ready before the log has committed.

The decider's own tables change in one statement, whose every part hangs on the compare-and-set of
the checkpoint: a process that no longer owns the partition changes nothing and locks no row. The
rows of each table travel as one JSON document. Statements are few, because each is a round trip in
the middle of every command's way.
"""

from typing import Any, NamedTuple

import msgspec

from projections import VIEWS
from projections.runner import prepare, reduce_all
from schemas.codec import Codec
from streams.effects import Effects

Rows = list[dict[str, Any]]

# Parameters: the checkpoint after, the partition, the checkpoint before.
_MOVED = """
moved AS (
  UPDATE decider_checkpoints SET commands_next = %s, events_next = %s, outcomes_next = %s,
    audit_next = %s
  WHERE partition = %s AND events_next = %s AND outcomes_next = %s AND audit_next = %s
  RETURNING partition)"""
_WRITES = {
    "states": """
  INSERT INTO decider_states
  SELECT r.tenant, r.stream, r.id, moved.partition, r.version, decode(r.state, 'hex')
  FROM moved, json_to_recordset(%s::json)
    AS r (tenant text, stream text, id text, version bigint, state text)
  ON CONFLICT (tenant, stream, id) DO UPDATE
    SET version = EXCLUDED.version, state = EXCLUDED.state""",
    "claimed": """
  INSERT INTO decider_lookups SELECT r.tenant, r.index, r.key, moved.partition, r.stream_id
  FROM moved, json_to_recordset(%s::json)
    AS r (tenant text, index text, key text, stream_id text)
  ON CONFLICT (tenant, index, key) DO UPDATE SET stream_id = EXCLUDED.stream_id""",
    "released": """
  DELETE FROM decider_lookups AS t
  USING moved, json_to_recordset(%s::json) AS r (tenant text, index text, key text)
  WHERE t.tenant = r.tenant AND t.index = r.index AND t.key = r.key""",
    "outcomes": """
  INSERT INTO decider_outcomes
  SELECT r.tenant, r.command_id, moved.partition, r.at, decode(r.outcome, 'hex')
  FROM moved, json_to_recordset(%s::json)
    AS r (tenant text, command_id text, at bigint, outcome text)
  ON CONFLICT (tenant, command_id) DO NOTHING""",
    "heads": """
  INSERT INTO decider_audit_heads SELECT r.tenant, moved.partition, r.seq, r.hash
  FROM moved, json_to_recordset(%s::json) AS r (tenant text, seq bigint, hash text)
  ON CONFLICT (tenant) DO UPDATE SET seq = EXCLUDED.seq, hash = EXCLUDED.hash""",
    "timers_gone": """
  DELETE FROM timers AS t
  USING moved, json_to_recordset(%s::json)
    AS r (tenant text, stream text, name text, due_at bigint)
  WHERE t.tenant = r.tenant AND t.stream = r.stream AND t.name = r.name
    AND (r.due_at IS NULL OR t.due_at = r.due_at)""",
    "timers_set": """
  INSERT INTO timers
  SELECT r.tenant, r.stream, r.name, moved.partition, r.due_at, decode(r.command, 'hex')
  FROM moved, json_to_recordset(%s::json)
    AS r (tenant text, stream text, name text, due_at bigint, command text)
  ON CONFLICT (tenant, stream, name) DO UPDATE
    SET due_at = EXCLUDED.due_at, command = EXCLUDED.command""",
}


class Writes(NamedTuple):
    """One batch as SQL.

    sql: the statement for the decider's own tables; its parameters are those of the compare-and-set
    and then `rows`, and it says how many checkpoints it moved. views: statements for the read
    models, with the one parameter of each.
    """

    sql: bytes
    rows: list[str]
    views: list[tuple[bytes, str]]


def writes(effects: Effects, codec: Codec) -> Writes:
    """All that a batch does to the tables."""
    rows = {
        "states": _states(effects),
        **_lookups(effects),
        "outcomes": _outcomes(effects),
        "heads": [{"tenant": t, "seq": h.seq, "hash": h.hash} for t, h in effects.heads.items()],
        **_timers(effects, codec),
    }
    present = {name: _as_text(found) for name, found in rows.items() if found}
    parts = [_MOVED, *(f"\n{name} AS ({_WRITES[name]})" for name in present)]
    sql = f"WITH {','.join(parts)}\nSELECT count(*) AS moved FROM moved"
    views = prepare(reduce_all(VIEWS, effects.events))
    return Writes(sql.encode(), list(present.values()), views)


def _states(effects: Effects) -> Rows:
    return [
        {
            "tenant": tenant,
            "stream": stream,
            "id": id,
            "version": version,
            "state": msgspec.msgpack.encode(state).hex(),
        }
        for (tenant, stream, id), (version, state) in effects.states.items()
    ]


def _lookups(effects: Effects) -> dict[str, Rows]:
    claimed: Rows = []
    released: Rows = []
    for (tenant, index, key), holder in effects.lookups.items():
        row = {"tenant": tenant, "index": index, "key": key}
        if holder is None:
            released.append(row)
        else:
            claimed.append(row | {"stream_id": holder})
    return {"claimed": claimed, "released": released}


def _outcomes(effects: Effects) -> Rows:
    return [
        {
            "tenant": tenant,
            "command_id": item.command_id,
            "at": item.at,
            "outcome": msgspec.msgpack.encode(item).hex(),
        }
        for tenant, item in effects.outcomes
        if not item.replay
    ]


def _timers(effects: Effects, codec: Codec) -> dict[str, Rows]:
    """The timers that are set, and those that are gone: cleared, or fired and heard."""
    last = {(item.tenant, item.stream, item.name): item for item in effects.timers}
    gone: Rows = []
    for tenant, outcome in effects.outcomes:
        if outcome.timer:
            name, _, due_at = outcome.timer.rpartition("@")
            # What its own events say of the timer counts more than that it has fired.
            if (tenant, outcome.stream, name) not in last:
                gone.append(_timer(tenant, outcome.stream, name, due_at=int(due_at)))
    set_: Rows = []
    for key, item in last.items():
        if item.command is None:
            gone.append(_timer(*key, due_at=None))
        else:
            command = codec.encode(item.command).hex()
            set_.append(_timer(*key, due_at=item.due_at) | {"command": command})
    return {"timers_gone": gone, "timers_set": set_}


def _timer(tenant: str, stream: str, name: str, due_at: int | None) -> dict[str, Any]:
    return {"tenant": tenant, "stream": stream, "name": name, "due_at": due_at}


def _as_text(rows: Rows) -> str:
    return msgspec.json.encode(rows).decode()
