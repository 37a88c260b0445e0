"""Who is calling: credentials to principals, with a cache that the log keeps honest.

Order: `X-Wax-Key`, then `Authorization: Bearer`, then the `sessionid` cookie; the first one present
counts. What was looked up is kept for some seconds; `drop` forgets it at once and is called for
every event that changes a credential, so that a revoked key stops within a second everywhere.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from api.credentials import (
    AGENT_KEY_PREFIX,
    API_KEY_PREFIX,
    CredentialStore,
    Principal,
    Session,
    User,
    lookup_prefix,
)
from api.foreign_tokens import ForeignTokens
from api.limits import Lockout, Monotonic
from api.problems import Problem
from api.tokens import BadToken, TokenIssuer
from infra.clock import Clock
from infra.ids import secret_hash
from infra.postgres import DatabaseUnavailable
from schemas.envelope import Actor

FRESH_SECONDS = 5.0  # the second belt: how old a look-up may be without having been dropped
STALE_SECONDS = 300.0  # and while Postgres is away; revocation still comes over the log
# After a drop the view may lag behind the event for a moment: what is read then is not kept.
_UNSETTLED_SECONDS = 3.0
_AWAY_SECONDS = 2.0
_MAX_ENTRIES = 20_000
_MAX_CREDENTIAL = 8_192  # characters

Tag = tuple[str, str]  # kind (api_key, agent, session, user) and id


class _Entry:
    __slots__ = ("at", "expires_at", "principal", "tags")

    def __init__(
        self, principal: Principal | None, tags: tuple[Tag, ...], at: float, expires_at: int | None
    ) -> None:
        self.principal, self.tags, self.at, self.expires_at = principal, tags, at, expires_at


class _Found:
    """A look-up's outcome: no principal when the credential is wrong. expires_at: microseconds."""

    __slots__ = ("expires_at", "principal", "tags")

    def __init__(
        self,
        principal: Principal | None,
        tags: tuple[Tag, ...] = (),
        expires_at: int | None = None,
    ) -> None:
        self.principal, self.tags, self.expires_at = principal, tags, expires_at


_WRONG = _Found(None)


class CredentialCache:
    """What credentials stood for when last looked up, by the SHA-256 of the secret."""

    def __init__(self, now: Monotonic = time.monotonic) -> None:
        self._now = now
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._by_tag: dict[Tag, set[str]] = {}
        self._unsettled: OrderedDict[Tag, float] = OrderedDict()
        self._generation = 0

    @property
    def generation(self) -> int:
        """Grows with each drop: a look-up that began before must not be kept."""
        return self._generation

    def get(self, digest: str, max_age: float) -> _Entry | None:
        """The entry of a secret, if it is at most `max_age` seconds old."""
        entry = self._entries.get(digest)
        if entry is None or self._now() - entry.at > max_age:
            return None
        return entry

    def put(self, digest: str, found: _Found, generation: int) -> None:
        """Keep a look-up that began at `generation`."""
        now = self._now()
        if generation != self._generation:
            return
        for tag in found.tags:
            if self._unsettled.get(tag, 0.0) > now:
                return
        self._remove(digest)
        self._entries[digest] = _Entry(found.principal, found.tags, now, found.expires_at)
        for tag in found.tags:
            self._by_tag.setdefault(tag, set()).add(digest)
        if len(self._entries) > _MAX_ENTRIES:
            self._remove(next(iter(self._entries)))

    def drop(self, kind: str, id: str) -> None:
        """Forget what belongs to a key, agent, session or user."""
        self._generation += 1
        tag = (kind, id)
        now = self._now()
        self._unsettled[tag] = now + _UNSETTLED_SECONDS
        self._unsettled.move_to_end(tag)
        while self._unsettled and next(iter(self._unsettled.values())) <= now:
            self._unsettled.popitem(last=False)
        for digest in list(self._by_tag.get(tag, ())):
            self._remove(digest)

    def clear(self) -> None:
        """Forget everything: changes may have been missed."""
        self._generation += 1
        self._entries.clear()
        self._by_tag.clear()

    def _remove(self, digest: str) -> None:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        for tag in entry.tags:
            digests = self._by_tag.get(tag)
            if digests is not None:
                digests.discard(digest)
                if not digests:
                    del self._by_tag[tag]


