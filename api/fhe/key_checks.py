"""The engine's own look at a key, and keys that it makes: in a process of their own each time.

The reader of an upload (`schemas/fhe/key_material.py`) has accepted every byte before. That the
engine loads what it accepts, a process shows that may die of it.
"""

import logging
from collections.abc import AsyncIterator, Sequence

import msgspec

from api.fhe.storage import reachable
from api.problems import Problem
from api.services import Services
from infra.build.bootstrap import cached_helper
from infra.sandbox import ChildFailed, unpacked
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.key_work import CheckKey, GenerateKeys, KeyVerdict
from schemas.fhe.parameters import PARAMETER_SETS, LattigoParameters

logger = logging.getLogger(__name__)


def refused(reason: str, message: str) -> Problem:
    """The 422 of an upload that is no evaluation key; its code is the reason."""
    return Problem(422, reason, message, details={"reason": reason})


async def check_parts(services: Services, params_id: str, parts: Sequence[StoredPart]) -> None:
    """Have the engine load stored parts, each alone. Raises Problem (422, 503)."""
    kinds, sizes = [part.kind for part in parts], [part.size_bytes for part in parts]
    is_lattigo = isinstance(PARAMETER_SETS[params_id], LattigoParameters)
    helper = cached_helper() if is_lattigo else None
    work = CheckKey(params_id, kinds, sizes, str(helper or ""))

    async def stored() -> AsyncIterator[bytes]:
        for part in parts:
            async for chunk in services.objects.stream(part.object):
                yield chunk

    try:
        with reachable():
            answer = await services.key_child.ask(work, stored())
        verdict = msgspec.json.decode(answer, type=KeyVerdict)
    except (ChildFailed, msgspec.DecodeError) as error:
        logger.warning("a key ended the process that looked at it: %s", error)
        raise refused("key_invalid", "the engine could not load the key") from None
    if verdict.reason == "engine_unavailable":
        raise Problem(503, verdict.reason, verdict.message)
    if verdict.reason:
        raise refused(verdict.reason, verdict.message)


async def generated_parts(
    services: Services, params_id: str, rotations: Sequence[int]
) -> dict[str, memoryview]:
    """The parts of fresh keys, by kind: the secret one, too. Raises Problem (503)."""
    try:
        answer = await services.key_child.ask(GenerateKeys(params_id, list(rotations)))
        return unpacked(answer)
    except ChildFailed as error:
        logger.warning("no keys were made: %s", error)
        message = "The keys could not be made; try again"
        raise Problem(503, "keys_not_made", message, headers={"retry-after": "5"}) from None
