"""What may be committed: everything up to the first record that is not done."""

from hypothesis import given
from hypothesis import strategies as st

from fhe_workers.progress import Progress


def test_nothing_is_committable_before_the_first_is_done() -> None:
    progress = Progress()
    for offset in (5, 6, 9):
        progress.begin(offset)
    progress.end(6)
    progress.end(9)
    assert progress.take_committable() is None
    progress.end(5)
    # Offsets have gaps (transaction markers); what is committed is the next one to read.
    assert progress.take_committable() == 10
    assert progress.take_committable() is None


def test_a_failed_commit_is_offered_again_unless_it_was_overtaken() -> None:
    progress = Progress()
    progress.begin(1)
    progress.begin(2)
    progress.end(1)
    assert progress.take_committable() == 2
    progress.give_back(2)
    assert progress.take_committable() == 2
    progress.end(2)
    progress.give_back(2)
    assert progress.take_committable() == 3


@given(st.permutations(range(12)))
def test_no_order_of_ends_commits_past_an_unfinished_record(order: list[int]) -> None:
    progress = Progress()
    for offset in range(12):
        progress.begin(offset)
    ended: set[int] = set()
    for offset in order:
        ended.add(offset)
        progress.end(offset)
        committable = progress.take_committable()
        if committable is not None:
            assert set(range(committable)) <= ended
            assert committable not in ended
