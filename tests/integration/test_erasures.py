"""Erasing a user on real servers: nothing of them is left anywhere, whatever dies meanwhile."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from api.provision import connected, provision_tenant
from commands.observability.erasure import CompleteUserErasure, RequestUserErasure
from infra.clickhouse import ClickHouse
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.ids import Signer, new_id
from infra.kafka import create_topics
from infra.objects import Objects
from infra.postgres import Reads
from projections import CLICKHOUSE_VIEWS
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.run_starts import RUN_STARTS
from schemas.envelope import SYSTEM, Envelope
from schemas.topics import topics
from streams.export import Request, export
from streams.observability.erasures import Eraser
from streams.person_keys import PersonKeys
from streams.rebuild_clickhouse import ClickHouseRebuild
from streams.replay import Filter, TopicReader
from streams.runtime import codec
from streams.sealing import Keyring, Seal
from tests.faults.departed import forget_the_dead
from tests.faults.roles import RoleProcess
from tests.integration.analytics_rig import SIGNER, Rig, call, calls, rig_on, started
from tests.integration.test_failpoints_roles import death
from tests.loops import Loops, loops, read_topic

ADA, BOB = "ada.lovelace@example.com", "bob@example.com"
SECRET = "zqx-knee-operation"  # of Ada, in every field that may hold it
ROLES = ("api", "analytics", "decider")
VIEWS = {"run_starts", "run_completions", "llm_calls", "steps", "spans", "scores"}
TRACE = "5b8efff798038103d269b633813fc60c"


class Installed:
    """A tenant of an installation that is served."""

    def __init__(self, settings: Settings, headers: dict[str, str], tenant: str) -> None:
        self.settings, self.tenant = settings, tenant
        self.client = httpx.AsyncClient(base_url=settings.public_url, headers=headers, timeout=60)
        self.positions: dict[str, str] = {}

    async def post(self, path: str, body: Any) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.is_success, answer.text
        if position := answer.headers.get("x-log-position"):
            self.positions[position.rpartition(":")[0]] = position
        return answer.json()

    async def read(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(f"/api/v1/observability/{path}", params=params)
        assert answer.is_success, answer.text
        return answer.json()

    async def settle(self) -> None:
        """Wait until everything posted so far can be read."""
        for position in self.positions.values():
            await self.read("users/", min_position=position)

    async def report(self, user_id: str, secret: str) -> str:
        """A run with one of everything; its id."""
        kept = {"who": user_id, "told": secret}
        run = await self.post(
            "/api/v1/observe/runs/start/",
            {
                "agent_name": "clinic",
                "user_id": user_id,
                "user_group": secret,
                "session_id": f"session of {user_id}",
                "inputs": kept,
                "metadata": kept,
                "unlisted": secret,
            },
        )
        path = f"/api/v1/observe/runs/{run['run_id']}"
        item = {
            "model": "gpt-4o",
            "tokens_in": 1000,
            "tokens_out": 30,
            "prompt_preview": f"{user_id}: {secret}",
            "response_preview": secret,
            "metadata": kept,
        }
        await self.post(f"{path}/llm-calls/", {"calls": [item, item]})
        await self.post(f"{path}/steps/", {"steps": [{"step_name": "ask", "output": kept}]})
        span = {"name": "n", "kind": "tool", "attributes": kept, "input_data": kept}
        await self.post(f"{path}/spans/", {"spans": [{**span, "output_data": kept}]})
        score = {"name": "s", "numeric_value": 0.5, "comment": secret}
        await self.post(f"{path}/scores/", {"scores": [score]})
        manual = {"name": "m", "value": 1, "comment": secret, "metadata": kept}
        manual["run_id"] = run["run_id"]
        await self.post("/api/v1/evaluations/scores/create/", manual)
        await self.post(f"{path}/complete/", {"result": kept, "status": "error", "error": secret})
        return str(run["run_id"])

    async def export_trace(self, user_id: str, secret: str) -> None:
        """The same by OpenTelemetry, in one batch."""
        told = {"user.id": user_id, "gen_ai.operation.name": "chat", "input.value": secret}
        attributes = [{"key": k, "value": {"stringValue": v}} for k, v in told.items()]
        span = {"traceId": TRACE, "name": "root", "spanId": "eee19b7ec3c1b174"}
        child = {**span, "spanId": "eee19b7ec3c1b175", "parentSpanId": "eee19b7ec3c1b174"}
        child |= {"attributes": [{"key": "output.value", "value": {"stringValue": secret}}]}
        spans = [{**span, "attributes": attributes, "status": {"code": 2, "message": secret}}]
        body = {"resourceSpans": [{"scopeSpans": [{"spans": [*spans, child]}]}]}
        await self.post("/v1/traces", body)

    async def erase(self, user_id: str) -> Any:
        answer = await self.client.delete(f"/api/v1/observability/users/{user_id}/")
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def only_erasure(self) -> Any:
        """The one that was asked for, also if Postgres is still to be told of it by the log."""
        async with asyncio.timeout(120):
            while not (found := (await self.read("erasures/"))["results"]):
                continue
        (only,) = found
        return only

    async def receipt(self, erasure_id: str) -> Any:
        """The receipt of an erasure that has come to its end."""
        async with asyncio.timeout(120):
            while True:
                receipt = await self.read(f"erasures/{erasure_id}/")
                if receipt["status"] == "completed":
                    return receipt
                await asyncio.sleep(0.1)

    async def sums(self) -> Any:
        """What must not change: of all calls, and of each model."""
        found = await self.read("llm-calls/", limit=1)
        return found["aggregates"], await self.read("analytics/models/")


@contextlib.asynccontextmanager
async def installed(settings: Settings) -> AsyncIterator[Installed]:
    """A new tenant; the roles run already."""
    async with connected(settings) as installation:
        made = await provision_tenant(
            installation, name="Clinic", email=f"{new_id('usr')}@weir.test"
        )
    it = Installed(settings, {"X-Wax-Key": made.api_key}, made.tenant_id)
    try:
        yield it
    finally:
        await it.client.aclose()


@contextlib.asynccontextmanager
async def again(it: Installed) -> AsyncIterator[None]:
    """The same tenant, whose roles were started anew."""
    headers = it.client.headers
    async with httpx.AsyncClient(
        base_url=it.settings.public_url, headers=headers, timeout=60
    ) as it.client:
        yield


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The object store of all tests here: what they have erased lies on the log that they share."""
    return tmp_path_factory.mktemp("objects").as_uri()


