"""A tenant is created once, under one name."""

from hypothesis import given
from hypothesis import strategies as st

from commands.refusals import Refusal
from commands.tenancy.tenant import DECIDER, CreateTenant, TenantExists
from schemas.tenancy.tenant import TenantCreated
from tests.given import Given


def test_a_tenant_is_created() -> None:
    Given(DECIDER).when(CreateTenant("Acme")).then(TenantCreated("Acme"))


def test_another_name_under_the_same_id_is_refused() -> None:
    Given(DECIDER, TenantCreated("Acme")).when(CreateTenant("Other")).then_refused(TenantExists)


def test_creating_it_again_stays_quiet() -> None:
    Given(DECIDER, TenantCreated("Acme")).when(CreateTenant("Acme")).then_quiet()


@given(st.lists(st.sampled_from(["Acme", "Globex", "Initech"]), max_size=8))
def test_no_sequence_of_creations_renames_a_tenant(names: list[str]) -> None:
    tenant = Given(DECIDER)
    for name in names:
        try:
            events = tenant.when(CreateTenant(name)).decided()
        except Refusal:
            continue
        for event in events:
            tenant.state = DECIDER.evolve(tenant.state, event)
    assert tenant.state.name == (names[0] if names else "")
