"""Postgres views in memory: the real reducers, and what the statements mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from projections.runner import fold, reduce_all
from projections.statements import Delete, Put, Set, View
from streams.effects import Recorded

Row = dict[str, Any]


class ViewRows:
    """Rows by view name and key, brought up to date by `apply`."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        self.rows: dict[str, dict[tuple[Any, ...], Row]] = {view.name: {} for view in views}

    async def apply(self, recorded: Sequence[Recorded]) -> None:
        """Fold new events in, as the decider loop does."""
        events = [(item.envelope, item.event) for item in recorded]
        for view in self._views:
            table = self.rows[view.name]
            statements = [made for _, made in reduce_all([view], events)]
            for batch in fold(view, statements):
                for key, statement in batch.items():
                    match statement:
                        case Put():
                            base = table.get(key, dict(statement.key))
                            table[key] = base | _loaded(view.columns, statement.values)
                        case Set() if key in table:
                            table[key] |= _loaded(view.columns, statement.values)
                        case Delete():
                            table.pop(key, None)

    def where(self, view: str, *columns: str) -> Callable[..., list[Row]]:
        """A function from values to the rows whose columns have them."""

        def rows(*values: Any) -> list[Row]:
            wanted = dict(zip(columns, values, strict=True))
            return [
                row
                for row in self.rows[view].values()
                if all(row[name] == value for name, value in wanted.items())
            ]

        return rows


def _loaded(columns: Mapping[str, str], values: Mapping[str, Any]) -> Row:
    """Values as the database hands them back: jsonb decoded."""
    return {
        name: msgspec.json.decode(value)
        if columns[name] == "jsonb" and value is not None
        else value
        for name, value in values.items()
    }
