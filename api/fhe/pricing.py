"""What computations cost: `GET /api/v1/tfhe/pricing`, for everybody."""

from msgspec import Struct

from api.problems import FHE
from api.routing import Call, Route, Who
from commands.fhe.pricing import ANY, PRICE_LISTS, PriceList, price_list_at
from infra.clock import iso


class PriceItem(Struct, frozen=True):
    """The price of one operation under a parameter set; `*` is every other operation of the set.

    cached_nanodollars: when the result is known already, from the same operands and key.
    """

    operation: str
    params_id: str
    nanodollars: int
    cached_nanodollars: int


class PriceListItem(Struct, frozen=True):
    """The prices from `effective_at` on. A nanodollar is 10^-9 US dollars.

    default_nanodollars: for a parameter set that has no prices of its own.
    """

    version: str
    effective_at: str
    default_nanodollars: int
    prices: list[PriceItem]


class PricingItem(Struct, frozen=True):
    """The prices that hold now, and those that are announced."""

    currency: str
    current: PriceListItem
    announced: list[PriceListItem]


async def get_pricing(call: Call[None, None]) -> PricingItem:
    """The price lists, current and announced."""
    now = call.services.clock.now()
    current = price_list_at(now)
    announced = [_item(each) for each in PRICE_LISTS if each.effective_at > now]
    return PricingItem("usd", _item(current), announced)


def _item(prices: PriceList) -> PriceListItem:
    rows = [
        PriceItem(operation, params_id, price, prices.cached_price(price))
        for params_id, of_set in prices.prices.items()
        for operation, price in sorted(of_set.items(), key=lambda row: (row[0] == ANY, row[0]))
    ]
    return PriceListItem(prices.version, iso(prices.effective_at), prices.default, rows)


ROUTES = [
    Route(
        "GET",
        "/api/v1/tfhe/pricing",
        get_pricing,
        dialect=FHE,
        who=Who.PUBLIC,
        tags=("tfhe",),
        summary="Show prices",
        response=PricingItem,
        description="Prices of gates and of every other operation, by parameter set. A job keeps "
        "the price it was accepted at.",
    ),
]
