"""Which request without a key is an earlier one, sent again."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from starlette.types import Message

from api.observability import ROUTES
from api.retries import WINDOW_SECONDS, Attempt, Retries
from api.retries_journal import Journal
from infra.clock import ManualClock
from infra.kafka import LogUnavailable
from infra.postgres import DatabaseUnavailable
from schemas.envelope import from_headers
from tests.api.harness import OTHER_TENANT, Harness

FIRST, SECOND = "aa" * 16, "bb" * 16
RUNS = "/api/v1/observe/runs"
CALLS = {"calls": [{"model": "gpt-4o", "tokens_in": 1, "tokens_out": 1}] * 2}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Client:
    """The far end of a connection; `receive` is what ASGI gives an application."""

    def __init__(self) -> None:
        self.is_there = True

    async def receive(self) -> Message:
        if self.is_there:
            await Never()
        return {"type": "http.disconnect"}


class Never:
    """What is awaited for ever."""

    def __await__(self) -> Any:
        yield


async def answered(retries: Retries, attempt: Attempt, *, delivered: bool) -> str:
    """A request comes to its end; the command that it was."""
    await attempt.answer(200 if delivered else 503)
    retries.end(attempt)
    return attempt.command_id


async def sent(retries: Retries, fingerprint: str = FIRST, *, delivered: bool = True) -> str:
    """A request from its begin to its end; the command that it was."""
    return await answered(
        retries, await retries.begin(fingerprint, Client().receive), delivered=delivered
    )


async def test_after_a_delivered_answer_an_identical_request_is_new() -> None:
    retries = Retries()
    assert await sent(retries) != await sent(retries)


async def test_after_a_lost_answer_an_identical_request_is_the_same_once() -> None:
    retries = Retries()
    lost = await sent(retries, delivered=False)
    assert await sent(retries, SECOND) != lost
    assert await sent(retries) == lost
    assert await sent(retries) != lost


async def test_a_repeat_whose_answer_is_lost_too_can_be_repeated() -> None:
    retries = Retries()
    lost = await sent(retries, delivered=False)
    assert [await sent(retries, delivered=False) for _ in range(3)] == [lost] * 3
    assert await sent(retries) == lost


async def test_two_equal_requests_that_were_lost_are_two() -> None:
    retries = Retries()
    one, two = [await retries.begin(FIRST, Client().receive) for _ in range(2)]
    lost = [await answered(retries, attempt, delivered=False) for attempt in (one, two)]
    assert lost[0] != lost[1]
    assert [await sent(retries), await sent(retries)] == lost
    assert await sent(retries) not in lost


async def test_what_is_under_way_is_taken_over_when_its_client_is_gone() -> None:
    retries, client = Retries(), Client()
    under_way = await retries.begin(FIRST, client.receive)
    assert await sent(retries) != under_way.command_id
    client.is_there = False
    assert await sent(retries) == under_way.command_id
    # Its repeat was answered, so nothing is lost with it.
    assert await answered(retries, under_way, delivered=False) != await sent(retries)


async def test_a_repeat_of_what_is_under_way_can_be_lost_as_well() -> None:
    retries, client = Retries(), Client()
    under_way = await retries.begin(FIRST, client.receive)
    client.is_there = False
    assert await sent(retries, delivered=False) == under_way.command_id
    await answered(retries, under_way, delivered=False)
    assert await sent(retries) == under_way.command_id
    assert await sent(retries) != under_way.command_id


async def test_a_minute_later_it_is_new() -> None:
    clock = Clock()
    retries = Retries(now=clock)
    lost = await sent(retries, delivered=False)
    clock.now += WINDOW_SECONDS
    assert await sent(retries, delivered=False) == lost
    # Lost again, it is known for another minute.
    clock.now += WINDOW_SECONDS
    assert await sent(retries, delivered=False) == lost
    clock.now += WINDOW_SECONDS + 0.001
    assert await sent(retries) != lost


async def test_the_oldest_are_forgotten_beyond_the_bound() -> None:
    retries = Retries(most=3)
    lost = [await sent(retries, f"{n:032x}", delivered=False) for n in range(5)]
    found = [await sent(retries, f"{n:032x}") for n in range(5)]
    assert [a == b for a, b in zip(lost, found, strict=True)] == [False, False, True, True, True]


class Board:
    """What processes tell each other, without a server: each is told at once of what is lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, tuple[str, int, float]] = {}  # request, claims, when
        self.everybody: list[Retries] = []
        self.is_there = True

    @property
    def name(self) -> str:
        return "someone"

    def tell(self, fingerprint: str, command_id: str, *, again: bool) -> None:
        known = self._rows.pop(command_id, None)
        if known is not None or not again:
            claims = max(0, known[1] - 1) if known else 0
            self._rows[command_id] = (fingerprint, claims, self._clock())
            for retries in self.everybody:
                retries.hear(fingerprint, command_id)

    async def claim(self, fingerprint: str) -> str | None:
        if not self.is_there:
            raise DatabaseUnavailable("away")
        oldest = self._clock() - WINDOW_SECONDS
        found = {
            command: row
            for command, row in self._rows.items()
            if row[0] == fingerprint and row[2] >= oldest
        }
        if not found:
            return None
        command = min(found, key=lambda command: found[command][1])
        request, claims, lost_at = found[command]
        self._rows[command] = (request, claims + 1, lost_at)
        return command

    async def settle(self, command_id: str) -> None:
        if self.is_there:
            self._rows.pop(command_id, None)


