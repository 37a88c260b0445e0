"""What a rebuild says of the live table and the one it made."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

Advance = Callable[[int, int, str], None]
"""Called as (offsets done, offsets in all, note)."""

DIFFERENCES_MAX = 10


class CannotRebuild(Exception):
    """The rebuild was not begun, or was given up with the live table as it was."""


class Difference(Struct, frozen=True):
    """A row on which the tables do not agree.

    columns: those that differ, none when the row is in one table only. Values are not told: some
    are hashes of secrets. table: empty when the view has only one.
    """

    key: dict[str, Any]
    kind: Literal["only in the live table", "only in the rebuilt table", "differs"]
    columns: list[str]
    table: str = ""


class Side(Struct, frozen=True):
    """A table's rows and a hash of their content, whatever their order."""

    rows: int
    content: str


class Report(Struct, frozen=True, kw_only=True):
    """What a rebuild found and did.

    events: folded. kept: which one is live now. aside: where the other one is, empty when it is
    gone. differences: the first of them, when the two do not agree.
    """

    view: str
    events: int
    seconds: float
    live: Side
    rebuilt: Side
    kept: str
    aside: str = ""
    differences: Sequence[Difference] = ()

    @property
    def agree(self) -> bool:
        """Whether the live table was the fold of the log."""
        return self.live == self.rebuilt
