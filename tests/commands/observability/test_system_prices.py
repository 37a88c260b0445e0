"""The table of this release: what names it knows, and that it says what its source says."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice

from commands.observability.system_prices import matches, system_prices
from schemas.observability.model_cost import PICODOLLARS_PER_TOKEN

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def find(name: str) -> str | None:
    row = system_prices().find(name)
    return row.name if row else None


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gpt-4o", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("azure/gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-20240806", "gpt-4o"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("vertex_ai/claude-sonnet-4-5", "google/claude-sonnet-4-5"),
        ("gemini/gemini-2.5-pro", "gemini-2.5-pro"),
        ("openrouter/anthropic/claude-3.5-sonnet", "openrouter/anthropic/claude-3.5-sonnet"),
        (
            "anthropic.claude-3-5-sonnet-20240620-v1:0",
            "regional.anthropic.claude-3-5-sonnet-20240620-v1:0",
        ),
        (
            "bedrock/us.anthropic.claude-3-5-sonnet-20240620-v1:0",
            "regional.anthropic.claude-3-5-sonnet-20240620-v1:0",
        ),
    ],
)
def test_a_name_is_read_as_its_model(name: str, row: str) -> None:
    assert find(name) == row


@pytest.mark.parametrize("name", ["", "m", "our-own-model", "nobody/gpt-4o", "/", "ft:gpt-4o:us:x"])
def test_what_is_not_known_is_not_guessed(name: str) -> None:
    assert find(name) is None


def test_every_row_is_found_by_its_name_and_names_are_its_own() -> None:
    table = system_prices()
    assert len({row.name for row in table.rows}) == len(table.rows) > 1_000
    for row in table.rows:
        assert table.find(row.name) is row


def plainly_priced(model: ModelInfo) -> bool:
    """Whether a model's price is by tokens alone and does not change by the hour."""
    prices = (
        model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    )
    return all(
        isinstance(getattr(each.prices, "input_mtok", None), Decimal)
        and not isinstance(getattr(each.prices, "output_mtok", None), type(None))
        and not hasattr(each.constraint, "start_time")
        for each in prices
    )


def per_token(dollars: Any) -> int:
    return round(getattr(dollars, "base", dollars) * PICODOLLARS_PER_TOKEN)


def test_prices_are_what_the_source_says_at_the_time() -> None:
    table, compared = system_prices(), 0
    by_provider = {
        (row.provider, row.name.removeprefix(f"{row.provider}/")): row for row in table.rows
    }
    for provider in providers:
        for model in filter(plainly_priced, provider.models):
            row = by_provider.get((provider.id, model.id))
            if row is None:
                continue
            said: ModelPrice = model.get_prices(NOON)
            found = row.at(int(NOON.timestamp()) * 1_000_000)
            assert (found.input_pico, found.output_pico) == (
                per_token(said.input_mtok),
                per_token(said.output_mtok),
            ), row.name
            compared += 1
    assert compared > 1_000


@pytest.mark.parametrize("name", ["gpt-4o-2024-08-06", "claude-sonnet-4-5", "mistral-large-latest"])
def test_a_call_costs_what_the_source_calculates(name: str) -> None:
    tokens = Usage(input_tokens=1_234, output_tokens=567)
    expected = calc_price(tokens, name, genai_request_timestamp=NOON).total_price
    row = system_prices().find(name)
    assert row is not None
    cost = row.at(int(NOON.timestamp()) * 1_000_000).cost(1_234, 567)
    assert Decimal(cost) / 10**12 == expected


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        (["starts", "a"], "ab", "ba"),
        (["ends", "a"], "ba", "ab"),
        (["contains", "a"], "bab", "b"),
        (["equals", "a"], "a", "aa"),
        (["regex", "^a+$"], "aa", "ab"),
        (["or", [["equals", "a"], ["equals", "b"]]], "b", "c"),
        (["and", [["starts", "a"], ["ends", "b"]]], "ab", "a"),
    ],
)
def test_a_rule_holds_or_not(rule: Any, yes: str, no: str) -> None:
    assert matches(rule, yes)
    assert not matches(rule, no)


def test_a_rule_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="sounds like"):
        matches(["sounds like", "a"], "a")