class Authenticator:
    """Turns the credential of a request into a principal."""

    def __init__(
        self,
        *,
        store: CredentialStore,
        tokens: TokenIssuer,
        foreign: ForeignTokens,
        clock: Clock,
        lockout: Lockout,
        cache: CredentialCache,
        now: Monotonic = time.monotonic,
    ) -> None:
        self._store, self._tokens, self._foreign = store, tokens, foreign
        self._clock, self._lockout = clock, lockout
        # An address shares many people; only a flood of different wrong secrets closes it.
        self._flood = Lockout(guesses=1_000, repeats=10_000, seconds=10.0, now=now)
        self._cache, self._now = cache, now
        self._pending: dict[str, tuple[int, asyncio.Task[_Found]]] = {}
        self._away_until = 0.0  # Postgres did not answer: known credentials don't wait for it

    async def authenticate(self, headers: Mapping[bytes, bytes], address: str) -> Principal | None:
        """The principal of the request's credential; None when it has none.

        Raises Problem: 401 for a credential that is wrong, revoked or expired, 429 for a sender
        that is locked out. Raises DatabaseUnavailable when it can't be told.
        """
        secret, by_cookie = credential_of(headers)
        if secret is None:
            return None
        if len(secret) > _MAX_CREDENTIAL:
            raise unauthorized()
        digest = secret_hash(secret)
        if by_cookie:
            digest = "cookie:" + digest
        entry = self._cache.get(digest, FRESH_SECONDS)
        if entry is not None and entry.principal is not None and not self._expired(entry):
            return entry.principal
        subject = (address, _subject(secret))
        self._lockout.check(subject)
        self._flood.check(address)
        if entry is None:
            found = await self._found(secret, digest, by_cookie)
            principal = found.principal
        else:
            principal = None
        if principal is None:
            self._lockout.failed(digest, subject)
            self._flood.failed(digest, address)
            raise unauthorized()
        return principal

    def _expired(self, entry: _Entry) -> bool:
        return entry.expires_at is not None and entry.expires_at <= self._clock.now()

    async def _found(self, secret: str, digest: str, by_cookie: bool) -> _Found:
        """Look up, once for all who ask meanwhile. Raises DatabaseUnavailable."""
        known = self._cache.get(digest, STALE_SECONDS)
        if known is not None and (known.principal is None or self._expired(known)):
            known = None
        if known is not None and self._now() < self._away_until:
            return _Found(known.principal)
        generation = self._cache.generation
        pending = self._pending.get(digest)
        if pending is None or pending[0] != generation:
            asked = asyncio.create_task(self._ask(secret, digest, by_cookie, generation))
            pending = self._pending[digest] = (generation, asked)
        try:
            return await asyncio.shield(pending[1])
        except DatabaseUnavailable:
            self._away_until = self._now() + _AWAY_SECONDS
            if known is None:
                raise
            return _Found(known.principal)

    async def _ask(self, secret: str, digest: str, by_cookie: bool, generation: int) -> _Found:
        try:
            found = await self._look_up(secret, by_cookie)
            self._cache.put(digest, found, generation)
            return found
        finally:
            if self._pending.get(digest, (None,))[0] == generation:
                del self._pending[digest]

    async def _look_up(self, secret: str, by_cookie: bool) -> _Found:
        if by_cookie:
            session = await self._store.get_session_by_cookie(secret_hash(secret))
            return await self._of_session(session, by_cookie=True)
        if secret.startswith(API_KEY_PREFIX):
            return await self._of_api_key(secret)
        if secret.startswith(AGENT_KEY_PREFIX):
            return await self._of_agent_key(secret)
        if secret.count(".") == 2:
            return await self._of_token(secret)
        return _WRONG

    async def _of_api_key(self, secret: str) -> _Found:
        key = await self._store.get_api_key(lookup_prefix(secret))
        if key is None:
            return _WRONG
        digest, expires_at = secret_hash(secret), key.expires_at
        if not hmac.compare_digest(key.hash, digest):
            if not hmac.compare_digest(key.previous_hash, digest):
                return _WRONG
            expires_at = min(key.previous_until, expires_at or key.previous_until)
        tags = (("api_key", key.id),)
        if key.revoked or self._past(expires_at):
            return _Found(None, tags)
        actor = Actor("api_key", key.id, key.name)
        principal = Principal(key.tenant, actor, key.roles, key.scopes, key_id=key.id)
        return _Found(principal, tags, expires_at)

    async def _of_agent_key(self, secret: str) -> _Found:
        agent = await self._store.get_agent_key(lookup_prefix(secret))
        if agent is None or not hmac.compare_digest(agent.hash, secret_hash(secret)):
            return _WRONG
        tags = (("agent", agent.id),)
        if agent.revoked:
            return _Found(None, tags)
        principal = Principal(
            agent.tenant,
            Actor("agent", agent.id, agent.name),
            key_id=agent.id,
            room_scopes=agent.room_scopes,
            claimed=agent.claimed,
        )
        return _Found(principal, tags)

    async def _of_token(self, token: str) -> _Found:
        if self._foreign.may_know(token):
            try:
                email, expires_at = await self._foreign.verify(token)
            except BadToken:
                return _WRONG
            user = await self._store.get_user_by_email(email)
            return self._of_user(user, None, by_cookie=False, expires_at=expires_at)
        try:
            claims = self._tokens.verify(token)
        except BadToken:
            return _WRONG
        session = await self._store.get_session(claims.sid)
        if session is None or session.user_id != claims.sub:
            return _WRONG
        return await self._of_session(session, by_cookie=False, expires_at=claims.exp * 1_000_000)

    async def _of_session(
        self, session: Session | None, *, by_cookie: bool, expires_at: int | None = None
    ) -> _Found:
        if session is None:
            return _WRONG
        if session.revoked or self._past(session.expires_at):
            return _Found(None, (("session", session.id), ("user", session.user_id)))
        bounds = [at for at in (expires_at, session.expires_at) if at is not None]
        user = await self._store.get_user(session.user_id)
        return self._of_user(
            user, session, by_cookie=by_cookie, expires_at=min(bounds, default=None)
        )

    def _of_user(
        self,
        user: User | None,
        session: Session | None,
        *,
        by_cookie: bool,
        expires_at: int | None,
    ) -> _Found:
        if user is None:
            return _WRONG
        tags: tuple[Tag, ...] = (("user", user.id),)
        if session is not None:
            tags += (("session", session.id),)
        if not user.active:
            return _Found(None, tags)
        principal = Principal(
            user.tenant,
            Actor("user", user.id, user.name or user.email),
            user.roles,
            user.scopes,
            session_id=session.id if session else "",
            email=user.email,
            by_cookie=by_cookie,
        )
        return _Found(principal, tags, expires_at)

    def _past(self, instant: int | None) -> bool:
        return instant is not None and instant <= self._clock.now()


def credential_of(headers: Mapping[bytes, bytes]) -> tuple[str | None, bool]:
    """The secret that a request carries, and whether it came in the cookie. Raises Problem (401)
    for an Authorization header that is no bearer token."""
    key = headers.get(b"x-wax-key")
    if key:
        return key.decode("latin-1").strip(), False
    authorization = headers.get(b"authorization")
    if authorization:
        scheme, _, value = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise unauthorized()
        return value.strip(), False
    cookie = headers.get(b"cookie")
    if cookie and b"sessionid" in cookie:
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(cookie.decode("latin-1"))
        except CookieError:
            return None, False
        morsel = jar.get("sessionid")
        if morsel is not None and morsel.value:
            return morsel.value, True
    return None, False


def _subject(secret: str) -> str:
    """What stays the same while somebody guesses the rest."""
    if secret.startswith((API_KEY_PREFIX, AGENT_KEY_PREFIX)):
        return lookup_prefix(secret)
    return "token"


def unauthorized(message: str = "Missing or invalid credentials") -> Problem:
    """The 401; it never says which part was wrong."""
    return Problem(
        401, "unauthorized", message, headers={"www-authenticate": 'Bearer realm="weir"'}
    )