def town(clock: Clock, count: int) -> tuple[Board, list[Retries]]:
    """Processes that share a board."""
    board = Board(clock)
    board.everybody = [Retries(None, board, now=clock) for _ in range(count)]
    return board, board.everybody


@pytest.mark.parametrize("processes", [0, 3])
async def test_any_sequence_agrees_with_a_list_of_what_was_lost(processes: int) -> None:
    """Wherever each request goes; without any board where there is one process."""
    seed = Random().randrange(1 << 32)
    print(f"seed {seed}")
    dice, clock = Random(seed), Clock()
    everybody = town(clock, processes)[1] if processes else [Retries(now=clock)]
    lost: list[tuple[float, str, str]] = []
    known: set[str] = set()
    for _ in range(5_000):
        clock.now += dice.choice((0.0, 0.5, 20.0))
        lost = [entry for entry in lost if clock.now - entry[0] <= WINDOW_SECONDS]
        fingerprint, delivered = dice.choice((FIRST, SECOND)), dice.random() < 0.5
        expected = next((entry for entry in lost if entry[1] == fingerprint), None)
        retries = dice.choice(everybody)
        attempt = await retries.begin(fingerprint, Client().receive)
        command = await answered(retries, attempt, delivered=delivered)
        if expected is None:
            assert command not in known
        else:
            assert command == expected[2]
            lost.remove(expected)
        known.add(command)
        if not delivered:
            lost.append((clock.now, fingerprint, command))


@pytest.mark.parametrize("processes", [1, 2])
async def test_repeats_that_come_at_once_are_one_command_until_it_is_answered(
    processes: int,
) -> None:
    _, everybody = town(Clock(), processes)
    one, other = everybody[0], everybody[-1]
    lost = await sent(one, delivered=False)
    both = [await retries.begin(FIRST, Client().receive) for retries in (one, other)]
    assert [attempt.command_id for attempt in both] == [lost, lost]
    await answered(one, both[0], delivered=False)
    await answered(other, both[1], delivered=True)
    assert lost not in (await sent(one), await sent(other))


async def test_each_lost_command_is_repeated_before_one_is_repeated_twice() -> None:
    _, (one, other) = town(Clock(), 2)
    lost = [
        await answered(one, attempt, delivered=False)
        for attempt in [await one.begin(FIRST, Client().receive) for _ in range(2)]
    ]
    found = [await retries.begin(FIRST, Client().receive) for retries in (one, other, one)]
    assert [attempt.command_id for attempt in found] == [*lost, lost[0]]


async def test_who_is_told_of_a_command_that_he_answers_himself_settles_it() -> None:
    """It was thought dead, and was not: what it answers is not lost any more."""
    board, (one, other) = town(Clock(), 2)
    attempt = await one.begin(FIRST, Client().receive)
    board.tell(FIRST, attempt.command_id, again=False)
    await answered(one, attempt, delivered=True)
    assert await sent(other) != attempt.command_id


async def test_without_the_others_each_goes_by_what_it_has_heard() -> None:
    board, (one, other) = town(Clock(), 2)
    lost = await sent(one, delivered=False)
    board.is_there = False
    assert await sent(other) == lost
    assert await sent(other) != lost


async def test_since_when_something_may_be_unanswered() -> None:
    clock = ManualClock()
    retries = Retries(clock=clock)
    begun = clock.now()
    first = await retries.begin(FIRST, Client().receive)
    clock.advance(1)
    second = await retries.begin(SECOND, Client().receive)
    clock.advance(1)
    assert retries.unanswered_since() == (clock.now(), begun)
    await answered(retries, first, delivered=True)
    assert retries.unanswered_since() == (clock.now(), begun + 1_000_000)
    # What is lost was told.
    await second.answer(503)
    assert retries.unanswered_since() == (clock.now(), clock.now())


async def test_what_a_process_did_not_answer_is_known_to_the_next(tmp_path: Path) -> None:
    clock = Clock()
    first = Retries(Journal(tmp_path / "state" / "unanswered", clock))
    answered = await sent(first)
    lost = await sent(first, delivered=False)
    await first.begin(SECOND, Client().receive)
    under_way = (await first.begin(SECOND, Client().receive)).command_id
    repeated = await sent(first, "cc" * 16, delivered=False)
    assert await sent(first, "cc" * 16) == repeated

    clock.now += 30
    second = Retries(Journal(tmp_path / "state" / "unanswered", clock))
    assert await sent(second) == lost
    assert await sent(second) not in (lost, answered)
    assert under_way in (await sent(second, SECOND), await sent(second, SECOND))
    assert await sent(second, "cc" * 16) != repeated
    # All of it is settled, so a third knows nothing.
    third = Retries(Journal(tmp_path / "state" / "unanswered", clock))
    assert await sent(third, SECOND) != under_way


