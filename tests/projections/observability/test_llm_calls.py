"""A report of calls as rows: their values, money, and what counts once."""

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from infra.ids import Signer
from projections.batches import Place, batch_of
from projections.observability.llm_calls import LLM_CALLS
from schemas.envelope import Actor, Envelope
from schemas.observability.run import LlmCall, LlmCallsRecorded

ENVELOPE = Envelope(
    "evt_1",
    "observability.llm_calls_recorded.v1",
    "ten_1",
    "observability.run/run_1",
    0,
    1_700_000_000_000_000,
    Actor("api_key", "key_1"),
)


def rows(*calls: LlmCall) -> list[dict[str, Any]]:
    batch = batch_of(LLM_CALLS)
    batch.add([LlmCallsRecorded(calls=list(calls))], [ENVELOPE], [Place(3, 41)])
    turned = zip(*(c.tolist() for c in batch.columns()), strict=True)
    return [dict(zip(LLM_CALLS.stored, row, strict=True)) for row in turned]


def test_a_call_is_a_row() -> None:
    call = LlmCall(
        id="c1",
        model="GPT-4o",
        tokens_in=100,
        tokens_out=20,
        cost=0.001175,
        task="Ask",
        prompt_preview="Straße",
        response_preview="ÉTÉ",
        prompt_hash="ff",
        metadata='{"a": 1}',
    )
    assert rows(call) == [
        {
            "tenant": "ten_1",
            "filed_period": 0,
            "run_id": "run_1",
            "id": "c1",
            "model": "GPT-4o",
            "task": "Ask",
            "prompt_preview": "Straße",
            "response_preview": "ÉTÉ",
            "prompt_hash": "ff",
            "tokens_in": 100,
            "tokens_out": 20,
            "total_tokens": 120,
            "cost": 0.001175,
            "cost_pico": 1_175_000_000,
            "metadata": '{"a": 1}',
            "created_at": 1_700_000_000_000_000,
            "search_text": "gpt-4o\nask\nstraße\nété",
            "cost_source": "client",
            "price_in_pico": 0,
            "price_out_pico": 0,
            "price_model": "",
            "price_revision": 0,
            "sealed_for": "",
            "_partition": 3,
            "_offset": 41,
            "_index": 0,
        }
    ]


def test_a_cost_that_was_not_given_is_zero() -> None:
    (row,) = rows(LlmCall(id="c", model="m", tokens_in=0, tokens_out=0))
    assert (row["cost"], row["cost_pico"]) == (0.0, 0)


def test_a_call_that_tells_its_time_is_of_that_time() -> None:
    call = LlmCall(id="c", model="m", tokens_in=0, tokens_out=0)
    told = structs.replace(call, id="d", called_at=1_600_000_000_000_000)
    assert [row["created_at"] for row in rows(call, told)] == [ENVELOPE.time, told.called_at]


@settings(database=None)
@given(st.floats(min_value=0, max_value=1_000_000))
def test_money_is_kept_bit_for_bit_and_to_the_picodollar(cost: float) -> None:
    (row,) = rows(LlmCall(id="c", model="m", tokens_in=0, tokens_out=0, cost=cost))
    assert repr(row["cost"]) == repr(cost + 0.0)
    assert row["cost_pico"] == round(cost * 10**12)


def test_of_two_calls_with_one_id_the_first_stands() -> None:
    made = rows(*(LlmCall(id="c", model=m, tokens_in=0, tokens_out=0) for m in ("a", "b")))
    assert [row["model"] for row in made] == ["a"]


def test_no_calls_are_no_rows() -> None:
    assert batch_of(LLM_CALLS).add([LlmCallsRecorded(calls=[])], [ENVELOPE], [Place(0, 0)]) == 0


def filed(run_id: str, time: int, called_at: int = 0) -> int:
    envelope = structs.replace(ENVELOPE, stream=f"observability.run/{run_id}", time=time)
    call = LlmCall(id="c", model="m", tokens_in=0, tokens_out=0, called_at=called_at)
    batch = batch_of(LLM_CALLS)
    batch.add([LlmCallsRecorded(calls=[call])], [envelope], [Place(0, 0)])
    (row,) = zip(*(c.tolist() for c in batch.columns()), strict=True)
    return int(dict(zip(LLM_CALLS.stored, row, strict=True))["filed_period"])


def test_a_call_is_filed_under_the_same_period_whenever_it_is_reported() -> None:
    signer = Signer(b"a secret of thirty-two bytes ....")
    now = time.time_ns() // 21_600_000_000_000
    run_id, derived = signer.run_id("ten_1"), signer.run_id_for("ten_1", "otlp:trace")
    for period in (5, 70_000):
        at = period * 21_600_000_000
        # An id of ours says when its run began, whatever the report says.
        assert filed(run_id, at) in (now, now + 1)
        assert filed(run_id, at, called_at=at) in (now, now + 1)
        # One that derives from a trace says nothing; a span has its own time.
        assert filed(derived, at) == 0
        assert filed(derived, 0, called_at=at) == period
