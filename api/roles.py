"""Which roles may do what: the matrix of `commands/identity/README.md`, as routes name it.

Agents have no roles; what they may do follows from their being agents (`Who.AGENT`).
"""

from schemas.identity.roles import DECIDING, Role

ADMINS: tuple[Role, ...] = ("admin",)
# Reports telemetry; writes prompts, policies and rooms; decides check-ins; registers agents.
BUILDERS = DECIDING
READERS: tuple[Role, ...] = ("admin", "developer", "viewer")
# Uploads evaluation keys and computes.
COMPUTERS: tuple[Role, ...] = ("admin", "developer", "compute")
COMPUTE_READERS: tuple[Role, ...] = ("admin", "developer", "compute", "viewer")
# Subscriptions, budgets and invoices.
BILLERS: tuple[Role, ...] = ("admin", "billing")
BILLING_READERS: tuple[Role, ...] = ("admin", "developer", "billing", "viewer")
USAGE_REPORTERS: tuple[Role, ...] = ("admin", "developer", "compute", "billing")
