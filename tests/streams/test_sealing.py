"""From a report to the log and back: sealed there, open or blank for who reads."""

from typing import Any

import pytest

from infra.ids import Signer
from infra.kafka import Record
from infra.objects import Objects, ObjectsUnavailable
from projections.observability import CLICKHOUSE_VIEWS, LLM_CALLS, RUN_STARTS
from schemas.avro_derivation import tag_of
from schemas.codec import Undecodable
from schemas.envelope import SYSTEM, Actor, Envelope, from_headers, to_headers
from schemas.observability.erasure import PersonForgotten
from schemas.observability.run import LlmCall, LlmCallsRecorded, RunStarted, Step, StepsRecorded
from streams.batching import Pending, Router
from streams.person_keys import PersonKeys
from streams.replay import decode
from streams.sealing import Keyring, Seal
from streams.telemetry import ITEMS_PER_RECORD, Origin, Telemetry, codec
from tests.api.memory import MemoryLog
from tests.streams.records import FakeRecord

SIGNER = Signer(bytes(range(32)))
TENANT, USER, SECRET = "ten_1", "ada@example.com", "my knee hurts"
PERSON = SIGNER.person(TENANT, USER)
RUN = SIGNER.run_id(TENANT, person=PERSON)
STARTED = RunStarted(
    agent_name="bot", workflow_name="w", workflow_id="wf", started_at=1, user_id=USER
)


def calls(count: int, **fields: Any) -> LlmCallsRecorded:
    given = {"model": "gpt-4o", "tokens_in": 7, "tokens_out": 3, "prompt_preview": SECRET}
    return LlmCallsRecorded(
        calls=[LlmCall(id=f"c{number}", **{**given, **fields}) for number in range(count)]
    )


class World:
    """A log in memory, an object store in memory, and what a reader makes of the one."""

    def __init__(self) -> None:
        self.log, self.objects = MemoryLog(), Objects("memory:///")
        self.keys = PersonKeys(self.objects, SIGNER)

    async def report(self, *events: Any, seal: Seal | None = None) -> None:
        seal = seal or Seal(await self.keys.current_or_new(TENANT, PERSON))
        origin = Origin(TENANT, Actor("api_key", "key_1"), "cmd_1")
        await Telemetry(self.log).record(origin, RUN, events, seal=seal)

    async def forget(self, key: str) -> None:
        """What the eraser tells the log."""
        event = PersonForgotten(key=key)
        tag = tag_of(PersonForgotten)
        envelope = Envelope("evt_9", tag, TENANT, "observability.person/p", 0, 1, SYSTEM)
        record = Record(b"", codec().encode(event), to_headers(envelope))
        await self.log.append("telemetry", [record])

    def records(self) -> list[Any]:
        return [
            FakeRecord("telemetry", 0, offset, 0, record.key, record.value, record.headers)
            for offset, record in enumerate(self.log.records["telemetry"])
        ]

    def keyring(self) -> Keyring:
        return Keyring(PersonKeys(self.objects, SIGNER), codec())

    async def pending(self, keyring: Keyring | None = None) -> Pending:
        """What the analytics loop makes of all records."""
        keyring = keyring or self.keyring()
        router = Router(CLICKHOUSE_VIEWS, codec(), {}, frozenset({"telemetry"}), keyring)
        pending, records = Pending(CLICKHOUSE_VIEWS), self.records()
        await keyring.fetch(records)
        router.take(pending, records)
        router.settle(pending)
        return pending

    async def column(self, name: str, view: Any = LLM_CALLS) -> list[Any]:
        batch = (await self.pending()).batches[view.table]
        at = view.stored.index(name)
        return list(batch.columns()[at].to_pylist() if view is LLM_CALLS else batch.columns()[at])


async def test_the_log_tells_the_numbers_and_not_the_person() -> None:
    world = World()
    await world.report(STARTED, calls(2))
    for record in world.log.records["telemetry"]:
        assert record.value is not None
        whole = record.value + record.key + repr(record.headers).encode()
        assert USER.encode() not in whole
        assert SECRET.encode() not in whole
        assert from_headers(record.headers).sealed_for == f"{PERSON}/0"
    plain = codec().decode(world.log.records["telemetry"][1].value)
    assert [(call.model, call.tokens_in) for call in plain.calls] == [("gpt-4o", 7)] * 2


async def test_readers_see_what_was_reported() -> None:
    world = World()
    await world.report(STARTED, calls(50))
    assert await world.column("prompt_preview") == [SECRET] * 50
    assert await world.column("sealed_for") == [f"{PERSON}/0"] * 50
    assert await world.column("user_id", RUN_STARTS) == [USER]


async def test_one_record_is_read_alone_and_many_together_and_in_between_are_others() -> None:
    world = World()
    for number in range(80):
        seal = None if number % 3 else Seal(None)
        await world.report(calls(1, tokens_in=number), seal=seal)
    assert await world.column("tokens_in") == list(range(80))
    shown = [SECRET if number % 3 else "" for number in range(80)]
    assert await world.column("prompt_preview") == shown


