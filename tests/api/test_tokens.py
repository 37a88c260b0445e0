"""Our own tokens, and those of other issuers: what is believed and what is not."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey

from api.foreign_tokens import ForeignTokens
from api.tokens import ALGORITHM, BadToken, TokenIssuer
from infra.clock import ManualClock
from infra.ids import Signer
from tests.api.harness import SECRET, Harness, memory_settings
from tests.api.sample import COUNTER, ROUTES

SHARED = "a shared secret of more than thirty-two bytes"
CLOCK = ManualClock()
NOW = CLOCK.now() // 1_000_000


def claims(**changes: Any) -> dict[str, Any]:
    """A foreign token's claims."""
    return {"iss": "https://idp.test", "sub": "s", "email": "User1@weir.test", "exp": NOW + 60} | (
        changes
    )


def signed(key: Key, algorithm: str, body: dict[str, Any], kid: str = "") -> str:
    """A token."""
    header = {"alg": algorithm, **({"kid": kid} if kid else {})}
    return jwt.encode(header, body, key, algorithms=[algorithm])


def hs256(**changes: Any) -> str:
    """A token under the shared secret."""
    return signed(OctKey.import_key(SHARED), "HS256", claims(**changes))


def issuer(clock: ManualClock = CLOCK) -> TokenIssuer:
    return TokenIssuer(Signer(SECRET), clock)


def test_our_token_says_who_until_it_expires() -> None:
    clock = ManualClock()
    tokens = issuer(clock)
    token = tokens.access(user_id="usr_1", session_id="ses_1", tenant="ten_1", seconds=60)
    found = tokens.verify(token)
    assert (found.sub, found.sid, found.ten, found.exp - found.iat) == (
        "usr_1",
        "ses_1",
        "ten_1",
        60,
    )
    clock.advance(60)
    with pytest.raises(BadToken, match="expired"):
        tokens.verify(token)


def test_our_token_is_for_one_purpose_and_one_installation() -> None:
    tokens = issuer()
    token = tokens.issue(sub="x", seconds=60, typ="invite")
    assert tokens.verify(token, "invite").sub == "x"
    with pytest.raises(BadToken, match="something else"):
        tokens.verify(token)
    other = TokenIssuer(Signer(b"another master secret of 32 byte"), CLOCK)
    with pytest.raises(BadToken):
        other.verify(tokens.access(user_id="u", session_id="s", tenant="t"))


def test_a_token_that_was_tampered_with_is_refused() -> None:
    tokens = issuer()
    head, body, tail = tokens.access(user_id="u", session_id="s", tenant="t").split(".")
    forged = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged["sub"] = "admin"
    other = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    public = OctKey.import_key(json.dumps(tokens.jwks()["keys"][0]))
    confused = signed(public, "HS256", claims(iss="weir", sub="u"))
    for token in (
        f"{head}.{other}.{tail}",
        f"{none}.{body}.",
        f"{head}.{body}.",
        "a.b.c",
        confused,
    ):
        with pytest.raises(BadToken):
            tokens.verify(token)


def test_anyone_can_check_our_tokens_with_the_published_key() -> None:
    tokens = issuer()
    (key,) = tokens.jwks()["keys"]
    assert "d" not in key
    token = tokens.access(user_id="u", session_id="s", tenant="t")
    found = jwt.decode(token, KeySet.import_key_set(tokens.jwks()), algorithms=[ALGORITHM])  # type: ignore[arg-type]
    assert found.claims["sub"] == "u"


def foreign(**changes: Any) -> ForeignTokens:
    return ForeignTokens(memory_settings(**changes), CLOCK)


async def test_a_token_under_the_shared_secret_names_its_user() -> None:
    known = foreign(jwt_hs256_secret=SHARED)
    assert known.may_know(hs256())
    assert await known.verify(hs256()) == ("user1@weir.test", (NOW + 60) * 1_000_000)


@pytest.mark.parametrize(
    "token",
    [
        hs256(exp=NOW),
        hs256(exp=None),
        hs256(nbf=NOW + 300),
        hs256(email=""),
        hs256(email=None),
        hs256(email_verified=False),
        hs256(aud="someone else"),
        hs256(aud=None),
        signed(OctKey.import_key("x" * 40), "HS256", claims(aud="weir")),
        "a.b.c",
    ],
)
async def test_a_foreign_token_that_is_not_good_is_refused(token: str) -> None:
    with pytest.raises(BadToken):
        await foreign(jwt_hs256_secret=SHARED, jwt_audience="weir").verify(token)


