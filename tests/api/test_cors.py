"""What browsers of other origins are told."""

from typing import Any

from tests.api.harness import Harness
from tests.api.sample import COUNTER, ROUTES

PREFLIGHT = {
    "Origin": "https://app.test",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-wax-key, content-type",
}


def harness(**changes: Any) -> Harness:
    """The app with these settings."""
    return Harness(ROUTES, deciders=[COUNTER], changes=changes)


async def test_by_default_no_other_origin_is_allowed() -> None:
    async with harness() as app:
        answer = await app.client.options("/v1/sums/1", headers=PREFLIGHT)
        assert answer.status_code == 204
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-methods" not in answer.headers
        assert answer.headers["vary"] == "Origin"


async def test_a_configured_origin_may_call_but_never_with_cookies() -> None:
    async with harness(cors_origins=("https://app.test",)) as app:
        answer = await app.client.options("/v1/sums/1", headers=PREFLIGHT)
        assert answer.headers["access-control-allow-origin"] == "https://app.test"
        assert answer.headers["access-control-allow-methods"] == "DELETE, POST, OPTIONS"
        assert answer.headers["access-control-allow-headers"] == "x-wax-key, content-type"
        assert "access-control-allow-credentials" not in answer.headers
        headers = {**app.human(), "Origin": "https://app.test"}
        for path in ("/api/v1/echo/1", "/nowhere"):
            got = await app.client.get(path, headers=headers)
            assert got.headers["access-control-allow-origin"] == "https://app.test"
            assert "X-Log-Position" in got.headers["access-control-expose-headers"]
        foreign = {**PREFLIGHT, "Origin": "https://evil.test"}
        refused = await app.client.options("/v1/sums/1", headers=foreign)
        assert "access-control-allow-origin" not in refused.headers


async def test_any_origin_may_be_configured() -> None:
    async with harness(cors_origins=("*",)) as app:
        answer = await app.client.options("/v1/sums/1", headers=PREFLIGHT)
        assert answer.headers["access-control-allow-origin"] == "*"
