"""Schemathesis over our own document, on real processes: no 5xx, nothing that it doesn't promise.

Derandomised, so that a failure here is one that everybody can see again.
"""

import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import ROUTES
from api.openapi import build_openapi, statuses_of
from api.problems import PROTOBUF
from tests.integration.served import Served, headers_of

STREAM_SECONDS = 10

# Any bytes: those of no message are refused, in the encoding that they claim to be in.
schemathesis.serializer.alias(PROTOBUF, "application/octet-stream")

BY_OPERATION = {(route.method, route.path): route for route in ROUTES}
schema = schemathesis.openapi.from_dict(build_openapi(ROUTES))


@schema.parametrize()
@settings(
    max_examples=5,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_promises(
    case: schemathesis.Case, served: Served
) -> None:
    route = BY_OPERATION[case.operation.method.upper(), case.operation.path]
    kinds = sorted(route.who.kinds)
    headers = headers_of(served.made)[kinds[0]] if kinds else {}
    if route.stream:
        arguments = case.as_transport_kwargs(base_url=served.url, headers=headers)
        with requests.request(**arguments, stream=True, timeout=STREAM_SECONDS) as answer:
            # Schemathesis tries other methods as well.
            assert answer.status_code in (*statuses_of(route), 204, 405)
        return
    response = case.call(base_url=served.url, headers=headers)
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
