"""Events of an e-mail address, stream `identity.email/<sha256>` of the tenant `_directory`.

An address belongs to one user of one tenant, so the claim lives where all tenants meet. It is
reserved before the user is registered and confirmed after, because the two are decided apart.
"""

from msgspec import Struct

from schemas.types import Micros, Text


class EmailReserved(Struct, frozen=True, tag="identity.email_reserved.v1"):
    """The address is kept for this user until `until` (microseconds UTC)."""

    user_id: Text
    user_tenant: Text
    until: Micros


class EmailConfirmed(Struct, frozen=True, tag="identity.email_confirmed.v1"):
    """The address belongs to this user, who is registered."""

    user_id: Text
    user_tenant: Text


class EmailReservationExpired(Struct, frozen=True, tag="identity.email_reservation_expired.v1"):
    """Nobody was registered in time; the address is free again."""

    user_id: Text


EmailEvent = EmailReserved | EmailConfirmed | EmailReservationExpired
