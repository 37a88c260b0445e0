"""What the tokens of a model cost a tenant: its own prices, which go before the system's.

Stream: `observability.model_cost/<model>`, the model as calls name it (`openai/gpt-4o`). A price is
whole picodollars (10^-12 USD) for one token: a dollar for a million tokens is 1,000,000 of them.
Each setting holds from its `since` on, until the next one or its removal.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.types import Micros, Text

STREAM = "observability.model_cost"

PICODOLLARS = 1_000_000_000_000
"""How many make a dollar."""
COST_MAX_PICO = 1_000_000 * PICODOLLARS
"""The most that one call may cost, as much as a client may say."""
PICODOLLARS_PER_TOKEN = 1_000_000
"""Of a price of a dollar for a million tokens."""
PRICE_MAX = PICODOLLARS  # a dollar for a token

ModelName = Annotated[Text, Meta(min_length=1, max_length=500)]
TokenPrice = Annotated[int, Meta(ge=0, le=PRICE_MAX)]


class ModelCostSet(Struct, frozen=True, tag="observability.model_cost_set.v1", kw_only=True):
    """Calls of the model cost so much a token from `since` on.

    revision counts the settings of this model from 1. replaces: the revision that ends here, 0 when
    none did hold.
    """

    model: ModelName
    revision: int
    input_price_pico: TokenPrice
    output_price_pico: TokenPrice
    since: Micros
    replaces: int = 0


class ModelCostRemoved(
    Struct, frozen=True, tag="observability.model_cost_removed.v1", kw_only=True
):
    """The tenant's price holds no more from `until` on; the system's does, where there is one."""

    model: ModelName
    revision: int
    until: Micros


ModelCostEvent = ModelCostSet | ModelCostRemoved