@pytest.fixture
def settings(settings: Settings, one_store: str) -> Settings:
    """As everywhere, but for the object store."""
    return dataclasses.replace(settings, object_store_url=one_store)


@pytest.fixture
async def own(settings: Settings) -> Settings:
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    return dataclasses.replace(settings, port=free_port(), public_url="", rate_limit_per_minute=0)


def kept_by_kafka(settings: Settings, topic: str) -> AsyncIterator[bytes]:
    """The raw bytes of every record of a topic."""

    async def read() -> AsyncIterator[bytes]:
        async with TopicReader(settings.kafka_bootstrap_servers, topic) as reader:
            async for records in reader.read(await reader.spans()):
                for record in records:
                    headers = b"".join(name.encode() + value for name, value in record.headers)
                    yield (record.key or b"") + (record.value or b"") + headers

    return read()


async def kept_by_postgres(settings: Settings) -> AsyncIterator[str]:
    """Every row of every table, as text."""
    async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
        found = await connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        for (table,) in await found.fetchall():
            for row in await (
                await connection.execute(f'SELECT * FROM "{table}"'.encode())
            ).fetchall():
                yield f"{table}: {row!r}"


async def kept_by_clickhouse(engine: ClickHouse) -> AsyncIterator[str]:
    """Every row of every table, duplicates included."""
    tables = await engine.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
    for table in tables:
        for row in await engine.query(f"SELECT * FROM {table['name']} SETTINGS final = 0"):
            yield f"{table['name']}: {row!r}"


