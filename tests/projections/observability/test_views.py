"""Model costs in Postgres, and what a call's row says of its cost: as values, no database."""

import msgspec
import pytest

from projections.batches import Place, batch_of
from projections.observability import VIEWS
from projections.observability.llm_calls import LLM_CALLS
from projections.observability.model_costs import MODEL_COSTS
from projections.observability.repricings import REPRICINGS
from projections.statements import Put, Set
from schemas.envelope import Actor, Envelope
from schemas.observability.model_cost import ModelCostRemoved, ModelCostSet
from schemas.observability.repricing import CallsRepriced, NewPrice
from schemas.observability.run import LlmCall, LlmCallsRecorded

AT = 1_700_000_000_000_000
ENVELOPE = Envelope("evt_1", "t", "ten_1", "x/openai/gpt-4o", 1, AT, Actor("api_key", "key_9"))


def key(revision: int) -> dict[str, object]:
    return {"tenant": "ten_1", "model": "openai/gpt-4o", "revision": revision}


def was_set(revision: int, replaces: int) -> ModelCostSet:
    return ModelCostSet(
        model="openai/gpt-4o", revision=revision, input_price_pico=2, output_price_pico=8,
        since=AT - 1, replaces=replaces,
    )  # fmt: skip


VALUES = {
    "input_price_pico": 2,
    "output_price_pico": 8,
    "since": AT - 1,
    "ended_at": None,
    "set_by": "key_9",
}


def test_a_cost_is_a_row_of_its_own() -> None:
    assert list(MODEL_COSTS.reduce(was_set(1, 0), ENVELOPE)) == [Put(key(1), VALUES)]


def test_the_next_one_ends_the_one_before() -> None:
    assert list(MODEL_COSTS.reduce(was_set(2, 1), ENVELOPE)) == [
        Set(key(1), {"ended_at": AT - 1}),
        Put(key(2), VALUES),
    ]


def test_a_removed_one_is_ended_and_kept() -> None:
    event = ModelCostRemoved(model="openai/gpt-4o", revision=2, until=AT)
    assert list(MODEL_COSTS.reduce(event, ENVELOPE)) == [Set(key(2), {"ended_at": AT})]


def test_a_repricing_is_kept_with_its_prices() -> None:
    price = NewPrice(
        model="m", since=1, until=2, input_price_pico=3, output_price_pico=4, source="default",
        price_model="m",
    )  # fmt: skip
    event = CallsRepriced(version=3, repriced_at=AT - 1, prices=[price])
    (statement,) = REPRICINGS.reduce(event, ENVELOPE)
    assert isinstance(statement, Put)
    assert statement.key == {"tenant": "ten_1", "version": 3}
    assert (statement.values["repriced_at"], statement.values["repriced_by"]) == (AT - 1, "key_9")
    assert msgspec.json.decode(statement.values["prices"], type=list[NewPrice]) == [price]
    assert set(statement.values) | set(statement.key) == set(REPRICINGS.columns)


def test_columns_exist_and_the_rest_is_ignored() -> None:
    assert set(VALUES) | set(key(1)) == set(MODEL_COSTS.columns)
    for view in VIEWS:
        assert list(view.reduce(object(), ENVELOPE)) == []


PRICED = {"cost_source": "override", "cost_pico": 7, "price_in_pico": 2, "price_out_pico": 1}


@pytest.mark.parametrize(
    ("fields", "cost", "pico", "source"),
    [
        ({"cost": 0.25}, 0.25, 250_000_000_000, "client"),
        ({"cost": 0.25, "cost_source": "client"}, 0.25, 250_000_000_000, "client"),
        ({}, 0.0, 0, "unpriced"),
        ({"cost_source": "unpriced"}, 0.0, 0, "unpriced"),
        (PRICED, 7e-12, 7, "override"),
        # Beyond what a float holds to the picodollar.
        ({**PRICED, "cost_pico": 10**18 - 1}, 1e6, 10**18 - 1, "override"),
    ],
)
def test_a_calls_row_says_what_it_cost_and_why(
    fields: dict[str, object], cost: float, pico: int, source: str
) -> None:
    call = LlmCall(id="c", model="m", tokens_in=3, tokens_out=1, **fields)  # type: ignore[arg-type]
    batch = batch_of(LLM_CALLS)
    batch.add([LlmCallsRecorded(calls=[call])], [ENVELOPE], [Place(0, 0)])
    values = [column.tolist()[0] for column in batch.columns()]
    found = dict(zip(LLM_CALLS.stored, values, strict=True))
    assert (found["cost"], found["cost_pico"], found["cost_source"]) == (cost, pico, source)
    for name in ("price_in_pico", "price_out_pico", "price_model", "price_revision"):
        assert found[name] == getattr(call, name)
