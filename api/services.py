"""What handlers may use. Composed in `api/__main__.py` (or by a test), handed to every call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from api.auth import CredentialCache
from api.credentials import CredentialStore
from api.limits import Lockout
from api.tokens import TokenIssuer
from infra.clock import SYSTEM_CLOCK, Clock
from infra.completions import Completions
from infra.config import Settings
from infra.ids import Signer
from infra.objects import Objects
from infra.sandbox import Sandbox
from infra.stripe import Stripe
from schemas.envelope import Position
from streams.bus import CommandBus
from streams.person_keys import PersonKeys


class Reads(Protocol):
    """The Postgres read models, read only."""

    async def all(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        """Every row. Raises DatabaseUnavailable when the database can't be reached in time."""
        ...

    async def one(self, sql: str, *params: Any) -> dict[str, Any] | None:
        """The first row, if any. Raises as `all`."""
        ...


class Analytics(Protocol):
    """The ClickHouse read models, read only."""

    async def query(
        self, sql: str, params: Mapping[str, Any] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """The rows of a query with `{name:Type}` parameters."""
        ...

    async def reached(self, position: Position, timeout: float) -> bool:
        """Wait until the views hold everything up to `position`; False when `timeout` passed."""
        ...


@dataclass(kw_only=True, slots=True)
class Services:
    """One per API process. `log` is the producer, `objects` the object store, `live` the hub that
    tails the log for event streams, `probes` what health checks ask (`api.platform.probes`),
    `completions` asks the tenants' models, `key_child` loads and makes evaluation keys in processes
    of their own, `caches` is what other parts keep per process, by name.

    Made here: `tokens` issues and checks our JWTs; `lockout` makes whoever guesses passwords wait;
    `credential_cache` is what the tail of `events` drops changed credentials from; `person_keys`
    seal reports of persons, and the tail tells them which keys were destroyed; `stripe` bills.
    """

    settings: Settings
    signer: Signer
    bus: CommandBus
    reads: Reads
    credentials: CredentialStore
    analytics: Analytics
    clock: Clock = SYSTEM_CLOCK
    log: Any = None
    objects: Objects = field(default_factory=lambda: Objects("memory:///"))
    live: Any = None
    probes: Any = None
    completions: Completions = field(default_factory=Completions)
    key_child: Sandbox = field(default_factory=lambda: Sandbox("fhe_workers.key_child"))
    caches: dict[str, Any] = field(default_factory=dict)
    lockout: Lockout = field(default_factory=Lockout)
    credential_cache: CredentialCache = field(default_factory=CredentialCache)
    tokens: TokenIssuer = field(init=False)
    person_keys: PersonKeys = field(init=False)
    stripe: Stripe = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = TokenIssuer(self.signer, self.clock)
        self.person_keys = PersonKeys(self.objects, self.signer)
        self.stripe = Stripe(self.settings)
