"""Calls priced anew: a later version of what the calls of some time cost. Nothing is overwritten.

Stream: `observability.repricing/calls`, one for each tenant. A version names the price of every
model and stretch of time that it is about, so that what it makes of a call hangs on nothing else.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.observability.model_cost import ModelName, TokenPrice
from schemas.types import Micros

STREAM = "observability.repricing"
STREAM_ID = "calls"

PRICES_MAX = 500  # with the longest names still less than a record may hold


class NewPrice(Struct, frozen=True, kw_only=True):
    """Calls of `model` made from `since` until (not at) `until` cost so much a token.

    source: override or default. price_model: what the price goes by; price_revision: which one of
    the tenant's own it is.
    """

    model: ModelName
    since: Micros
    until: Micros
    input_price_pico: TokenPrice
    output_price_pico: TokenPrice
    source: str
    price_model: str
    price_revision: int = 0


NewPrices = Annotated[list[NewPrice], Meta(max_length=PRICES_MAX)]


class CallsRepriced(Struct, frozen=True, tag="observability.calls_repriced.v1", kw_only=True):
    """Calls that came without a cost have another one now. Of versions that overlap the last holds.

    version counts a tenant's repricings from 1; 0 is the cost at which a call came in.
    """

    version: int
    repriced_at: Micros
    prices: NewPrices
