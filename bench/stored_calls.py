"""LLM calls in number, as a month of several tenants would leave them: rows of the product's own
reducers, made many at once and inserted in the blocks that a backlog is inserted in.

One tenant has most of them. Runs have four calls, a session two runs on average; agents, models,
users and words are as uneven as they are in life. One run in ten came as an OpenTelemetry trace:
its id says nothing of its time, its calls do.
"""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.clickhouse import ClickHouse
from infra.clock import SYSTEM_CLOCK
from infra.memory import tune_arrow
from projections.batches import Batch, ItemBatch, Place, batch_of
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS
from schemas.avro_columns import Columns
from schemas.envelope import Actor, Envelope
from schemas.observability.run import RunCompleted, RunStarted

LARGE = "ten_large"
TENANTS = (LARGE, *(f"ten_{n}" for n in range(6)))
SHARES = (0.7, *(0.05,) * 6)
DAYS = 35
CALLS_PER_RUN = 4
RUNS_PER_SESSION = 2
PREVIEW_CHARACTERS = 200
AGENTS = tuple(f"agent-{n}" for n in range(12))
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet", "claude-3-5-haiku", "gemini-1.5-pro")
RARE = "quetzalcoatl"
"""A word in one call of ten thousand."""

_DAY = 86_400_000_000
_ALPHABET = np.frombuffer(b"0123456789abcdefghjkmnpqrstvwxyz", np.uint8)
_ACTOR = Actor("api_key", "key_1")
_BLOCK_RUNS = 25_000
_INSERT_SECONDS_MAX = 600
_WORDS = 20_000
_WORDS_PER_PREVIEW = 33
_TRACES = 0.1


class Runs(NamedTuple):
    """Runs of one block, in the order in which they began: an array each."""

    tenant: list[str]
    id: list[str]
    agent: list[str]
    user: list[str]
    session: list[str]
    at: Any
    traced: Any


