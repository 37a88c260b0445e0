"""The places in flight, bounded in all and for each tenant; endpoints that are about to change."""

import pytest

from streams.platform.webhook_sender import Places, about_to_change


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


@pytest.mark.parametrize(
    ("status", "updated_at", "now", "expected"),
    [
        (None, None, 1_000, True),  # requested in the transaction that opens it
        ("active", 500, 1_000, False),
        ("closed", 500, 1_000, False),
        ("disabled", 600, 1_000, False),  # requested before it was disabled
        ("disabled", 500, 1_000, True),  # requested after: it was enabled in between
        ("disabled", 500, 501 + 60_000_000, False),
    ],
)
def test_an_endpoint_that_is_about_to_be_written_is_waited_for(
    status: str | None, updated_at: int | None, now: int, expected: bool
) -> None:
    row = {"endpoint_status": status, "endpoint_updated_at": updated_at, "since": 501}
    assert about_to_change(row, now) == expected
