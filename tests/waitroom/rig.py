"""Waitroom's roles as processes by a clock that the test moves, their killer, and a client."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import mmap
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
from joserfc import jwt
from joserfc.jwk import OctKey

from api.identity.email import email_hash, normalise
from api.provision import Installation, connected, provision_tenant
from commands.identity.email import DIRECTORY, ConfirmEmail, ReserveEmail
from commands.identity.user import RegisterUser
from infra.embedded.part import Launch, ProcessPart
from infra.embedded.ports import free_port
from infra.embedded.stack import CHECKOUT, Stack
from infra.embedded.supervisor import Supervised
from infra.ids import new_id
from infra.kafka import LogUnavailable, create_topics
from projections.identity.users import USERS
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest, OutcomeUnknown
from tests.stack import fresh_stores

S = TypeVar("S")
T = TypeVar("T")

GROUPS = (("api", "analytics"), ("decider",), ("scheduler",), ("streams",))
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = (0.5, 3.0)
SECRET = "the secret of another issuer, whose people are ours"
_FAR = 4_000_000_000  # seconds; no token of the test's ends before


class Clock:
    """The clock of all roles: the machine's, and so far ahead as the test has moved it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8))
        with path.open("r+b") as held:
            self._ahead = mmap.mmap(held.fileno(), 8)

    def advance(self, minutes: int) -> None:
        """Move it forward."""
        ahead = int.from_bytes(self._ahead[:8], "little") + minutes * 60_000_000
        self._ahead[:8] = ahead.to_bytes(8, "little")