async def test_the_audience_may_be_one_of_several() -> None:
    known = foreign(jwt_hs256_secret=SHARED, jwt_audience="weir")
    for audience in ("weir", ["other", "weir"]):
        assert await known.verify(hs256(aud=audience))


def test_ours_are_never_taken_for_foreign_and_none_are_known_by_default() -> None:
    own = issuer().access(user_id="u", session_id="s", tenant="t")
    assert not foreign(jwt_hs256_secret=SHARED).may_know(own)
    assert not foreign().may_know(hs256())


class Published:
    """A key set behind a URL, and how often it was asked for."""

    def __init__(self, *keys: Key) -> None:
        self.keys, self.asked, self.status = list(keys), 0, 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        found = {"keys": [key.as_dict(private=False) for key in self.keys]}
        return httpx.Response(self.status, json=found)


def rsa(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


async def test_keys_of_an_issuer_are_fetched_kept_and_fetched_again_when_rotated() -> None:
    ticks = [0.0]
    one, two, curve = rsa("one"), rsa("two"), ECKey.generate_key("P-256", {"kid": "curve"})
    published = Published(one, curve)
    client = httpx.AsyncClient(transport=httpx.MockTransport(published))
    settings = memory_settings(jwks_urls=("https://idp.test/jwks",))
    known = ForeignTokens(settings, CLOCK, client, now=lambda: ticks[0])
    for _ in range(3):
        assert await known.verify(signed(one, "RS256", claims(), "one"))
        assert await known.verify(signed(curve, "ES256", claims(), "curve"))
    assert published.asked == 1
    published.keys = [two]
    ticks[0] += 31
    assert await known.verify(signed(two, "RS256", claims(), "two"))
    assert published.asked == 2
    for _ in range(5):  # an unknown key id does not make us ask without end
        with pytest.raises(BadToken):
            await known.verify(signed(rsa("three"), "RS256", claims(), "three"))
    assert published.asked == 2
    published.status = 500
    ticks[0] += 601
    assert await known.verify(signed(two, "RS256", claims(), "two"))
    assert published.asked == 3


async def test_any_of_the_configured_issuers_is_believed_beside_the_shared_secret() -> None:
    one, two = rsa("one"), rsa("two")
    published = {"/one": Published(one), "/two": Published(two)}
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: published[request.url.path](request))
    )
    settings = memory_settings(
        jwks_urls=("https://idp.test/one", "https://idp.test/two"), jwt_hs256_secret=SHARED
    )
    known = ForeignTokens(settings, CLOCK, client)
    for token in (
        signed(one, "RS256", claims(), "one"),
        signed(two, "RS256", claims(), "two"),
        hs256(),
    ):
        assert await known.verify(token) == ("user1@weir.test", (NOW + 60) * 1_000_000)
    with pytest.raises(BadToken):
        await known.verify(signed(rsa("three"), "RS256", claims(), "three"))


async def test_a_public_key_is_no_shared_secret() -> None:
    one = rsa("one")
    client = httpx.AsyncClient(transport=httpx.MockTransport(Published(one)))
    settings = memory_settings(jwks_urls=("https://idp.test/jwks",))
    known = ForeignTokens(settings, CLOCK, client)
    secret = OctKey.import_key(json.dumps(one.as_dict(private=False)))
    for kid in ("", "one"):
        with pytest.raises(BadToken):
            await known.verify(signed(secret, "HS256", claims(), kid))


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    changes = {"jwt_hs256_secret": SHARED}
    async with Harness(ROUTES, deciders=[COUNTER], changes=changes) as harness:
        yield harness


async def test_a_foreign_token_acts_as_the_user_of_that_address(app: Harness) -> None:
    app.human()
    answer = await app.client.get("/api/v1/echo/1", headers={"Authorization": f"Bearer {hs256()}"})
    assert answer.json()["actor"] == {"kind": "user", "id": "usr_1", "name": "User 1"}
    stranger = hs256(email="stranger@weir.test")
    refused = await app.client.get(
        "/api/v1/echo/1", headers={"Authorization": f"Bearer {stranger}"}
    )
    assert refused.status_code == 401
