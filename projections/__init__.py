"""Read models: pure reducers and the queries on their tables. Views are listed here once."""

from projections.statements import View

VIEWS: list[View] = []
