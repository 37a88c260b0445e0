"""The identity API over memory: real deciders, real reducers, rows in dicts.

The queries are answered in Python here; `tests/integration/test_identity.py` runs the same
endpoints with the real SQL.
"""

import json
from collections.abc import Sequence
from typing import Any

from argon2 import PasswordHasher

from api.app import build_app
from api.identity import ROUTES
from api.identity.email import email_hash
from api.identity.forgetting import forgotten
from api.identity.guessing import CACHE, PasswordGuard
from api.identity.passwords import Passwords
from api.identity.store import PostgresCredentials
from commands.identity.email import DIRECTORY, ConfirmEmail
from commands.identity.user import RegisterUser
from commands.tenancy.tenant import CreateTenant
from infra.ids import new_id
from projections import VIEWS
from projections.identity import api_keys, email_owners, sessions, users
from projections.statements import Delete, Put, View
from projections.tenancy import tenants
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from streams.effects import Recorded
from tests.api.harness import OTHER_TENANT, TENANT, Harness

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery staple"

Row = dict[str, Any]


class World(Harness):
    """`async with World() as world:` has two tenants; `register` makes people who can log in."""

    def __init__(self) -> None:
        super().__init__(ROUTES, apply=self._apply)
        self.monotonic = 0.0  # what the guard's counters take for the time
        self.tables: dict[str, dict[tuple[Any, ...], Row]] = {}
        self.services.credentials = PostgresCredentials(self.reads)
        self.app = build_app(self.services, ROUTES)
        self.guard = PasswordGuard(self.bus, Passwords(CHEAP), now=lambda: self.monotonic)
        self.services.caches[CACHE] = self.guard
        self._answer_queries()

    async def __aenter__(self) -> "World":
        await super().__aenter__()
        for tenant in (TENANT, OTHER_TENANT):
            await self.command(tenant, tenant, CreateTenant(f"Tenant {tenant}"))
        return self

    async def command(self, tenant: str, id: str, command: Any) -> None:
        request = CommandRequest(
            tenant=tenant, stream_id=id, command=command, actor=SYSTEM, command_id=new_id("cmd")
        )
        reply = await self.bus.send(request)
        assert reply.status == "accepted", reply

    async def register(
        self, email: str, tenant: str = TENANT, roles: Sequence[Any] = ("admin",)
    ) -> str:
        """A user with PASSWORD; returns the id."""
        user_id, digest = new_id("usr"), email_hash(email)
        kept = CHEAP.hash(PASSWORD)
        command = RegisterUser(email, digest, email.partition("@")[0], list(roles), kept)
        await self.command(tenant, user_id, command)
        await self.command(DIRECTORY, digest, ConfirmEmail(user_id, tenant))
        return user_id

    async def log_in(self, email: str, password: str = PASSWORD) -> Row:
        """The body of a login that must succeed."""
        response = await self.client.post(
            "/api/v1/auth/token", json={"email": email, "password": password}
        )
        assert response.status_code == 200, response.text
        self.client.cookies.clear()
        body: Row = response.json()
        return body

    async def _apply(self, events: Sequence[Recorded]) -> None:
        for envelope, event in events:
            for view in VIEWS:
                for statement in view.reduce(event, envelope):
                    self._write(view, statement)
            changed = forgotten(envelope.type, envelope.stream)
            if changed is not None:
                self.services.credential_cache.drop(*changed)

    def _write(self, view: View, statement: Any) -> None:
        table = self.tables.setdefault(view.name, {})
        key = tuple(statement.key[name] for name in view.key)
        if isinstance(statement, Delete):
            table.pop(key, None)
            return
        values = {
            name: json.loads(value) if view.columns[name] == "jsonb" else value
            for name, value in statement.values.items()
        }
        if isinstance(statement, Put):
            table.setdefault(key, dict(statement.key)).update(values)
        elif key in table:
            table[key].update(values)

    def rows(self, view: str) -> list[Row]:
        return list(self.tables.get(view, {}).values())

    def _joined(self) -> list[Row]:
        people = {row["user_id"]: row for row in self.rows("users")}
        return [
            {**row, "outdated": row["epoch"] != people[row["user_id"]]["epoch"]}
            for row in self.rows("sessions")
        ]

    def _active(self, tenant: str, user: str, now: int) -> list[Row]:
        found = [
            row
            for row in self._joined()
            if (row["tenant"], row["user_id"]) == (tenant, user)
            and not row["ended"]
            and not row["outdated"]
            and row["expires_at"] > now
        ]
        return sorted(found, key=lambda row: (row["opened_at"], row["session_id"]), reverse=True)

    def _owner(self, digest: str) -> list[Row]:
        owners = [row for row in self.rows("email_owners") if row["email_hash"] == digest]
        return [row for o in owners for row in self.rows("users") if row["user_id"] == o["user_id"]]

    def _answer_queries(self) -> None:
        def where(rows: Any, **values: Any) -> list[Row]:
            return [row for row in rows if all(row[k] == v for k, v in values.items())]

        when = self.reads.when
        when(tenants.BY_ID, lambda t: where(self.rows("tenants"), tenant=t))
        when(users.BY_ID, lambda u: where(self.rows("users"), user_id=u))
        when(email_owners.USER_BY_EMAIL, self._owner)
        when(sessions.BY_ID, lambda s: where(self._joined(), session_id=s))
        when(sessions.BY_COOKIE, lambda c: where(self._joined(), cookie_hash=c))
        when(
            sessions.OF_USER_BY_ID,
            lambda t, u, s: where(self._joined(), tenant=t, user_id=u, session_id=s),
        )
        when(
            sessions.ACTIVE_OF_USER,
            lambda t, u, now, limit, offset: self._active(t, u, now)[offset : offset + limit],
        )
        when(
            sessions.COUNT_ACTIVE_OF_USER,
            lambda t, u, now: [{"total": len(self._active(t, u, now))}],
        )
        when(
            api_keys.BY_PREFIX,
            lambda p, previous: (
                where(self.rows("api_keys"), prefix=p)
                or where(self.rows("api_keys"), previous_prefix=previous)
            ),
        )
        when(
            api_keys.OF_TENANT_BY_ID,
            lambda t, k: where(self.rows("api_keys"), tenant=t, key_id=k),
        )
        when(api_keys.PAGE, self._page)

    def _page(self, tenant: str, created_at: int, key_id: str, limit: int) -> list[Row]:
        found = [
            row
            for row in self.rows("api_keys")
            if row["tenant"] == tenant and (row["created_at"], row["key_id"]) < (created_at, key_id)
        ]
        found.sort(key=lambda row: (row["created_at"], row["key_id"]), reverse=True)
        return found[:limit]


def bearer(tokens: Row) -> dict[str, str]:
    """The header of a login's access token."""
    return {"Authorization": f"Bearer {tokens['access_token']}"}
