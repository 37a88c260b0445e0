"""Makes a tenant with its owner and keys: the first one of an installation, or one more.

Every id and secret is derived from the master secret and the owner's address, and what exists
already is left alone. So it may be repeated, after any crash and at every start, and yields the
same credentials without anybody having stored them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import psycopg
from msgspec import Struct

from api.credentials import AGENT_KEY_PREFIX, API_KEY_PREFIX, lookup_prefix
from api.identity.email import email_hash, normalise
from api.identity.passwords import Passwords
from api.identity.secrets import cookie_hash
from api.services import Reads
from api.tokens import BadToken, TokenIssuer
from commands.approvals.agent import RegisterAgent
from commands.billing.account_state import AssignPlan
from commands.billing.plans import PlanCode
from commands.identity.api_key import IssueApiKey
from commands.identity.email import DIRECTORY, ConfirmEmail, ReserveEmail
from commands.identity.session import OpenSession, SessionAnswer
from commands.identity.user import RegisterUser
from commands.tenancy.tenant import CreateTenant
from infra import postgres
from infra.bootstrap import BootstrapError, Credentials
from infra.clock import SYSTEM_CLOCK, Clock
from infra.config import Settings
from infra.ids import Signer, new_id, secret_hash
from infra.kafka import LogUnavailable
from projections.approvals import agents
from projections.identity import api_keys, email_owners, sessions, users
from projections.tenancy import tenants
from schemas.billing.account import ACCOUNT_ID
from schemas.envelope import SYSTEM
from schemas.identity.roles import ROLES
from streams.bus import CommandBus, CommandRequest, OutcomeUnknown, Reply
from streams.runtime import command_bus

TENANT_NAME = "Default"
ADMIN_EMAIL = "admin@weir.local"
DEADLINE_SECONDS = 90.0
_TOKEN_LEFT_MICROS = 24 * 3600 * 1_000_000  # an earlier token with less than a day left is renewed
_KEYS_MAX = 1_000


class Installation(Struct, frozen=True):
    """What provisioning works with: the way to the deciders, the read models, the secrets."""

    settings: Settings
    bus: CommandBus
    reads: Reads
    signer: Signer
    clock: Clock = SYSTEM_CLOCK


async def provision(settings: Settings, earlier: Credentials | None = None) -> Credentials:
    """The first tenant's credentials; `earlier` are those of the last start, if any.

    The deciders must be running. Raises BootstrapError.
    """
    async with connected(settings) as installation:
        return await provision_tenant(
            installation, name=TENANT_NAME, email=ADMIN_EMAIL, earlier=earlier
        )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Installation]:
    """An installation on the configured servers. Raises BootstrapError when Kafka is away."""
    bus, reads = command_bus(settings), postgres.Reads(settings.database_url)
    try:
        await bus.start()
    except LogUnavailable as error:
        raise BootstrapError(f"Kafka cannot be reached: {error}") from error
    try:
        await reads.start()
        yield Installation(settings, bus, reads, Signer(settings.secret_key))
    finally:
        await reads.stop()
        await bus.stop()


async def provision_tenant(
    installation: Installation,
    *,
    name: str,
    email: str,
    earlier: Credentials | None = None,
    plan: PlanCode | None = None,
) -> Credentials:
    """A tenant called `name` whose owner logs in with `email`, made or found again.

    plan: which holds for it from now on; the one that holds already, unless given.

    A key that was revoked or rotated meanwhile is replaced by the next one. `admin_password` is
    empty when the owner has chosen another. Raises BootstrapError: no answer in time, or the
    address is another tenant's.
    """
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await _Provisioning(installation, name, normalise(email)).run(earlier, plan)
    except TimeoutError as error:
        raise BootstrapError(
            f"the deciders have not answered within {DEADLINE_SECONDS:.0f} s: are they running?"
        ) from error
    except postgres.DatabaseUnavailable as error:
        raise BootstrapError(f"PostgreSQL cannot be reached: {error}") from error
    except psycopg.errors.UndefinedTable as error:
        raise BootstrapError("there are no read models yet: start a decider first") from error


class _Provisioning:
    def __init__(self, installation: Installation, name: str, email: str) -> None:
        self._to, self._signer = installation, installation.signer
        self._name, self._email = name, email
        self._tenant = self._id("ten")
        self._user = self._id("usr")

    async def run(self, earlier: Credentials | None, plan: PlanCode | None) -> Credentials:
        known = await self._to.reads.one(tenants.BY_ID, self._tenant)
        if known is None or known["name"] != self._name:
            await self._send(self._tenant, CreateTenant(self._name))
        if plan is not None:
            await self._send(ACCOUNT_ID, AssignPlan(plan))
        password = await self._owner()
        return Credentials(
            url=self._to.settings.public_url,
            kafka=self._to.settings.kafka_bootstrap_servers,
            tenant_id=self._tenant,
            api_key=await self._api_key(),
            agent_key=await self._agent_key(),
            admin_email=self._email,
            admin_password=password,
            admin_token=await self._token(earlier),
        )

    async def _owner(self) -> str:
        """Register the owner; returns the password, or nothing when they have chosen another."""
        password = self._derived("password")[-24:]
        digest, passwords = email_hash(self._email), Passwords()
        row = await self._to.reads.one(users.BY_ID, self._user)
        if row is None:
            reserve = ReserveEmail(self._user, self._tenant)
            await self._send(digest, reserve, tenant=DIRECTORY)
            kept = await passwords.hash(password)
            register = RegisterUser(self._email, digest, "Administrator", list(ROLES), kept)
            await self._send(self._user, register)
        owner = await self._to.reads.one(email_owners.BY_HASH, digest)
        if owner is None or not owner["confirmed"]:
            confirm = ConfirmEmail(self._user, self._tenant)
            await self._send(digest, confirm, tenant=DIRECTORY)
        if row is None or await passwords.verify(row["password_hash"], password):
            return password
        return ""

    async def _api_key(self) -> str:
        for number in range(_KEYS_MAX):
            secret = self._secret(API_KEY_PREFIX, f"api_key/{number}")
            id, prefix = self._id("key", str(number)), lookup_prefix(secret)
            row = await self._to.reads.one(api_keys.OF_TENANT_BY_ID, self._tenant, id)
            if row is None:
                command = IssueApiKey("Provisioned", prefix, secret_hash(secret), list(ROLES))
                await self._send(id, command)
                return secret
            changed = (row["revoked_at"], row["expires_at"], row["previous_until"])
            if changed == (None, None, None):
                return secret
        raise BootstrapError(f"{_KEYS_MAX} provisioned API keys were revoked or rotated")

    async def _agent_key(self) -> str:
        for number in range(_KEYS_MAX):
            secret = self._secret(AGENT_KEY_PREFIX, f"agent_key/{number}")
            id = self._id("agt", str(number))
            row = await self._to.reads.one(agents.BY_ID, self._tenant, id)
            if row is None:
                prefix = lookup_prefix(secret)
                command = RegisterAgent("Provisioned", prefix, secret_hash(secret))
                await self._send(id, command)
                return secret
            if row["active"]:
                return secret
        raise BootstrapError(f"{_KEYS_MAX} provisioned agents were deactivated")

    async def _token(self, earlier: Credentials | None) -> str:
        """The earlier token while it is good for a day, else one of a new session."""
        issuer = TokenIssuer(self._signer, self._to.clock)
        if earlier is not None and await self._still_good(issuer, earlier.admin_token):
            return earlier.admin_token
        row = await self._to.reads.one(users.BY_ID, self._user)
        if row is None:
            raise BootstrapError("the read models lag behind: start again")
        session_id = new_id("ses")
        command = OpenSession(
            self._user,
            row["epoch"],
            cookie_hash(self._signer, session_id),
            user_agent="weir provision",
        )
        reply = await self._send(session_id, command)
        session = msgspec.json.decode(reply.answer, type=SessionAnswer)
        return issuer.access(
            user_id=self._user,
            session_id=session_id,
            tenant=self._tenant,
            seconds=(session.expires_at - self._to.clock.now()) // 1_000_000,
        )

    async def _still_good(self, issuer: TokenIssuer, token: str) -> bool:
        try:
            claims = issuer.verify(token)
        except BadToken:
            return False
        row = await self._to.reads.one(sessions.BY_ID, claims.sid)
        good_until = self._to.clock.now() + _TOKEN_LEFT_MICROS
        return (
            row is not None
            and row["user_id"] == self._user
            and not row["ended"]
            and not row["outdated"]
            and min(claims.exp * 1_000_000, row["expires_at"]) > good_until
        )

    async def _send(self, stream_id: str, command: Struct, *, tenant: str = "") -> Reply:
        """Send until there is an answer: each of these commands is quiet when it is repeated."""
        request = CommandRequest(
            tenant=tenant or self._tenant,
            stream_id=stream_id,
            command=command,
            actor=SYSTEM,
            command_id=new_id("cmd"),
        )
        while True:
            try:
                reply = await self._to.bus.send(request)
                break
            except (OutcomeUnknown, LogUnavailable):
                await asyncio.sleep(0.2)
        if reply.status != "accepted":
            raise BootstrapError(f"the tenant {self._name!r} cannot be made: {reply.message}")
        return reply

    def _derived(self, purpose: str) -> str:
        return self._signer.secret("", f"provision/{self._email}/{purpose}")

    def _id(self, prefix: str, purpose: str = "") -> str:
        return f"{prefix}_{self._derived(f'{prefix}/{purpose}')[-26:]}"

    def _secret(self, prefix: str, purpose: str) -> str:
        return self._signer.secret(prefix, f"provision/{self._email}/{purpose}")
