"""`webhook_deliveries`: what was to be sent to each endpoint, and what every attempt came to.

Not a view of the decider loop: attempts are on `deliveries` only, which no decider reads. The
sender (`streams/platform/webhook_sender.py`) writes these tables, each batch in one transaction
with the offset that it consumed, and works from them. They are a fold of `deliveries`: drop them,
and the sender fills them again from what the topic holds, and sends nothing twice.
"""

from projections.platform.webhook_endpoints import WEBHOOK_ENDPOINTS

VERSION = 1
DELIVERIES = f"webhook_deliveries_v{VERSION}"
ATTEMPTS = f"webhook_attempts_v{VERSION}"
QUEUES = f"webhook_queues_v{VERSION}"
OFFSETS = f"webhook_offsets_v{VERSION}"

# Taken by who makes the tables: the sender and, so that they are always there, the deciders.
DDL_LOCK = 7361

# - deliveries: `place` is the offset of what requested it last, hence its turn; `since` is when
#   that was, and `attempts` counts from there;
# - attempts: one row for each record of one, known by its offset;
# - queues: how an endpoint does, one row while something waits for it.
DDL = (
    f"""CREATE TABLE IF NOT EXISTS {OFFSETS} (
  partition int PRIMARY KEY, next_offset bigint NOT NULL)""",
    f"""CREATE TABLE IF NOT EXISTS {DELIVERIES} (
  tenant text, endpoint_id text, event_id text, event_type text NOT NULL, body text NOT NULL,
  status text NOT NULL, reason text NOT NULL, partition int NOT NULL, place bigint NOT NULL,
  since bigint NOT NULL, attempts int NOT NULL, requested_at bigint NOT NULL,
  updated_at bigint NOT NULL, retry_at bigint,
  PRIMARY KEY (tenant, endpoint_id, event_id))""",
    f"""CREATE INDEX IF NOT EXISTS {DELIVERIES}_waiting
  ON {DELIVERIES} (partition, place) WHERE status = 'waiting'""",
    f"""CREATE INDEX IF NOT EXISTS {DELIVERIES}_dead
  ON {DELIVERIES} (tenant, endpoint_id) WHERE status = 'dead'""",
    f"""CREATE INDEX IF NOT EXISTS {DELIVERIES}_page
  ON {DELIVERIES} (tenant, endpoint_id, requested_at, event_id)""",
    f"""CREATE INDEX IF NOT EXISTS {DELIVERIES}_settled
  ON {DELIVERIES} (updated_at) WHERE status <> 'waiting'""",
    f"""CREATE TABLE IF NOT EXISTS {ATTEMPTS} (
  partition int, record_offset bigint, tenant text NOT NULL, endpoint_id text NOT NULL,
  event_id text NOT NULL, number int NOT NULL, outcome text NOT NULL, attempted_at bigint NOT NULL,
  duration_ms bigint NOT NULL, status_code int, error text NOT NULL, response text NOT NULL,
  PRIMARY KEY (partition, record_offset))""",
    f"""CREATE INDEX IF NOT EXISTS {ATTEMPTS}_of
  ON {ATTEMPTS} (tenant, endpoint_id, event_id, record_offset)""",
    f"CREATE INDEX IF NOT EXISTS {ATTEMPTS}_at ON {ATTEMPTS} (attempted_at)",
    f"""CREATE TABLE IF NOT EXISTS {QUEUES} (
  tenant text, endpoint_id text, partition int NOT NULL, due_at bigint NOT NULL,
  failures int NOT NULL, failing_since bigint NOT NULL, PRIMARY KEY (tenant, endpoint_id))""",
)

_SELECT = f"""
SELECT event_id, event_type, body, status, reason, attempts, requested_at, updated_at, retry_at
FROM {DELIVERIES}
"""
BY_ID = f"{_SELECT} WHERE tenant = %s AND endpoint_id = %s AND event_id = %s"
# Newest first. Parameters: tenant, endpoint; status, twice (empty for every one); requested_at and
# event id of the last row seen; limit.
PAGE = f"""{_SELECT}
WHERE tenant = %s AND endpoint_id = %s AND (%s = '' OR status = %s)
  AND (requested_at, event_id) < (%s, %s)
ORDER BY requested_at DESC, event_id DESC LIMIT %s
"""
# The attempts of some deliveries, the last `n` of each, oldest first. Parameters: tenant, endpoint,
# event ids (text[]), n.
ATTEMPTS_OF = f"""
SELECT event_id, number, outcome, attempted_at, duration_ms, status_code, error, response FROM (
  SELECT *, row_number() OVER (PARTITION BY event_id ORDER BY record_offset DESC) AS back
  FROM {ATTEMPTS} WHERE tenant = %s AND endpoint_id = %s AND event_id = ANY(%s)) AS numbered
WHERE back <= %s ORDER BY event_id, record_offset
"""
# What is posted, and where to. Parameters: tenant, endpoint, event id.
TO_SEND = f"""
SELECT d.body, d.event_type, d.requested_at, d.since, e.url, e.key_seed, e.retiring,
       e.status AS endpoint_status, e.updated_at AS endpoint_updated_at
FROM {DELIVERIES} d
LEFT JOIN {WEBHOOK_ENDPOINTS.table} e ON e.tenant = d.tenant AND e.id = d.endpoint_id
WHERE d.tenant = %s AND d.endpoint_id = %s AND d.event_id = %s
"""
# Dead ones, oldest first. Parameters: tenant, twice (empty for all); endpoint, twice; limit.
DEAD = f"""
SELECT d.tenant, d.endpoint_id, d.event_id, d.updated_at FROM {DELIVERIES} d
JOIN {WEBHOOK_ENDPOINTS.table} e ON e.tenant = d.tenant AND e.id = d.endpoint_id
WHERE d.status = 'dead' AND e.status = 'active' AND (%s = '' OR d.tenant = %s)
  AND (%s = '' OR d.endpoint_id = %s)
ORDER BY d.requested_at, d.event_id LIMIT %s
"""
# For metrics. Parameters: now, in microseconds.
DEPTHS = f"""
SELECT count(*) FILTER (WHERE status = 'waiting') AS waiting,
       count(*) FILTER (WHERE status = 'dead') AS dead,
       coalesce(%s - min(requested_at) FILTER (WHERE status = 'waiting'), 0) AS oldest
FROM {DELIVERIES} WHERE status IN ('waiting', 'dead')
"""
# Parameters: since when, in microseconds.
RECENT = f"""
SELECT outcome, count(*) AS n FROM {ATTEMPTS} WHERE attempted_at >= %s GROUP BY outcome
"""
DURATIONS = f"""
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99
FROM {ATTEMPTS} WHERE attempted_at >= %s
"""
REACHED = f"SELECT partition, next_offset FROM {OFFSETS} ORDER BY partition"
