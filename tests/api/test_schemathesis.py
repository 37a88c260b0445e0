"""Schemathesis over our own document: no 5xx, nothing that the document doesn't promise.

The deciders are the real ones, the stores are empty: what gets past decoding meets unknown ids.
Derandomised, so that a failure here is one that everybody can see again.
"""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import ROUTES
from api.platform.probes import Dependency, Readiness
from infra.objects import Objects
from tests.api.harness import Harness
from tests.api.test_every_route import EVERY_ROLE, EVERY_SCOPE


class _AllWell:
    """Probes that find everything well."""

    async def readiness(self) -> Readiness:
        return Readiness("ready", {"kafka": Dependency(True, 0.1)}, {})

    async def storage(self) -> Dependency:
        return Dependency(True, 0.1)


APP = Harness()
APP.services.objects = Objects("memory:///")
APP.services.probes = _AllWell()
CREDENTIALS = {
    "api_key": APP.key(roles=EVERY_ROLE, scopes=EVERY_SCOPE),
    "agent": APP.agent(),
    "user": APP.human(roles=EVERY_ROLE, scopes=EVERY_SCOPE),
}
KINDS = {(route.method, route.path): sorted(route.who.kinds) for route in ROUTES}

schema = schemathesis.openapi.from_asgi("/openapi.json", APP.app)


@schema.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_promises(case: schemathesis.Case) -> None:
    kinds = KINDS[case.operation.method.upper(), case.operation.path]
    headers = CREDENTIALS[kinds[0]] if kinds else {}
    response = case.call(headers=headers)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
    assert "x-request-id" in response.headers