async def test_what_is_older_than_a_minute_is_not_known_to_the_next(tmp_path: Path) -> None:
    clock = Clock()
    lost = await sent(Retries(Journal(tmp_path / "unanswered", clock)), delivered=False)
    clock.now += WINDOW_SECONDS + 1
    journal = Journal(tmp_path / "unanswered", clock, slots=1)
    assert await sent(Retries(journal)) != lost


async def test_a_full_journal_loses_nothing_of_this_process(tmp_path: Path) -> None:
    retries = Retries(Journal(tmp_path / "unanswered", slots=2))
    lost = [await sent(retries, f"{n:032x}", delivered=False) for n in range(5)]
    assert [await sent(retries, f"{n:032x}") for n in range(5)] == lost
    # The slots are free again.
    lost = [await sent(retries, f"{n:032x}", delivered=False) for n in range(2)]
    again = Retries(Journal(tmp_path / "unanswered", slots=2))
    assert [await sent(again, f"{n:032x}") for n in range(2)] == lost


def item_ids(app: Harness) -> list[str]:
    """The request of each telemetry record, as item and run ids are made of it."""
    return [
        from_headers(record.headers).causation_id for record in app.log.records.get("telemetry", [])
    ]


Send = Callable[[], Awaitable[httpx.Response]]


def reports(app: Harness) -> list[Send]:
    """One request for each kind of report, each to be sent as often as one likes."""
    key = app.key()
    run = app.signer.run_id("ten_test")

    def post(path: str, body: Any) -> Send:
        return lambda: app.client.post(path, json=body, headers=key)

    return [
        post(f"{RUNS}/start/", {"agent_name": "a"}),
        post(f"{RUNS}/{run}/llm-calls/", CALLS),
        post(f"{RUNS}/{run}/steps/", {"steps": [{"step_name": "s", "output": {}}]}),
        post(f"{RUNS}/{run}/spans/", {"spans": [{"name": "s", "kind": "tool"}]}),
        post(f"{RUNS}/{run}/scores/", {"scores": [{"name": "s", "numeric_value": 1}]}),
        post(f"{RUNS}/{run}/complete/", {"status": "success"}),
        post("/api/v1/observe/events/", {"events": [{"event_type": "x"}]}),
        post(
            "/api/v1/evaluations/scores/create/",
            {"run_id": run, "name": "s", "value": 1},
        ),
    ]


@pytest.mark.parametrize("index", range(8))
async def test_a_report_that_failed_is_known_when_it_comes_again(index: int) -> None:
    async with Harness(ROUTES) as app:
        send = reports(app)[index]
        app.log.fail_with = LogUnavailable("away")
        app.log.takes_it_all_the_same = True
        assert (await send()).status_code == 503
        app.log.fail_with = None
        first, second = await send(), await send()
        assert first.is_success, first.text
        assert second.is_success
        failed, repeated, new = item_ids(app)
        assert failed == repeated != new


async def test_a_repeated_start_is_the_same_run() -> None:
    async with Harness(ROUTES) as app:
        start = reports(app)[0]
        app.log.fail_with = LogUnavailable("away")
        app.log.takes_it_all_the_same = True
        assert (await start()).status_code == 503
        app.log.fail_with = None
        first, second = (await start()).json(), (await start()).json()
        stored = [record.key.decode() for record in app.log.records["telemetry"]]
        assert stored == [first["run_id"], first["run_id"], second["run_id"]]
        assert first["run_id"] != second["run_id"]


async def test_another_caller_s_request_is_never_the_same() -> None:
    async with Harness(ROUTES) as app:
        app.log.fail_with = LogUnavailable("away")
        app.log.takes_it_all_the_same = True
        body, key = {"agent_name": "a"}, app.key()
        failed = await app.client.post(f"{RUNS}/start/", json=body, headers=key)
        assert failed.status_code == 503
        app.log.fail_with = None
        for headers in (app.key(), app.key(OTHER_TENANT), {**key, "Idempotency-Key": "k"}):
            answer = await app.client.post(f"{RUNS}/start/", json=body, headers=headers)
            assert answer.status_code == 200
        assert len(set(item_ids(app))) == 4


async def test_with_a_key_nothing_is_guessed() -> None:
    async with Harness(ROUTES) as app:
        app.log.fail_with = LogUnavailable("away")
        app.log.takes_it_all_the_same = True
        keyed = {**app.key(), "Idempotency-Key": "k"}
        body = {"agent_name": "a"}
        assert (
            await app.client.post(f"{RUNS}/start/", json=body, headers=keyed)
        ).status_code == 503
        app.log.fail_with = None
        del keyed["Idempotency-Key"]
        answer = await app.client.post(f"{RUNS}/start/", json=body, headers=keyed)
        assert answer.status_code == 200
        assert len(set(item_ids(app))) == 2
