"""Prices: whole nanodollars by operation and parameter set, from an instant on."""

import msgspec
import pytest

from commands.fhe.operations import OPERATIONS
from commands.fhe.pricing import ANY, PRICE_LISTS, Price, price_list_at, price_of
from schemas.billing.account import NANODOLLARS_MAX
from schemas.fhe.parameters import PARAMETER_SETS

NEXT = msgspec.structs.replace(
    PRICE_LISTS[-1], version="later", effective_at=1_000, prices={"ckks-n13": {"add": 7}}, default=3
)
LISTS = [*PRICE_LISTS, NEXT]


def test_every_operation_of_every_set_has_a_price_of_its_own() -> None:
    for prices in PRICE_LISTS:
        missing = [
            (operation, params.params_id)
            for params in PARAMETER_SETS.values()
            for operation, scheme in OPERATIONS
            if scheme == params.scheme and operation not in prices.prices.get(params.params_id, {})
        ]
        assert missing == []


def test_a_price_is_for_each_operation() -> None:
    one = price_of("multiply", "ckks-n13", 1, 0)
    assert one == Price(PRICE_LISTS[0].version, 2_000)
    assert price_of("multiply", "ckks-n13", 3, 0).amount == 3 * one.amount
    assert price_of("nand", "tfhe-132", 200, 0).amount == 200 * 4_000


def test_a_known_result_costs_its_share_rounded_up() -> None:
    assert price_of("multiply", "ckks-n13", 1, 0, cached=True).amount == 200
    assert price_of("not", "tfhe-132", 1, 0, cached=True).amount == 10
    assert PRICE_LISTS[0].cached_price(1) == 1


def test_what_a_list_does_not_name_has_the_price_of_the_others() -> None:
    assert PRICE_LISTS[0].price("new", "tfhe-132") == PRICE_LISTS[0].prices["tfhe-132"][ANY]
    assert NEXT.price("multiply", "ckks-n13") == NEXT.price("add", "new-set") == 3


@pytest.mark.parametrize(("now", "version"), [(0, PRICE_LISTS[0].version), (1_000, "later")])
def test_a_list_holds_from_its_instant_on(now: int, version: str) -> None:
    assert price_list_at(now, LISTS).version == version
    assert price_list_at(999, LISTS).version == PRICE_LISTS[0].version


def test_lists_come_in_order_under_names_of_their_own() -> None:
    assert [each.effective_at for each in PRICE_LISTS] == sorted(
        {each.effective_at for each in PRICE_LISTS}
    )
    assert len({each.version for each in PRICE_LISTS}) == len(PRICE_LISTS)
    assert PRICE_LISTS[0].effective_at == 0
    for each in PRICE_LISTS:
        assert all(0 <= p <= NANODOLLARS_MAX for row in each.prices.values() for p in row.values())
