"""What is wrong with a document that somebody wrote, and where. Pure."""

from collections.abc import Iterator

from msgspec import Struct

from commands.opening_hours import Hours, faults_of

MAX_LIST = 100
MAX_TEXT = 500


class Fault(Struct, frozen=True):
    """What is wrong, and the path of the field: `rules[2].when.context[0].path`."""

    place: str
    message: str


def text_faults(text: str, place: str, least: int = 1) -> Iterator[Fault]:
    """A text has from `least` to MAX_TEXT characters."""
    if not least <= len(text) <= MAX_TEXT:
        yield Fault(place, f"must have {least} to {MAX_TEXT} characters")


def hours_faults(hours: Hours, place: str) -> Iterator[Fault]:
    """What is wrong with a schedule at `place`."""
    for field, what in faults_of(hours):
        yield Fault(f"{place}.{field}" if field else place, what)
