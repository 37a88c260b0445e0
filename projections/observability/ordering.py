"""Orders of lists: by one thing, and then by others, so that every row has one place.

A row's place is the values of its order's keys. A page begins behind a place (what a cursor holds),
or after so many rows (an offset). Behind a place nothing is passed over row by row, so that a page
costs the same however deep it lies.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

Kind = Literal["text", "integer", "float", "instant"]
Place = Sequence[Any]
_PARAMETERS: dict[Kind, str] = {
    "text": "{{{}:String}}",
    "integer": "{{{}:Int64}}",
    "float": "{{{}:Float64}}",
    "instant": "fromUnixTimestamp64Micro({{{}:Int64}}, 'UTC')",
}


class Query(NamedTuple):
    """A SELECT (or a part of one) and its parameters."""

    sql: str
    params: dict[str, Any]


class Key(NamedTuple):
    """An expression to order by. An instant is read, and given back, as microseconds."""

    sql: str
    kind: Kind
    descending: bool = False


class Order(Struct, frozen=True):
    """Keys that together tell any two rows apart."""

    keys: tuple[Key, ...]

    @property
    def selected(self) -> str:
        """The values of the keys, as columns of a SELECT."""
        return ", ".join(
            f"{f'toUnixTimestamp64Micro({key.sql})' if key.kind == 'instant' else key.sql}"
            f" AS key_{number}"
            for number, key in enumerate(self.keys)
        )

    @property
    def by(self) -> str:
        """What stands after ORDER BY."""
        return ", ".join(f"{key.sql} {'DESC' if key.descending else 'ASC'}" for key in self.keys)

    def place(self, row: Mapping[str, Any]) -> Place:
        """The place of a row that has the columns of `selected`."""
        return [row[f"key_{number}"] for number in range(len(self.keys))]

    def behind(self, place: Place | None) -> Query:
        """The condition that a row comes after a place; true without one."""
        if place is None:
            return Query("true", {})
        condition = "false"
        for number, key in reversed(list(enumerate(self.keys))):
            value = _PARAMETERS[key.kind].format(f"after_{number}")
            further = f"{key.sql} {'<' if key.descending else '>'} {value}"
            condition = f"({further} OR ({key.sql} = {value} AND {condition}))"
        # Said once more by itself, so that an index on the first key can leave out what is before.
        first = self.keys[0]
        value = _PARAMETERS[first.kind].format("after_0")
        condition = f"{first.sql} {'<=' if first.descending else '>='} {value} AND {condition}"
        return Query(condition, {f"after_{number}": value for number, value in enumerate(place)})


class Window(NamedTuple):
    """Which page of an ordered list: so many rows, after so many others or behind a place."""

    limit: int
    offset: int = 0
    behind: Place | None = None


def page_of(fields: str, source: Query, order: Order, window: Window) -> Query:
    """A page of what `source` (FROM … WHERE …) gives, with one row more to tell if there are more.

    The rows have the keys of their place besides the fields.
    """
    condition, params = order.behind(window.behind)
    sql = (
        f"SELECT {fields}, {order.selected} {source.sql} AND {condition} ORDER BY {order.by}"
        " LIMIT {limit:UInt32} OFFSET {offset:UInt64}"
    )
    page = {"limit": window.limit + 1, "offset": window.offset}
    return Query(sql, {**source.params, **params, **page})


def instant_parameter(name: str) -> str:
    """A parameter in microseconds as an instant."""
    return _PARAMETERS["instant"].format(name)


def like(text: str) -> str:
    """A LIKE pattern for a substring, in lower case as the searched text is."""
    text = text.lower()
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return f"%{text}%"
