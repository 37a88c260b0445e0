"""The small part of JSONPath (RFC 9535) that policies use: names and indexes, one value at most.

`$.payment.lines[0]['unit price']`; the leading `$` may be left out (`payment.amount`).
"""

import re
from functools import lru_cache
from typing import Any

_STEP = re.compile(r"\.?([A-Za-z_][\w-]*)|\[(\d{1,9})\]|\['([^']+)'\]")


class PathFault(ValueError):
    """Text that is not a path: the message says from which character on."""


class Absent:
    """What a path finds where there is nothing; `null` is something."""


ABSENT = Absent()


@lru_cache(maxsize=4096)
def parse_path(text: str) -> tuple[str | int, ...]:
    """The steps of a path, names as str and indexes as int. Raises PathFault."""
    at = 1 if text.startswith("$") else 0
    steps: list[str | int] = []
    while at < len(text):
        match = _STEP.match(text, at)
        # A bare name may only open a path; `a.b`, `$.a`, but not `$a`.
        bare = match is not None and match[1] is not None and match[0][0] != "."
        if match is None or (bare and at > 0) or (match[0][0] == "." and at == 0):
            raise PathFault(f"not a path from character {at + 1} on: {text[at : at + 20]!r}")
        name, index, quoted = match.groups()
        steps.append(int(index) if index is not None else name or quoted)
        at = match.end()
    if not steps:
        raise PathFault("a path names at least one field")
    return tuple(steps)


def find(document: Any, steps: tuple[str | int, ...]) -> Any:
    """The value at the path, or ABSENT."""
    for step in steps:
        if isinstance(step, int):
            if not isinstance(document, list) or step >= len(document):
                return ABSENT
        elif not isinstance(document, dict) or step not in document:
            return ABSENT
        document = document[step]
    return document
