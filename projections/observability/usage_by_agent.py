"""What each agent and workflow of a tenant used in the windows that it is now.

The usage processor keeps the table (`projections/billing/usage_windows.py` has its definition); a
row holds one window of its kind, the newest that was used.
"""

from projections.billing.usage_windows import BY_AGENT

# Usage of runs whose start was not reported yet has no names. Parameters: whether to tell agent
# ids apart; tenant; the starts of the current minute, hour, day and month (microseconds UTC).
CURRENT = f"""
SELECT window_kind, agent_name, workflow_name, CASE WHEN %s THEN agent_id ELSE '' END AS agent_id,
  sum(runs)::bigint AS runs, sum(calls)::bigint AS calls, sum(tokens) AS tokens,
  sum(nanodollars) AS nanodollars
FROM {BY_AGENT}
WHERE tenant = %s AND window_start >= CASE window_kind
  WHEN 'minute' THEN %s WHEN 'hour' THEN %s WHEN 'day' THEN %s ELSE %s END
GROUP BY 1, 2, 3, 4
"""
