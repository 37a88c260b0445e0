"""What an operation costs: price lists by version, each from an instant on.

A price is whole nanodollars (10^-9 US dollars) for one operation: one gate of a circuit, one
multiplication. A list is never changed once it holds; a new one is added with a later instant, and
each job keeps the version and the amount that it was accepted at.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

# What stands for every operation that a list does not name.
ANY = "*"


class Price(Struct, frozen=True):
    """What a job costs in nanodollars, and the list that says so."""

    version: str
    amount: int


class PriceList(Struct, frozen=True, kw_only=True):
    """The prices from `effective_at` (microseconds UTC) on, until the next list's.

    prices: parameter set -> operation -> nanodollars, with `ANY` for the others of the set.
    default: for a set that is not named. cached_percent: what a result that is known already costs
    of the price.
    """

    version: str
    effective_at: int
    prices: Mapping[str, Mapping[str, int]]
    default: int
    cached_percent: int

    def price(self, operation: str, params_id: str) -> int:
        """Nanodollars for one operation."""
        of_set = self.prices.get(params_id, {})
        return of_set.get(operation, of_set.get(ANY, self.default))

    def cached_price(self, price: int) -> int:
        """What a price comes to for a result that is known already, rounded up."""
        return -(-price * self.cached_percent // 100)


def _ckks(add: int, multiply: int, matmul: int) -> Mapping[str, int]:
    return MappingProxyType(
        {"add": add, "multiply": multiply, "matmul": matmul, "model": matmul, ANY: matmul}
    )


def _gates(gate: int, mux: int, negation: int) -> Mapping[str, int]:
    two = dict.fromkeys(("nand", "and", "or", "xor"), gate)
    # A circuit is paid by the gate, whichever they are.
    return MappingProxyType({**two, "mux": mux, "not": negation, "circuit": gate, ANY: gate})


# Sorted by `effective_at`; the first holds since ever.
PRICE_LISTS: Sequence[PriceList] = (
    PriceList(
        version="2026-01",
        effective_at=0,
        prices=MappingProxyType(
            {
                "ckks-n13": _ckks(500, 2_000, 30_000),
                "ckks-n14": _ckks(1_000, 5_000, 60_000),
                "ckks-n14d5": _ckks(1_500, 8_000, 100_000),
                "ckks-boot-n15": MappingProxyType(
                    {"add": 3_000, "multiply": 10_000, "bootstrap": 1_000_000, ANY: 1_000_000}
                ),
                "bgv-n13": _gates(2_000, 2_000, 500),
                "tfhe-132": _gates(4_000, 8_000, 100),
            }
        ),
        default=10_000,
        cached_percent=10,
    ),
)


def price_list_at(now: int, lists: Sequence[PriceList] = PRICE_LISTS) -> PriceList:
    """The list that holds at `now` (microseconds UTC)."""
    return max((each for each in lists if each.effective_at <= now), key=lambda e: e.effective_at)


def price_of(
    operation: str, params_id: str, quantity: int, now: int, *, cached: bool = False
) -> Price:
    """What `quantity` operations cost at `now`. cached: the result is known already."""
    prices = price_list_at(now)
    amount = quantity * prices.price(operation, params_id)
    return Price(prices.version, prices.cached_price(amount) if cached else amount)