class StoredCalls:
    """So many calls that ended `now` (microseconds), the same ones for the same seed."""

    def __init__(self, count: int, now: int, seed: int) -> None:
        self._runs, self._now = max(1, count // CALLS_PER_RUN), now
        self._dice = np.random.default_rng(seed)
        letters = np.frombuffer(b"etaoinshrdlucmfwyp", np.uint8)
        lengths = self._dice.integers(3, 10, _WORDS)
        words = ["".join(map(chr, self._dice.choice(letters, length))) for length in lengths]
        self._words = pa.array(words)
        self._often = _uneven(_WORDS, 10)
        self._active = _uneven(max(10, self._runs // 50), 50)
        self._persons = self._dice.integers(0, 32, (len(self._active), 16), np.uint8)

    async def insert(self, clickhouse: ClickHouse) -> None:
        """Make the tables and fill them, a block of each after the other."""
        for view in (RUN_STARTS, RUN_COMPLETIONS, LLM_CALLS):
            await clickhouse.command(view.ddl())
        for batches in self.batches():
            for batch in batches:
                view = batch.view
                await clickhouse.insert(
                    view.table, view.stored, view.types, batch.columns(), token=batch.token
                )

    def batches(self) -> Iterator[list[Batch]]:
        """The rows of the tables, in blocks."""
        for first in range(0, self._runs, _BLOCK_RUNS):
            runs = self._block(first, min(_BLOCK_RUNS, self._runs - first))
            yield [*self._lifecycles(runs, first), self._calls(runs, first)]

    def _block(self, first: int, count: int) -> Runs:
        dice = self._dice
        step = DAYS * _DAY // self._runs
        at = self._now - DAYS * _DAY + (first + np.arange(count)) * step
        tenants = dice.choice(len(TENANTS), count, p=SHARES)
        users = np.searchsorted(self._active, dice.random(count))
        sessions = (first + np.arange(count)) // (RUNS_PER_SESSION * 10) * 10 + dice.integers(
            0, 10, count
        )
        traced = dice.random(count) < _TRACES
        return Runs(
            [TENANTS[n] for n in tenants],
            self._run_ids(at, traced, users),
            [AGENTS[n] for n in np.minimum(dice.geometric(0.3, count), len(AGENTS)) - 1],
            [f"user-{n}" for n in users],
            [f"session-{n}" for n in sessions],
            at,
            traced,
        )

    def _run_ids(self, at: Any, traced: Any, users: Any) -> list[str]:
        """As `Signer.run_id` has them: UUIDv7 in base 32, whom the run is for, something random.

        A trace's has no time and doesn't say for whom it is.
        """
        high = (at.astype(np.uint64) // np.uint64(1000) << np.uint64(16)) | np.uint64(7 << 12)
        random = self._dice.integers(0, 2**63, (len(at), 3)).astype(np.uint64)
        untimed = random[:, 2] & ~np.uint64(0xF000) | np.uint64(5 << 12)
        high = np.where(traced, untimed, high)
        low = random[:, 0]
        digits = np.empty((len(at), 58), np.uint8)
        for place in range(26):
            shift = 125 - 5 * place
            if shift >= 64:
                part = high >> np.uint64(shift - 64)
            elif shift + 5 > 64:
                part = (high << np.uint64(64 - shift)) | (low >> np.uint64(shift))
            else:
                part = low >> np.uint64(shift)
            digits[:, place] = part & np.uint64(31)
        digits[:, 26:42] = self._persons[users]
        digits[:, 42:] = self._dice.integers(0, 32, (len(at), 16))
        texts = _ALPHABET[digits].view("S58")[:, 0].astype(str).tolist()
        return [
            f"run_{text[:26]}{text[42:] if trace else text[26:]}"
            for text, trace in zip(texts, traced, strict=True)
        ]

    def _lifecycles(self, runs: Runs, first: int) -> list[Batch]:
        starts, ends = batch_of(RUN_STARTS), batch_of(RUN_COMPLETIONS)
        lasted = self._dice.integers(1_000_000, 60_000_000, len(runs.id))
        for n, (tenant, run_id, at) in enumerate(zip(runs.tenant, runs.id, runs.at, strict=True)):
            began = int(at)
            envelope = Envelope(
                id="", type="", tenant=tenant, stream=f"observability.run/{run_id}",
                version=0, time=began, actor=_ACTOR,
            )  # fmt: skip
            trace = f"{first + n:032x}" if runs.traced[n] else ""
            started = RunStarted(
                agent_name=runs.agent[n],
                workflow_name="default",
                workflow_id=f"wf_{trace or first + n}",
                trace_id=trace,
                started_at=began,
                user_id=runs.user[n],
                session_id=runs.session[n],
            )
            completed = RunCompleted(
                status="success",
                completed_at=began + int(lasted[n]),
                began_at=began if trace else 0,
            )
            starts.add([started], [envelope], [Place(0, 3 * (first + n))])
            ends.add([completed], [envelope], [Place(0, 3 * (first + n) + 2)])
        return [starts, ends]

    def _calls(self, runs: Runs, first: int) -> Batch:
        dice, count = self._dice, len(runs.id) * CALLS_PER_RUN
        fields: dict[str, Any] = {
            "id": pa.array([f"call_{first * CALLS_PER_RUN + n:026d}" for n in range(count)]),
            "model": pa.array(MODELS).take(
                pa.array(np.minimum(dice.geometric(0.4, count), len(MODELS)) - 1)
            ),
            "tokens_in": dice.integers(0, 2_000, count),
            "tokens_out": dice.integers(0, 500, count),
            "cost": np.where(dice.random(count) < 0.5, dice.random(count).round(6) / 10, np.nan),
            "cost_pico": dice.integers(0, 10**10, count),
            "called_at": np.repeat(np.where(runs.traced, runs.at, 0), CALLS_PER_RUN),
            "task": pa.array(["answer_question"] * count),
            "prompt_preview": self._previews(count),
            "response_preview": self._previews(count),
            "prompt_hash": pa.array([f"{n:064x}" for n in dice.integers(0, 1_000, count)]),
            "metadata": pa.array(["{}"] * count),
            "cost_source": pa.array([""] * count),
            "price_in_pico": np.zeros(count, np.int64),
            "price_out_pico": np.zeros(count, np.int64),
            "price_model": pa.array([""] * count),
            "price_revision": np.zeros(count, np.int64),
        }
        batch = ItemBatch(LLM_CALLS)
        envelopes = [
            Envelope(
                id="", type="", tenant=tenant, stream=f"observability.run/{run_id}",
                version=0, time=int(at), actor=_ACTOR,
            )
            for tenant, run_id, at in zip(runs.tenant, runs.id, runs.at, strict=True)
        ]  # fmt: skip
        places = [Place(0, 3 * (first + n) + 1) for n in range(len(runs.id))]
        batch.add_columns(Columns(np.full(len(runs.id), CALLS_PER_RUN), fields), envelopes, places)
        return batch

    def _previews(self, count: int) -> Any:
        ranks = np.searchsorted(self._often, self._dice.random(count * _WORDS_PER_PREVIEW))
        offsets = np.arange(count + 1, dtype=np.int32) * _WORDS_PER_PREVIEW
        lists = pa.ListArray.from_arrays(pa.array(offsets), self._words.take(pa.array(ranks)))
        texts = pc.utf8_slice_codeunits(pc.binary_join(lists, " "), 0, PREVIEW_CHARACTERS)
        rare = pa.array(self._dice.random(count) < 1e-4)
        return pc.if_else(rare, pc.binary_join_element_wise(RARE, texts, " "), texts)


def _uneven(count: int, even: int) -> Any:
    """Chances of ranks, added up: beyond the first `even` ones as Zipf has it, 1/n."""
    chances = np.cumsum(1 / np.arange(even, count + even))
    return chances / chances[-1]


async def main(folder: str, count: int, seed: int) -> None:
    """Fill a folder of the embedded engine with calls that end now."""
    tune_arrow()
    clickhouse = ClickHouse(f"chdb://{folder}", query_seconds=_INSERT_SECONDS_MAX)
    await clickhouse.start()
    await StoredCalls(count, SYSTEM_CLOCK.now(), seed).insert(clickhouse)
    await clickhouse.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
