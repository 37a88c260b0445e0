"""`POST /api/v1/onboarding/temp-key`: a key to try encrypted computation with, for everybody.

It is that of a tenant of its own, with the quota of the plan `trial` and the role `compute`. How
many an address may have is decided on the log, so that neither a restart nor another API process
forgets it. The address is the connection's, or what a trusted proxy says (WEIR_TRUSTED_PROXIES).
"""

import ipaddress

from msgspec import Struct

from api.credentials import API_KEY_PREFIX, lookup_prefix
from api.problems import FHE, Problem
from api.routing import Answer, Call, Route, Who, answer_of
from commands.billing.plans import PLANS, TRIAL
from commands.identity.email import DIRECTORY
from commands.tenancy.trial import ROLES, BeginTrial, TrialAnswer
from commands.tenancy.trial_origin import GrantTrial, TooManyTrials
from infra.clock import iso
from infra.ids import derived_id, secret_hash
from schemas.tenancy.trial import TRIAL_ID

# Whoever has an IPv6 address has a whole network of them.
_V6_NETWORK_BITS = 64


class TempKey(Struct, frozen=True):
    """A trial key. `key` is shown here and never again.

    quota_nanodollars: what may be spent on computation, at the prices of `/api/v1/tfhe/pricing`.
    """

    key: str
    key_id: str
    tenant_id: str
    roles: list[str]
    expires_at: str
    quota_nanodollars: int


async def issue_temp_key(call: Call[None, None]) -> Answer:
    """Begin a trial; the same Idempotency-Key is the same trial and shows the same key."""
    signer = call.services.signer
    # All three follow from the command's id, as with every key: none of them is stored.
    tenant = derived_id("ten", "trial", call.command_id)
    key_id = derived_id("key", "trial", call.command_id)
    secret = signer.secret(API_KEY_PREFIX, call.command_id)
    origin = signer.secret("", f"trial origin/{_network(call.address)}")[-26:]
    try:
        await call.send(origin, GrantTrial(tenant), tenant=DIRECTORY)
    except Problem as problem:
        if problem.code == TooManyTrials.code:
            wait = str(problem.details["retry_after"])
            raise Problem(
                429, problem.code, problem.message, headers={"retry-after": wait}
            ) from None
        raise
    command = BeginTrial(key_id, lookup_prefix(secret), secret_hash(secret))
    began = answer_of(await call.send(TRIAL_ID, command, tenant=tenant, step="begin"), TrialAnswer)
    call.headers["cache-control"] = "no-store"
    return Answer(
        TempKey(
            key=secret,
            key_id=key_id,
            tenant_id=tenant,
            roles=list(ROLES),
            expires_at=iso(began.ends_at),
            quota_nanodollars=PLANS[TRIAL].monthly_quota or 0,
        ),
        status=201,
    )


def _network(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _V6_NETWORK_BITS), strict=False))
    return str(found)


ROUTES = [
    Route(
        "POST",
        "/api/v1/onboarding/temp-key",
        issue_temp_key,
        dialect=FHE,
        who=Who.PUBLIC,
        response=TempKey,
        status=201,
        tags=("onboarding",),
        summary="Get a trial key",
        description="A key for 24 hours with the role `compute` and the trial plan's quota, in a "
        "tenant of its own. Few a day for each client address (429). What was uploaded and "
        "computed with it is erased after it has stopped.",
    ),
]