def kept_by_the_store(settings: Settings) -> list[bytes]:
    """Every object, its name before it."""
    folder = settings.object_store_folder
    assert folder is not None
    return [str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_an_erased_user_is_nowhere_and_the_numbers_stay(
    own: Settings, tmp_path: Path
) -> None:
    with RoleProcess(own, ROLES) as roles:
        await asyncio.to_thread(roles.wait_ready)
        async with installed(own) as it:
            await it.report(ADA, SECRET)
            await it.report(BOB, "nothing")
            await it.export_trace(ADA, SECRET)
            await it.settle()
            before = await it.sums()
            assert (await it.read(f"users/{ADA}/"))["aggregates"]["run_count"] == 2
            assert (await it.read("llm-calls/", search=SECRET))["count"] == 3
            first = await it.erase(ADA)
            receipt = await it.receipt(first["erasure_id"])
            assert_complete(receipt, own.partitions)
            rows = {line["read_model"]: line["rows"] for line in receipt["read_models"]}
            assert (rows["run_starts"], rows["llm_calls"], rows["scores"]) == (2, 3, 2)
            assert await it.sums() == before
            await assert_only_bob_is_known(it)
            # Once more is the same erasure; a stranger has none.
            assert (await it.erase(ADA))["erasure_id"] == first["erasure_id"]
            stranger = await it.client.delete("/api/v1/observability/users/stranger/")
            assert stranger.status_code == 404
        said = roles.said(10_000_000)
    assert ADA not in said
    assert SECRET not in said
    await assert_servers_keep_nothing(own)
    await assert_views_and_exports_keep_nothing(own, it.tenant, tmp_path / "export")
    with RoleProcess(own, ROLES) as roles:
        await asyncio.to_thread(roles.wait_ready)
        async with again(it):
            await it.report(ADA, "back again")
            await it.settle()
            assert (await it.read(f"users/{ADA}/"))["aggregates"]["run_count"] == 1
            second = await it.erase(ADA)
            await it.receipt(second["erasure_id"])
            listed = (await it.read("erasures/"))["results"]
            assert [each["erasure_id"] for each in listed] == [
                second["erasure_id"],
                first["erasure_id"],
            ]


def assert_complete(receipt: Any, partitions: int) -> None:
    """Every view is in it, in the order of time, with where it stood in each partition."""
    assert {line["read_model"] for line in receipt["read_models"]} == VIEWS
    times = [receipt["requested_at"], receipt["key_dropped_at"]]
    times += [line["erased_at"] for line in receipt["read_models"]]
    times.append(receipt["completed_at"])
    assert times == sorted(times)
    assert {len(line["positions"]) for line in receipt["read_models"]} == {partitions}


async def assert_only_bob_is_known(it: Installed) -> None:
    assert [user["user_id"] for user in (await it.read("users/"))["results"]] == [BOB]
    assert (await it.client.get(f"/api/v1/observability/users/{ADA}/")).status_code == 404
    assert (await it.read("llm-calls/", search=SECRET))["count"] == 0
    shown = (await it.read("llm-calls/"))["results"]
    previews = [(await it.read(f"llm-calls/{call['id']}/"))["prompt_preview"] for call in shown]
    assert sorted(previews) == ["", "", "", f"{BOB}: nothing", f"{BOB}: nothing"]


async def assert_servers_keep_nothing(settings: Settings) -> None:
    """Neither Kafka nor Postgres nor the object store has what was Ada's."""
    for topic in topics():
        async for record in kept_by_kafka(settings, topic):
            assert ADA.encode() not in record, topic
            assert SECRET.encode() not in record, topic
    async for row in kept_by_postgres(settings):
        assert ADA not in row
        assert SECRET not in row
    for stored in kept_by_the_store(settings):
        assert ADA.encode() not in stored
        assert SECRET.encode() not in stored


async def assert_views_and_exports_keep_nothing(
    settings: Settings, tenant: str, folder: Path
) -> None:
    """Views that were rebuilt are as they were; a replay opens Bob's part and nothing of Ada's."""
    engine = ClickHouse(settings.clickhouse_url)
    keys = PersonKeys(Objects(settings.object_store_url), Signer(settings.secret_key))
    try:
        await engine.start()
        for view in CLICKHOUSE_VIEWS:
            if view.personal:
                await assert_rebuilt_alike(settings, engine, view, keys)
        kept = [row async for row in kept_by_clickhouse(engine)]
    finally:
        await engine.stop()
    request = Request(topic="telemetry", format="jsonl", filter=Filter(tenant=tenant))
    keyring = Keyring(keys, codec())
    path, manifest = await export(
        settings.kafka_bootstrap_servers, codec(), request, folder, keyring=keyring
    )
    assert manifest.undecodable == 0
    for text in ("\n".join(kept), path.read_text()):
        assert BOB in text
        assert ADA not in text
        assert SECRET not in text


async def assert_rebuilt_alike(
    settings: Settings, engine: ClickHouse, view: Any, keys: PersonKeys
) -> None:
    """A rebuild makes of the log what the erasure has made of the table."""
    rebuild = ClickHouseRebuild(
        settings.kafka_bootstrap_servers,
        engine,
        view,
        codec(),
        lambda done, total, note: None,
        person_keys=keys,
    )
    report = await rebuild.run()
    assert report.agree, (view.name, report.differences)


@pytest.mark.parametrize(
    "point",
    [
        "erasure.key_destroyed:1",
        "erasure.announced:1",
        "erasure.view_blanked:1",
        "erasure.view_blanked:4",
    ],
)
async def test_an_erasure_whose_eraser_died_goes_on(own: Settings, point: str) -> None:
    with RoleProcess(own, ROLES, point) as dying:
        await asyncio.to_thread(dying.wait_ready)
        async with installed(own) as it:
            await it.report(ADA, SECRET)
            await it.settle()
            before = await it.sums()
            # It may die before it has answered.
            with contextlib.suppress(httpx.TransportError):
                await it.erase(ADA)
            await death(dying)
    await forget_the_dead(own)
    with RoleProcess(own, ROLES) as roles:
        await asyncio.to_thread(roles.wait_ready)
        async with again(it):
            asked = await it.only_erasure()
            receipt = await it.receipt(asked["erasure_id"])
            assert sorted(line["read_model"] for line in receipt["read_models"]) == sorted(VIEWS)
            assert {line["rows"] for line in receipt["read_models"]} == {1, 2}
            assert await it.sums() == before
            assert (await it.read("llm-calls/", search=SECRET))["count"] == 0
            assert (await it.read("users/"))["count"] == 0
    events = await read_topic(own, "events", it.tenant)
    steps = [headers for headers, _ in events if asked["erasure_id"] in headers["ce_subject"]]
    assert len(steps) == 3 + len(VIEWS)


class Person:
    """Ada, of whom runs are reported, and an eraser; analytics and deciders are at work."""

    def __init__(self, rig: Rig, running: Loops, reads: Reads) -> None:
        self.rig, self.running, self.reads = rig, running, reads
        self.eraser = Eraser(
            bootstrap=rig.settings.kafka_bootstrap_servers,
            codec=codec(),
            bus=running.bus,
            reads=reads,
            clickhouse=rig.clickhouse,
            log=rig.log,
            person_keys=rig.person_keys,
            views=CLICKHOUSE_VIEWS,
        )

    async def new_key(self) -> None:
        """The key under which `report` seals from now on, whatever becomes of it."""
        person = SIGNER.person(self.rig.tenant, ADA)
        self.key = await self.rig.person_keys.current_or_new(self.rig.tenant, person)

    async def report(self) -> None:
        """A run with a call, readable when this returns."""
        origin = self.rig.origin()
        events = started(user_id=ADA), calls(call(origin, 0, prompt_preview=SECRET))
        position = await self.rig.telemetry.record(
            origin, SIGNER.run_id(self.rig.tenant), events, seal=Seal(self.key)
        )
        assert await self.rig.clickhouse.reached(position, timeout=30)

    async def erase(self) -> None:
        """Ask for it, carry it out, and wait until that is recorded."""
        tenant, erasure_id = self.rig.tenant, new_id("era")
        await self.running.send(tenant, erasure_id, RequestUserErasure(self.key.name))
        stream = f"observability.erasure/{erasure_id}"
        requested = Envelope(new_id("evt"), "x", tenant, stream, 1, 1, SYSTEM)
        await self.eraser.erase(requested, self.key.name)
        # Decided after all that was posted before it.
        await self.running.send(tenant, erasure_id, CompleteUserErasure())

    async def shown(self) -> list[tuple[str, str]]:
        """Users and previews of the tenant's rows, duplicates included."""
        found = await self.rig.clickhouse.query(
            f"SELECT user_id AS a, '' AS b FROM {RUN_STARTS.table} WHERE tenant = {{t:String}}"
            f" UNION ALL SELECT '', prompt_preview FROM {LLM_CALLS.table}"
            " WHERE tenant = {t:String} SETTINGS final = 0",
            {"t": self.rig.tenant},
        )
        return sorted((row["a"], row["b"]) for row in found)


@pytest.fixture
async def ada(settings: Settings) -> AsyncIterator[Person]:
    async with loops(settings) as running, rig_on(settings) as rig, rig.running(rig.loop()):
        reads = Reads(settings.database_url)
        await reads.start()
        person = Person(rig, running, reads)
        await person.new_key()
        try:
            yield person
        finally:
            await reads.stop()


async def test_what_comes_late_under_the_destroyed_key_comes_out_blank(ada: Person) -> None:
    await ada.report()
    assert await ada.shown() == [("", SECRET), (ADA, "")]
    await ada.erase()
    await ada.report()  # by an API process that has not heard
    assert await ada.shown() == [("", "")] * 4


async def test_what_a_frozen_process_writes_when_it_wakes_up_is_found_and_blanked(
    ada: Person,
) -> None:
    await ada.report()
    instants = {"created_at": "toUnixTimestamp64Micro(created_at) AS created_at"}
    selected = ", ".join(instants.get(name, name) for name in LLM_CALLS.stored)
    clickhouse = ada.rig.clickhouse
    in_hand = await clickhouse.query(
        f"SELECT {selected} FROM {LLM_CALLS.table} WHERE tenant = {{t:String}}",
        {"t": ada.rig.tenant},
    )
    await ada.erase()
    await ada.eraser.look_again()
    assert await ada.shown() == [("", "")] * 2
    columns = [[row[name] for row in in_hand] for name in LLM_CALLS.stored]
    await clickhouse.insert(
        LLM_CALLS.table, LLM_CALLS.stored, LLM_CALLS.types, columns, token="in hand"
    )
    assert ("", SECRET) in await ada.shown()
    await ada.eraser.look_again()
    assert {preview for _, preview in await ada.shown()} == {""}


class Interrupted(ClickHouseRebuild):
    """A rebuild in which an erasure comes: when all is read, or when the tables have changed."""

    moment: str
    ada: Person

    async def _compare(self, reader: TopicReader) -> Any:
        if self.moment == "all is read":
            await self.ada.erase()
        return await super()._compare(reader)

    async def _tidy(self, *, keep: bool) -> str:
        if self.moment == "the tables have changed":
            await self.ada.erase()
        return await super()._tidy(keep=keep)


@pytest.mark.parametrize("moment", ["all is read", "the tables have changed"])
async def test_an_erasure_in_the_midst_of_a_rebuild_is_in_the_rebuilt_table(
    ada: Person, moment: str
) -> None:
    await ada.report()
    rebuild = Interrupted(
        ada.rig.settings.kafka_bootstrap_servers,
        ada.rig.clickhouse,
        LLM_CALLS,
        codec(),
        lambda done, total, note: None,
        person_keys=ada.rig.person_keys,
    )
    rebuild.moment, rebuild.ada = moment, ada
    report = await rebuild.run()
    assert report.agree
    assert {preview for _, preview in await ada.shown()} == {""}
