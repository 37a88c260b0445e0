"""Waitroom over HTTP, on a whole installation: `python -m bench --only waitroom`.

An agent asks and looks at the status, with 1, 32 and 256 in flight. A person approves while an
agent follows the room and has a webhook: from the request until the event has come by the stream,
and until the webhook has. A signal to a crowd that listens. The list of what waits, with 100,000
check-ins in the room, which are copied into the read model: making them one by one is what the
first figure measures.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from api.approvals.envelopes import cursor_of
from bench.arrival import Arrival
from bench.connection import KeptConnection
from bench.figure import Figure, Timed, timed, timed_of
from bench.installation import installation
from infra.embedded.stack import settings_of
from projections.approvals.check_ins import CHECK_INS
from tests.integration.webhook_rig import Receiver, answer
from tests.waitroom.crowd import listening

IN_FLIGHT = (1, 32, 256)
DECISIONS_IN_FLIGHT = (1, 32)
LISTENERS = 1_000  # as many as a tenant may have open
STORED = 100_000
_ASK = {"action": "pay_invoice", "context": {"amount": 1250, "vendor": "Acme"}}
_EGRESS = {"WEIR_EGRESS_ALLOW": "127.0.0.0/8"}


def bearer(secret: str) -> dict[str, str]:
    """The headers of a key or token."""
    return {"Authorization": f"Bearer {secret}"}


class Bench:
    """What the parts of this bench share: an installation, its credentials, and a room."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.port = int(known["url"].rpartition(":")[2])
        self.person, self.agent = bearer(known["admin_token"]), bearer(known["agent_key"])
        self.room = ""

    async def open(self, headers: dict[str, str]) -> KeptConnection:
        """A connection of somebody's."""
        connection = KeptConnection(self.port, headers)
        await connection.open()
        return connection

    async def make_room(self) -> None:
        """A room whose check-ins wait for a person."""
        person = await self.open(self.person)
        made = await person.ask("POST", "/v1/rooms", {"name": f"Payments {time.time_ns()}"})
        self.room = f"/v1/rooms/{made['slug']}"
        person.close()


async def check_ins(it: Bench, seconds: float) -> list[Figure]:
    """A check-in, and then its status."""
    figures = []
    connections = [await it.open(it.agent) for _ in range(max(IN_FLIGHT))]
    for in_flight in IN_FLIGHT:
        free = connections[:in_flight]

        async def ask(free: list[KeptConnection] = free) -> None:
            connection = free.pop()
            made = await connection.ask("POST", f"{it.room}/check-in", _ASK)
            await connection.ask("GET", f"/v1/check-ins/{made['id']}/status")
            free.append(connection)

        await timed(ask, in_flight, 1)
        found = await timed(ask, in_flight, seconds)
        figures.append(_figure(f"check-in and its status over HTTP, {in_flight} in flight", found))
    for connection in connections:
        connection.close()
    return figures


class Flight:
    """An agent that asks, a person that approves, and how long until the agent hears of it."""

    def __init__(self, it: Bench, receiver: Receiver) -> None:
        self._it, self._receiver = it, receiver
        self._arrival = Arrival()
        self.by_stream: list[float] = []
        self.by_webhook: list[float] = []

    async def begin(self) -> None:
        """Register the agent, follow the room and watch it."""
        self._person = await self._it.open(self._it.person)
        made = await self._person.ask("POST", "/v1/agents/register", {"name": "Robby"})
        key = bearer(made["api_key"])
        self._agent, self._stream = await self._it.open(key), await self._it.open(key)
        await self._stream.listen(f"{self._it.room}/events")
        watch = {
            "event_types": ["check_in.decided"],
            "filter": {"agent_id": made["agent"]["id"]},
            "webhook_url": self._receiver.endpoint(self._arrival.told(answer(204))),
        }
        await self._agent.ask("POST", f"{self._it.room}/watch", watch)

    async def run(self, seconds: float) -> None:
        """Ask, approve and wait for both, one after the other."""
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            made = await self._agent.ask("POST", f"{self._it.room}/check-in", _ASK)
            self._arrival.expect()
            came = asyncio.create_task(self._decided(made["id"]))
            start = time.perf_counter()
            await self._person.ask("POST", f"/v1/check-ins/{made['id']}/approve", {})
            self.by_stream.append(await came - start)
            await self._arrival.wait()
            self.by_webhook.append(self._arrival.at - start)

    async def _decided(self, id: str) -> float:
        await self._stream.until(id.encode(), b"decision_id")
        return time.perf_counter()