async def test_under_a_destroyed_key_all_comes_out_blank_and_the_numbers_stay() -> None:
    world = World()
    await world.report(STARTED, calls(3))
    await world.keys.destroy(TENANT, f"{PERSON}/0")
    assert await world.column("prompt_preview") == [""] * 3
    assert await world.column("metadata") == ["{}"] * 3
    assert await world.column("search_text") == ["gpt-4o\n\n\n"] * 3
    assert await world.column("tokens_in") == [7] * 3
    assert await world.column("user_id", RUN_STARTS) == [""]
    assert (await world.pending()).dead == []


async def test_a_key_is_let_go_where_the_log_says_so_whatever_was_fetched() -> None:
    world = World()
    await world.report(calls(1))
    await world.forget(f"{PERSON}/0")
    await world.report(calls(1))  # in flight, or by a process that has not heard yet
    keyring = world.keyring()
    await keyring.fetch(world.records())
    pending = await world.pending(keyring)
    shown = pending.batches[LLM_CALLS.table].columns()[LLM_CALLS.stored.index("prompt_preview")]
    assert shown.to_pylist() == [SECRET, ""]
    assert keyring.dropped == [(TENANT, f"{PERSON}/0")]


async def test_the_next_key_opens_what_comes_after_an_erasure() -> None:
    world = World()
    await world.report(calls(1))
    await world.keys.destroy(TENANT, f"{PERSON}/0")
    await world.forget(f"{PERSON}/0")
    await world.report(calls(1))
    assert await world.column("prompt_preview") == ["", SECRET]
    assert await world.column("sealed_for") == [f"{PERSON}/0", f"{PERSON}/1"]


async def test_reports_of_an_erased_person_s_run_are_written_blank() -> None:
    world = World()
    await world.report(calls(2), seal=Seal(None))
    (record,) = world.log.records["telemetry"]
    assert record.value is not None
    assert SECRET.encode() not in record.value
    assert from_headers(record.headers).sealed_for == ""
    assert await world.column("tokens_in") == [7, 7]


async def test_a_report_in_several_records_is_sealed_in_each() -> None:
    world = World()
    await world.report(calls(ITEMS_PER_RECORD + 3))
    assert len(world.log.records["telemetry"]) == 2
    assert await world.column("prompt_preview") == [SECRET] * (ITEMS_PER_RECORD + 3)


async def test_a_lost_key_is_no_erasure_the_record_is_put_aside_sealed() -> None:
    world = World()
    await world.report(calls(1))
    world.objects = Objects("memory:///")
    pending = await world.pending()
    ((record, reason),) = pending.dead
    assert reason == f"its key {PERSON}/0 is not in the object store"
    assert record.value == world.records()[0].value


async def test_a_store_that_is_away_is_told() -> None:
    world = World()
    await world.report(calls(1))

    class Away(Objects):
        async def whole(self, name: str) -> bytes:
            raise ObjectsUnavailable("away")

    world.objects = Away("memory:///")
    with pytest.raises(ObjectsUnavailable):
        await world.keyring().fetch(world.records())


async def test_what_is_sealed_for_one_run_opens_in_no_other() -> None:
    world = World()
    await world.report(calls(1))
    (record,) = world.records()
    keyring = world.keyring()
    await keyring.fetch([record])
    other = [
        (name, value if name != "ce_subject" else b"observability.run/run_other")
        for name, value in record.headers
    ]
    with pytest.raises(Undecodable, match="what is sealed in it"):
        keyring.opened(record, from_headers(other))


async def test_a_replay_shows_what_its_keys_open() -> None:
    world = World()
    await world.report(StepsRecorded(steps=[Step(id="s", step_name="n", output='{"a":1}')]))
    (record,) = world.records()
    keyring = world.keyring()
    await keyring.fetch([record])
    assert decode(record, codec(), keyring).data["steps"][0]["output"] == '{"a":1}'
    sealed = decode(record, codec())
    assert sealed.data["steps"][0]["output"] == "{}"
    assert sealed.data["sealed"]
    await world.keys.destroy(TENANT, f"{PERSON}/0")
    late = world.keyring()
    await late.fetch([record])
    assert decode(record, codec(), late).data["steps"][0]["output"] == "{}"
    unfetched = decode(record, codec(), world.keyring())
    assert "was not fetched" in unfetched.problem


async def test_runs_of_nobody_ask_no_store() -> None:
    world = World()

    class Asked(Objects):
        async def whole(self, name: str) -> bytes:
            raise AssertionError("nobody is named")

    world.objects = Asked("memory:///")
    origin = Origin(TENANT, Actor("api_key", "key_1"), "cmd_1")
    await Telemetry(world.log).record(origin, SIGNER.run_id(TENANT), [calls(2)])
    assert await world.column("prompt_preview") == [SECRET] * 2
    assert await world.column("sealed_for") == ["", ""]
