"""The tenants read model, as statements."""

from projections.statements import Put
from projections.tenancy.tenants import reduce
from schemas.envelope import SYSTEM, Envelope
from schemas.tenancy.tenant import TenantCreated

ENVELOPE = Envelope("evt_1", "x", "ten_1", "tenancy.tenant/ten_1", 1, 1_700, SYSTEM)


def test_a_tenant_has_a_row() -> None:
    assert reduce(TenantCreated("Acme"), ENVELOPE) == [
        Put({"tenant": "ten_1"}, {"name": "Acme", "created_at": 1_700})
    ]


def test_other_events_say_nothing() -> None:
    assert reduce(object(), ENVELOPE) == []