async def decisions(it: Bench, seconds: float) -> list[Figure]:
    """From a person's request until the agent hears of it."""
    figures = []
    async with Receiver() as receiver:
        flights = [Flight(it, receiver) for _ in range(max(DECISIONS_IN_FLIGHT))]
        for flight in flights:
            await flight.begin()
        await flights[0].run(1)
        for in_flight in DECISIONS_IN_FLIGHT:
            flown = flights[:in_flight]
            for flight in flown:
                flight.by_stream.clear()
                flight.by_webhook.clear()
            began = time.perf_counter()
            await asyncio.gather(*(flight.run(seconds) for flight in flown))
            took = time.perf_counter() - began
            for what in ("stream", "webhook"):
                spent = [each for one in flown for each in getattr(one, f"by_{what}")]
                name = f"decision to its {what}, {in_flight} in flight"
                figures.append(_figure(name, timed_of(spent, took)))
    return figures


async def listeners(it: Bench, seconds: float) -> list[Figure]:
    """From a person's signal until all who listen to the room have it."""
    person, spent = await it.open(it.person), list[float]()
    async with listening(it.port, f"{it.room}/events", it.agent, LISTENERS) as crowd:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            name = f"signal-{len(spent)}"
            start = time.perf_counter()
            await person.ask("POST", f"{it.room}/signal", {"type": name})
            await asyncio.gather(*(one.until(f'"{name}"'.encode()) for one in crowd))
            spent.append(time.perf_counter() - start)
        took = time.perf_counter() - began
    name = f"signal until all of {LISTENERS:,} listeners have it"
    return [_figure(name, timed_of(spent, took))]


def store(database: str, id: str) -> tuple[int, str]:
    """Copy a check-in many times, so that many wait; where nine tenths of them lie behind.

    One in a hundred is critical, one in a thousand is another agent's.
    """
    changed = {
        "id": "'ci_' || lpad(n::text, 26, '0')",
        "created_at": "created_at - n",
        "risk_level": "CASE WHEN n %% 100 = 7 THEN 'critical' ELSE risk_level END",
        "agent_id": "CASE WHEN n %% 1000 = 7 THEN 'agt_rare' ELSE agent_id END",
    }
    columns = ", ".join(changed.get(name, name) for name in CHECK_INS.columns)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO {CHECK_INS.table} SELECT {columns} FROM {CHECK_INS.table}, "
            f"generate_series(1, {STORED}) AS n WHERE id = %s".encode(),
            (id,),
        )
        connection.execute(f"VACUUM ANALYZE {CHECK_INS.table}".encode())
        row = connection.execute(
            f"SELECT created_at - {STORED * 9 // 10} FROM {CHECK_INS.table} WHERE id = %s".encode(),
            (id,),
        ).fetchone()
    assert row is not None
    return int(row[0]), ""


async def pending(it: Bench, database: str, seconds: float) -> list[Figure]:
    """Pages of what waits."""
    await it.make_room()
    agent, person = await it.open(it.agent), await it.open(it.person)
    made = await agent.ask("POST", f"{it.room}/check-in", _ASK)
    deep = cursor_of(*await asyncio.to_thread(store, database, made["id"]))
    figures = []
    for name, query in (
        ("the first page", ""),
        ("behind a deep cursor", f"cursor={deep}"),
        ("of one risk in a hundred", "risk_level=critical"),
        ("of one agent in a thousand", "agent_id=agt_rare"),
        ("of a status that none has", "status=rejected"),
    ):

        async def look(query: str = query) -> None:
            await person.send("GET", f"{it.room}/pending?{query}")

        await look()
        found = await timed(look, 1, seconds / 2)
        figures.append(_figure(f"pending list with {STORED:,} in the room, {name}", found))
    return figures


def _figure(name: str, found: Timed) -> Figure:
    figure = Figure(name=name, bare="", ours=str(found))
    print(figure.line(), flush=True)
    return figure


async def run(data: Path, seconds: float) -> list[Figure]:
    """All parts, one after the other."""
    it = Bench(json.loads((data / "credentials.json").read_text()))
    await it.make_room()
    parts: list[Callable[[], Awaitable[list[Figure]]]] = [
        lambda: check_ins(it, seconds),
        lambda: decisions(it, seconds),
        lambda: listeners(it, seconds),
        lambda: pending(it, settings_of(data).database_url, seconds),
    ]
    return list(itertools.chain.from_iterable([await part() for part in parts]))


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        data = Path(folder, "data")
        with installation(data, _EGRESS):
            return uvloop.run(run(data, seconds))


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
