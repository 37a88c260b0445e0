"""The application: every domain's routes, served by the dispatcher."""

from collections.abc import Sequence

from api.approvals import ROUTES as APPROVALS
from api.auth import Authenticator
from api.billing import ROUTES as BILLING
from api.billing.plan_limits import plan_limits
from api.cors import Cors
from api.dispatch import Dispatcher, Observer
from api.fhe import ROUTES as FHE
from api.foreign_tokens import ForeignTokens
from api.identity import ROUTES as IDENTITY
from api.limits import RateLimiter
from api.observability import ROUTES as OBSERVABILITY
from api.platform import ROUTES as PLATFORM
from api.prompts import ROUTES as PROMPTS
from api.retries import Retries
from api.routing import Route
from api.services import Services
from api.tenancy import ROUTES as TENANCY

ROUTES: list[Route] = [
    *FHE,
    *APPROVALS,
    *BILLING,
    *IDENTITY,
    *OBSERVABILITY,
    *PLATFORM,
    *PROMPTS,
    *TENANCY,
]
"""Every route. A domain's are listed in `api/<domain>/__init__.py`, in its own ROUTES."""


def build_app(
    services: Services,
    routes: Sequence[Route] | None = None,
    observer: Observer | None = None,
    retries: Retries | None = None,
) -> Dispatcher:
    """The ASGI application over these services; `routes` are all of them unless given.

    retries: what is known of requests without a key, nothing unless given.
    """
    settings = services.settings
    services.caches["routes"] = served = list(ROUTES if routes is None else routes)
    authenticator = Authenticator(
        store=services.credentials,
        tokens=services.tokens,
        foreign=ForeignTokens(settings, services.clock),
        clock=services.clock,
        lockout=services.lockout,
        cache=services.credential_cache,
    )
    return Dispatcher(
        served,
        services=services,
        authenticator=authenticator,
        limiter=RateLimiter(settings.rate_limit_per_minute, settings.rate_limit_burst),
        plans=plan_limits(services) if settings.rate_limit_per_minute else None,
        cors=Cors(settings.cors_origins, settings.public_url),
        retries=retries or Retries(),
        observer=observer,
    )
