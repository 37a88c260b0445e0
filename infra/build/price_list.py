"""The system's prices as a file of ours, out of the package genai-prices (a tool of development).

A release ships the file; nothing is looked up on the network, at build time or at run time. The
table's newest prices come with `make lock` and `make gen`, and the change is there to be reviewed.

Kept of each model: what names mean it, and the base prices of its input and output tokens, with the
days from which they hold. Not kept: cached, audio and image tokens, prices by request, tiers above
a size of prompt, the variants of batches and service tiers, and prices by the hour of the day.
Models that have no price for input tokens are left out.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib import metadata
from typing import Any

from schemas.observability.model_cost import PICODOLLARS_PER_TOKEN

Finder = Callable[[Any], Callable[[str], str | None]]
"""Given a table, what finds the name of the row that a model's name means."""


def price_list(finder: Finder) -> str:
    """The file's text. Each row gets a name that leads to it; one that none leads to is dropped."""
    from genai_prices.data import providers

    document: dict[str, Any] = {
        "source": f"genai-prices {metadata.version('genai-prices')}",
        "providers": [_provider(provider) for provider in providers],
    }
    # First every row goes by provider and id, so that a finder can tell which one it has found.
    find = finder(document)
    for provider in document["providers"]:
        provider["models"] = [
            [name, rule, prices]
            for id, rule, prices in provider["models"]
            if (name := _leading(find, provider["id"], id))
        ]
    return _text(document)


def _leading(find: Callable[[str], str | None], provider: str, full: str) -> str:
    """The shortest of a row's names that leads to it, if any."""
    bare = full.removeprefix(f"{provider}/")
    return next((name for name in (bare, full) if find(name) == full), "")


def _provider(provider: Any) -> dict[str, Any]:
    return {
        "id": provider.id,
        "named": _rule(provider.provider_match),
        "claims": _rule(provider.model_match),
        "lends": provider.fallback_model_providers or [],
        "models": [
            [f"{provider.id}/{model.id}", _rule(model.match), prices]
            for model in provider.models
            if (prices := list(_prices(model.prices)))
        ],
    }


def _rule(clause: Any) -> Any:
    """A clause as `[kind, value]`, None for none."""
    if clause is None:
        return None
    ((name, value),) = vars(clause).items()
    kind = {"starts_with": "starts", "ends_with": "ends"}.get(name, name.rstrip("_"))
    if kind in ("or", "and"):
        return [kind, [_rule(each) for each in value]]
    return [kind, value if kind == "regex" else value.lower()]


def _prices(prices: Any) -> Iterator[list[int]]:
    """`[since, input, output]` of each price that holds from a day on, or always."""
    for since, price in _dated(prices):
        dollars = [_base(getattr(price, f"{kind}_mtok", None)) for kind in ("input", "output")]
        if dollars[0] is not None:
            yield [since, *(_per_token(each or Decimal(0)) for each in dollars)]


def _dated(prices: Any) -> Iterator[tuple[int, Any]]:
    if not isinstance(prices, list):
        yield 0, prices
        return
    for each in prices:
        if each.constraint is None:
            yield 0, each.prices
        elif (day := getattr(each.constraint, "start_date", None)) is not None:
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
            yield int(midnight.timestamp()) * 1_000_000, each.prices


def _base(price: Any) -> Decimal | None:
    """The price below the first tier."""
    base: Decimal | None = getattr(price, "base", price)
    return base


def _per_token(dollars_per_million: Decimal) -> int:
    """To the nearest picodollar: the table has some sums of floats in it."""
    return round(dollars_per_million * PICODOLLARS_PER_TOKEN)


def _text(document: dict[str, Any]) -> str:
    """JSON with a line for each model, so that a changed price is a changed line."""
    lines = [f'{{"source": {json.dumps(document["source"])}, "providers": [']
    for provider in document["providers"]:
        head = json.dumps({key: value for key, value in provider.items() if key != "models"})
        models = ",\n".join(f"  {json.dumps(model)}" for model in provider["models"])
        lines.append(f'{head[:-1]}, "models": [\n{models}\n]}},')
    lines[-1] = lines[-1].removesuffix(",")
    return "\n".join([*lines, "]}"]) + "\n"
