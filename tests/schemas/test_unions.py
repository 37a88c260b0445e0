"""The members of a union, whatever it is put together of."""

from msgspec import Struct

from schemas.unions import members


class One(Struct):
    pass


class Two(Struct):
    pass


class Three(Struct):
    pass


PAIR = One | Two


def test_members_are_in_order_and_those_of_a_union_inside_stand_in_its_place() -> None:
    assert members(Three | PAIR) == (Three, One, Two)


def test_a_struct_alone_is_its_only_member() -> None:
    assert members(One) == (One,)
