"""Whether a key and its parameter set give what an operation needs."""

from collections.abc import Sequence

from commands.fhe.evaluation_key import EvaluationKey
from commands.fhe.operations import Need, ValueOverflow
from commands.refusals import InvalidCommand, Refusal
from schemas.fhe.job import Operand
from schemas.fhe.key_material import RELIN
from schemas.fhe.parameters import CKKS_BOOT, PARAMETER_SETS, ParameterSet


class KeyMissingPart(InvalidCommand):
    """The operation needs a part that the evaluation key does not have."""

    code = "key_missing_part"


class KeyMissingRelin(KeyMissingPart):
    """Ciphertexts cannot be multiplied without a relinearisation key."""

    code = "key_missing_relin"


class KeyMissingRotation(KeyMissingPart):
    """The operation needs rotations that the evaluation key does not allow."""

    code = "key_missing_rotation"


class LevelExhausted(Refusal):
    """The operands' level leaves too few multiplications: the result would be garbage."""

    code = "level_exhausted"
    kind = "unprocessable"


def check_need(
    need: Need, operands: Sequence[Operand], key: EvaluationKey, params: ParameterSet
) -> None:
    """Raises KeyMissingRelin, KeyMissingPart, KeyMissingRotation, LevelExhausted, ValueOverflow."""
    missing = set(need.parts) - key.part_kinds
    if RELIN in missing:
        raise KeyMissingRelin("the evaluation key has no relinearisation part")
    if missing:
        part = min(missing)
        raise KeyMissingPart(f"the evaluation key has no {part} part", part=part)
    absent = sorted(set(need.rotations) - key.rotations)
    if absent:
        steps = ", ".join(map(str, absent))
        raise KeyMissingRotation(f"the evaluation key has no rotation by {steps}", missing=absent)
    if params.depth is not None and need.level > params.depth:
        raise LevelExhausted(
            f"the result would need level {need.level}, and {params.params_id} ends at "
            f"{params.depth}; {_way_out(params)}",
            level=max(operand.level for operand in operands),
            needed=need.level,
            depth=params.depth,
            deeper=_deeper(params),
        )
    largest = params.magnitude_max(need.level)
    if need.estimate.magnitude > largest:
        raise ValueOverflow(
            f"values up to {need.estimate.magnitude:.3g} do not fit, {largest:.3g} do; "
            f"{_way_out(params)}, or state a smaller magnitude of your ciphertexts",
            magnitude=need.estimate.magnitude,
            magnitude_max=largest,
            level=need.level,
            deeper=_deeper(params),
        )


def _way_out(params: ParameterSet) -> str:
    if params.scheme == CKKS_BOOT:
        return "bootstrap the operands first"
    return "encrypt under a set that goes deeper, or under one that can be refreshed"


def _deeper(params: ParameterSet) -> list[str]:
    """The sets that allow more, of which each ciphertext is made anew."""
    return [
        other.params_id
        for other in PARAMETER_SETS.values()
        if (other.depth or 0) > (params.depth or 0) and other.scheme == params.scheme
    ]