class Rig:
    """The roles, each group a supervised process. `call` is a careful client of them."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.settings = dataclasses.replace(
            fresh_stores(stack, folder),
            port=free_port(),
            public_url="",
            rate_limit_per_minute=0,
            jwt_hs256_secret=SECRET,
        )
        self.clock = Clock(folder / "clock")
        environment = {**stack.env(), **self.settings.to_env()}
        self.parts = {
            "+".join(group): Supervised(self._part(group), folder / f"{group[0]}.log", environment)
            for group in GROUPS
        }
        self.repeats = 0
        self._addresses = itertools.count(2)

    def _part(self, group: tuple[str, ...]) -> ProcessPart:
        module = (sys.executable, "-m", "tests.waitroom.role_child")
        command = (*module, str(self.clock.path), *group)
        return ProcessPart("+".join(group), Launch(command, {}, CHECKOUT), frozenset(group))

    def start(self) -> None:
        """Start everything and wait until it serves."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._await(create_topics(self.settings.kafka_bootstrap_servers, self.settings.partitions))
        for part in self.parts.values():
            part.start()
        for part in self.parts.values():
            part.wait_ready()
        self._stack = contextlib.AsyncExitStack()
        connecting = self._stack.enter_async_context(connected(self.settings))
        self.installation: Installation = self._await(connecting)
        self._client = self._connect("127.0.0.1")
        self.workers = ThreadPoolExecutor(64)

    def stop(self) -> None:
        """End everything."""
        self.workers.shutdown()
        self._client.close()
        self._await(self._stack.aclose())
        for part in self.parts.values():
            part.halt()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _connect(self, address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(
            local_address=address, limits=httpx.Limits(max_connections=64)
        )
        return httpx.Client(base_url=self.settings.public_url, transport=transport, timeout=75)

    # People.

    def tenant(self, people: int = 2) -> tuple[str, list[tuple[str, str, dict[str, str]]]]:
        """A new tenant's id, and its people: their ids, their names and their headers."""
        return self._await(self._provision(people))

    async def _provision(self, people: int) -> tuple[str, list[tuple[str, str, dict[str, str]]]]:
        email = f"{new_id('root')}@weir.example"
        made = await provision_tenant(self.installation, name="Acme", email=email)
        users = f"SELECT user_id, name FROM {USERS.table} WHERE tenant = %s"
        owner = await self.installation.reads.one(users, made.tenant_id)
        assert owner is not None
        others = (self._register(made.tenant_id, f"person {n}") for n in range(1, people))
        return made.tenant_id, [
            (owner["user_id"], owner["name"], person_headers(email)),
            *await asyncio.gather(*others),
        ]

    async def _register(self, tenant: str, name: str) -> tuple[str, str, dict[str, str]]:
        email, user = normalise(f"{new_id('person')}@weir.example"), new_id("usr")
        digest = email_hash(email)
        await self._send(DIRECTORY, digest, ReserveEmail(user, tenant))
        await self._send(tenant, user, RegisterUser(email, digest, name, ["admin"], "$argon2id$"))
        await self._send(DIRECTORY, digest, ConfirmEmail(user, tenant))
        return user, name, person_headers(email)

    def timers(self, tenant: str) -> int:
        """How many timers of check-ins a tenant has."""
        sql = "SELECT count(*) AS n FROM timers WHERE tenant = %s AND stream LIKE %s"
        found = self._await(self.installation.reads.one(sql, tenant, "approvals.check_in/%"))
        assert found is not None
        return int(found["n"])

    async def _send(self, tenant: str, stream_id: str, command: Any) -> None:
        request = CommandRequest(
            tenant=tenant,
            stream_id=stream_id,
            command=command,
            actor=SYSTEM,
            command_id=new_id("cmd"),
            fingerprint="once",
        )
        while True:
            with contextlib.suppress(OutcomeUnknown, LogUnavailable):
                assert (await self.installation.bus.send(request)).status == "accepted"
                return

    # Requests.

    def call(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Any = None,
        *,
        key: str = "",
        stranger: bool = False,
    ) -> httpx.Response:
        """The answer to a request, repeated with its key until there is one.

        stranger: from an address that nobody has come from. Raises AssertionError on an answer that
        may never be, and when there is none for long.
        """
        if method != "GET":
            headers = headers | {"Idempotency-Key": key or new_id("request")}
        client = self._connect(f"127.0.1.{next(self._addresses) % 250 + 2}") if stranger else None
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while True:
                seen = "no answer"
                try:
                    asked = (client or self._client).request
                    answer = asked(method, path, headers=headers, json=body)
                except httpx.TransportError as error:
                    seen = repr(error)
                else:
                    if answer.status_code < 500:
                        return answer
                    seen = f"{answer.status_code} {answer.text}"
                    assert answer.status_code == 503, f"{method} {path}: {seen}"
                    assert "retry-after" in answer.headers, seen
                assert time.monotonic() < deadline, f"{method} {path} had no answer: {seen}"
                self.repeats += 1
                time.sleep(0.1)
        finally:
            if client is not None:
                client.close()

    def at_once(self, ask: Callable[[S], T], asked: Sequence[S]) -> list[T]:
        """What each of some asks gives, all of them in flight at once."""
        return list(self.workers.map(ask, asked))

    @contextlib.contextmanager
    def following(
        self, path: str, headers: dict[str, str], after: str
    ) -> Iterator[Iterator[tuple[str, str, Any]]]:
        """The id, name and data of a stream's events behind a position, across reconnections."""
        with contextlib.ExitStack() as stack:
            yield self._events(path, headers, after, stack)

    def _events(
        self, path: str, headers: dict[str, str], last: str, stack: contextlib.ExitStack
    ) -> Iterator[tuple[str, str, Any]]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                resumed = headers | {"Last-Event-ID": last}
                streaming = self._client.stream("GET", path, headers=resumed, timeout=20)
                response = stack.enter_context(streaming)
                fields: dict[str, str] = {}
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    if line and name:
                        fields[name] = value
                        continue
                    if not line:
                        last = fields.get("id", last)
                        if "event" in fields:
                            yield last, fields["event"], json.loads(fields["data"])
                        fields = {}
            except httpx.TransportError:
                stack.close()
                self.repeats += 1
                time.sleep(0.1)
        raise AssertionError(f"{path} told no more behind {last}")


def person_headers(email: str) -> dict[str, str]:
    """What a person of the foreign issuer shows."""
    key = OctKey.import_key(SECRET)
    token = jwt.encode({"alg": "HS256"}, {"email": email, "exp": _FAR}, key)
    return {"Authorization": f"Bearer {token}"}


class Killer(threading.Thread):
    """kill -9 of one or two roles of a seed's choosing, again and again until it is told to stop.

    They are back before the next are killed, so that a slow machine gets anywhere. schedule: what
    was killed and when.
    """

    def __init__(self, rig: Rig, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._rig, self._random = rig, random.Random(seed)
        self._over = threading.Event()
        self.schedule: list[str] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._kill()
        except Exception as error:
            self.error = error

    def _kill(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._random.uniform(*PAUSE_SECONDS)):
            names = self._random.sample(list(self._rig.parts), self._random.choice([1, 1, 2]))
            self.schedule.append(f"{time.monotonic() - began:.1f} s {' and '.join(names)}")
            for name in names:
                self._rig.parts[name].kill()
            for name in names:
                self._rig.parts[name].wait_ready()

    def finish(self) -> None:
        """No more kills; return when everything serves again. Raises what went wrong."""
        self._over.set()
        self.join()
        if self.error is not None:
            raise self.error
