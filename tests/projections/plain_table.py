"""A table in memory that statements are carried out on, one after another."""

from typing import Any

from projections.statements import Delete, Put, Set, Statement


def carry_out(table: dict[str, dict[str, Any]], statement: Statement) -> None:
    """Change the row with the statement's `id`."""
    id = statement.key["id"]
    match statement:
        case Put():
            table.setdefault(id, {}).update(statement.values)
        case Set():
            if id in table:
                table[id].update(statement.values)
        case Delete():
            table.pop(id, None)
