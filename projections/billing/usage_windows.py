"""`usage_windows`: how much of a meter a tenant used in each hour, day and month.

Not a view of the decider loop: usage also comes from telemetry, which no decider sees. The usage
processor (`streams/billing`) writes these tables, each batch in one transaction with the offset
that it consumed. They are a fold of the log like every read model: drop them, and the processor
fills them again from the log's beginning.
"""

VERSION = 1
WINDOWS = f"usage_windows_v{VERSION}"
BUDGETS = f"usage_budgets_v{VERSION}"
ALERTS = f"usage_alerts_v{VERSION}"
CALLS = f"usage_calls_v{VERSION}"
OFFSETS = f"usage_offsets_v{VERSION}"
BY_AGENT = f"usage_by_agent_v{VERSION}"
RUNS = f"usage_runs_v{VERSION}"
UNNAMED = f"usage_unnamed_v{VERSION}"

# Taken by who makes the tables: the processor and, so that they are always there, the deciders.
DDL_LOCK = 7351
# With the hash of a tenant: shared while its usage is counted, alone while its budgets change.
TENANT_LOCK = 7352

# - totals are sums of very many 64-bit quantities, hence numeric;
# - alerts: each is sent as a command once its row is committed, and then marked as sent;
# - calls: which LLM calls of a run were counted, since a report may come twice. One row for each
#   report, 8 bytes (of SHA-256) for each call in it;
# - by agent: one row for each agent, workflow and agent id (`who` is a hash of the three, which are
#   too long for a key) and kind of window: the newest window that was used, and what was used;
# - runs: who each run was begun by; unnamed: what was used in runs whose start did not come yet.
DDL = (
    f"""CREATE TABLE IF NOT EXISTS {OFFSETS} (
  topic text, partition int, next_offset bigint NOT NULL, PRIMARY KEY (topic, partition))""",
    f"""CREATE TABLE IF NOT EXISTS {WINDOWS} (
  tenant text, meter text, window_kind text, window_start bigint, window_end bigint NOT NULL,
  quantity numeric(38, 0) NOT NULL, records bigint NOT NULL,
  PRIMARY KEY (tenant, meter, window_kind, window_start))""",
    f"""CREATE INDEX IF NOT EXISTS {WINDOWS}_time
  ON {WINDOWS} (tenant, window_kind, window_start, meter)""",
    f"""CREATE TABLE IF NOT EXISTS {BUDGETS} (
  tenant text, budget_id text, revision bigint NOT NULL, meter text NOT NULL,
  window_kind text NOT NULL, limit_quantity bigint NOT NULL, alert_percents int[] NOT NULL,
  since bigint NOT NULL,
  PRIMARY KEY (tenant, budget_id))""",
    f"""CREATE TABLE IF NOT EXISTS {ALERTS} (
  tenant text, budget_id text, revision bigint, window_start bigint, percent int,
  total numeric(38, 0) NOT NULL, topic text NOT NULL, partition int NOT NULL, sent boolean NOT NULL,
  PRIMARY KEY (tenant, budget_id, revision, window_start, percent))""",
    f"""CREATE INDEX IF NOT EXISTS {ALERTS}_unsent
  ON {ALERTS} (topic, partition) WHERE NOT sent""",
    f"""CREATE TABLE IF NOT EXISTS {CALLS} (
  tenant text, run_id text, record_offset bigint, calls bytea NOT NULL,
  PRIMARY KEY (tenant, run_id, record_offset))""",
    f"""CREATE TABLE IF NOT EXISTS {BY_AGENT} (
  tenant text, window_kind text, who text, agent_name text NOT NULL, workflow_name text NOT NULL,
  agent_id text NOT NULL, window_start bigint NOT NULL, runs bigint NOT NULL, calls bigint NOT NULL,
  tokens numeric(38, 0) NOT NULL, nanodollars numeric(38, 0) NOT NULL,
  PRIMARY KEY (tenant, window_kind, who))""",
    f"""CREATE TABLE IF NOT EXISTS {RUNS} (
  tenant text, run_id text, agent_name text NOT NULL, workflow_name text NOT NULL,
  agent_id text NOT NULL, PRIMARY KEY (tenant, run_id))""",
    f"""CREATE TABLE IF NOT EXISTS {UNNAMED} (
  tenant text, run_id text, record_offset bigint, used_at bigint NOT NULL, calls bigint NOT NULL,
  tokens numeric(38, 0) NOT NULL, nanodollars numeric(38, 0) NOT NULL,
  PRIMARY KEY (tenant, run_id, record_offset))""",
)

# Oldest window first. Parameters: tenant, window kind; meter, twice; from and before (microseconds
# UTC, the windows' starts); start and meter of the last row seen; limit.
PAGE = f"""
SELECT meter, window_start, window_end, quantity, records FROM {WINDOWS}
WHERE tenant = %s AND window_kind = %s AND (%s = '' OR meter = %s)
  AND window_start >= %s AND window_start < %s AND (window_start, meter) > (%s, %s)
ORDER BY window_start, meter
LIMIT %s
"""
# Parameters as above without the row seen and the limit.
TOTALS = f"""
SELECT meter, sum(quantity) AS quantity, sum(records)::bigint AS records FROM {WINDOWS}
WHERE tenant = %s AND window_kind = %s AND (%s = '' OR meter = %s)
  AND window_start >= %s AND window_start < %s
GROUP BY meter ORDER BY meter
LIMIT 1000
"""
REACHED = f"SELECT topic, partition, next_offset FROM {OFFSETS} ORDER BY topic, partition"
