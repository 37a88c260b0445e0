"""The object store as handlers see it: away is a 503."""

import contextlib
import logging
from collections.abc import Awaitable, Iterable, Iterator
from typing import TypeVar

from api.problems import Problem
from infra.objects import Objects, ObjectsUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def answered(call: Awaitable[T]) -> T:
    """What the store answers. Raises Problem (503) when it does not."""
    with reachable():
        return await call


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Raises Problem (503) when the store does not answer what is asked of it here."""
    try:
        yield
    except ObjectsUnavailable as error:
        raise Problem(
            503,
            "objects_unavailable",
            f"The object store cannot be reached; try again in {error.retry_after} s",
            headers={"retry-after": str(error.retry_after)},
        ) from error


async def discard(objects: Objects, names: Iterable[str]) -> None:
    """Remove objects that nothing refers to, as far as the store answers."""
    for name in names:
        try:
            await objects.delete(name)
        except ObjectsUnavailable:
            # It costs room, not correctness.
            logger.warning("an unused object stays behind", extra={"object": name})
