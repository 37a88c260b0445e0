"""The places in flight: bounded in all, and no tenant has all of them."""

from streams.platform.webhook_sender import Places


def test_places_are_bounded_in_all_and_for_each_tenant() -> None:
    places = Places(all=3, of_tenant=2)
    assert [places.take("ten_1") for _ in range(3)] == [True, True, False]
    assert [places.take("ten_2") for _ in range(2)] == [True, False]
    places.give("ten_1")
    assert places.take("ten_2")
    assert not places.take("ten_1")


def test_what_is_given_back_can_be_taken_again() -> None:
    places = Places(all=1, of_tenant=1)
    for _ in range(3):
        assert places.take("ten_1")
        places.give("ten_1")
