"""Erasures of persons: users whom runs are for, as their `user_id` names them.

Stream: `observability.erasure/<erasure id>`. No event names the user: `key` is the name of the key
that what was reported of the person is sealed under, `<person>/<generation>`. A person who was
erased and is named again gets the next generation. `PersonForgotten` lies on `telemetry`.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.types import Count, Micros

STREAM = "observability.erasure"
PERSON_STREAM = "observability.person"

KeyName = Annotated[str, Meta(pattern=r"^person_[0-9a-z]{16}/[0-9]{1,9}$")]


class UserErasureRequested(
    Struct, frozen=True, tag="observability.user_erasure_requested.v1", kw_only=True
):
    """Somebody wants a person erased."""

    key: KeyName
    at: Micros


class UserKeyDropped(Struct, frozen=True, tag="observability.user_key_dropped.v1", kw_only=True):
    """The key is destroyed: from `at` on, what is sealed under it can be read by nobody."""

    key: KeyName
    at: Micros


class ReadModelErased(Struct, frozen=True, tag="observability.read_model_erased.v1", kw_only=True):
    """A read model holds nothing of the person any more, and no record can bring it back.

    read_model: the view's name. rows: how many rows of it were the person's; they stay, without
    what was personal. positions: the records of `telemetry` up to which it was filled at least,
    one for each partition (`telemetry:0:1045`).
    """

    key: KeyName
    read_model: str
    rows: Count
    positions: list[str]
    at: Micros


class UserErasureCompleted(
    Struct, frozen=True, tag="observability.user_erasure_completed.v1", kw_only=True
):
    """Every read model is clean."""

    key: KeyName
    at: Micros


class PersonForgotten(Struct, frozen=True, tag="observability.person_forgotten.v1", kw_only=True):
    """The key is destroyed. Stands in every partition of `telemetry`: whoever keeps keys, or what
    was read with them, lets go of them here."""

    key: KeyName


ErasureEvent = UserErasureRequested | UserKeyDropped | ReadModelErased | UserErasureCompleted
