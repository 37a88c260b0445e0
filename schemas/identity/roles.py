"""The roles that a user or an API key may have, and the scopes that a key may have besides.

One matrix for every surface; `commands/identity/README.md` says what each role may do.
"""

from typing import Annotated, Literal

from msgspec import Meta

Role = Literal["admin", "developer", "compute", "billing", "viewer"]
ROLES: tuple[Role, ...] = ("admin", "developer", "compute", "billing", "viewer")
# Whose people decide check-ins, and may be named as reviewers.
DECIDING: tuple[Role, ...] = ("admin", "developer")

# `area:verb`, such as `observe:write`; a route that names scopes needs all of them.
Scope = Annotated[str, Meta(pattern=r"^[a-z_]+:[a-z_*]+$", max_length=64)]
