"""The system's prices: a public table that ships with the release, and how it reads model names.

The table is `schemas/observability/system_prices.json`, made from the package genai-prices by
`make gen` (`infra/build/price_list.py`), with its rules of which names mean which model. A name is
read like this, in lower case, and the first that finds a row wins:

1. `provider/model`, for a provider that the table knows (`openai/gpt-4o`, `vertex_ai/gemini-…`);
2. Bedrock's form, `vendor.model` (`us.anthropic.claude-…`), among Bedrock's models;
3. the whole name, at each provider that claims names like it, in the table's order.
"""

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from msgspec import Struct

from commands.observability.prices import Price

NAMES_KEPT = 10_000
"""Names whose row is remembered: clients choose them, so there is a bound."""

_BEDROCK = "aws"
_BEDROCK_NAME = re.compile(r"([a-z-]+\.)+[a-z]")
_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class SystemPrice(Struct, frozen=True):
    """A row: `name` is what the row goes by, and a name that leads to it.

    prices: instants (microseconds) and the price from then on, ascending; the first is the oldest
    that is known, and holds before its instant too.
    """

    name: str
    provider: str
    prices: tuple[tuple[int, Price], ...]

    def at(self, instant: int) -> Price:
        """The price that held at an instant."""
        held = self.prices[0][1]
        for since, price in self.prices:
            if since <= instant:
                held = price
        return held


class _Model(Struct, frozen=True):
    match: Any
    row: SystemPrice


class _Provider(Struct, frozen=True):
    id: str
    named: Any  # the rule for `provider/…`
    claims: Any  # the rule for names without a provider
    lends: Sequence[str]  # whose models it offers, too
    models: Sequence[_Model]


class SystemPrices:
    """The table. `document` is what the file holds."""

    def __init__(self, document: Any) -> None:
        self.source: str = document["source"]
        self._providers = [_provider(item) for item in document["providers"]]
        self._by_id = {provider.id: provider for provider in self._providers}
        self.rows = [model.row for provider in self._providers for model in provider.models]
        self.find = lru_cache(NAMES_KEPT)(self._find)

    def _find(self, name: str) -> SystemPrice | None:
        """The row that a model's name means, None for a model that is not known."""
        name = name.lower()
        prefix, slash, rest = name.partition("/")
        if slash:
            provider = self._named(prefix)
            found = self._of(provider, rest) if provider else None
            if found is not None:
                return found
        if _BEDROCK_NAME.match(name) and _BEDROCK in self._by_id:
            found = self._of(self._by_id[_BEDROCK], name)
            if found is not None:
                return found
        for provider in self._providers:
            if provider.claims and matches(provider.claims, name):
                found = self._of(provider, name)
                if found is not None:
                    return found
        return None

    def _named(self, id: str) -> _Provider | None:
        if id in self._by_id:
            return self._by_id[id]
        return next((p for p in self._providers if p.named and matches(p.named, id)), None)

    def _of(self, provider: _Provider, name: str) -> SystemPrice | None:
        """The row of a provider's model, or of a model that it has of another provider."""
        for form in dict.fromkeys((name, _COMPACT_DATE.sub(r"-\1-\2-\3", name))):
            for each in (provider, *(self._by_id[id] for id in provider.lends)):
                for model in each.models:
                    if matches(model.match, form):
                        return model.row
        return None


def matches(rule: Any, text: str) -> bool:
    """Whether a rule holds for a text in lower case; `[kind, value]`, as the table has it."""
    kind, value = rule
    match kind:
        case "starts":
            return text.startswith(value)
        case "ends":
            return text.endswith(value)
        case "contains":
            return value in text
        case "equals":
            return bool(text == value)
        case "regex":
            return re.search(value, text) is not None
        case "or":
            return any(matches(each, text) for each in value)
        case "and":
            return all(matches(each, text) for each in value)
    raise ValueError(f"a rule of kind {kind!r}")


def _provider(document: Any) -> _Provider:
    models = []
    for name, rule, prices in document["models"]:
        held = tuple((since, Price(*price)) for since, *price in prices)
        models.append(_Model(rule, SystemPrice(name, document["id"], held)))
    return _Provider(
        document["id"], document["named"], document["claims"], document["lends"], models
    )


@cache
def system_prices() -> SystemPrices:
    """The table of this release."""
    file = resources.files("schemas.observability") / "system_prices.json"
    return SystemPrices(json.loads(file.read_text()))
