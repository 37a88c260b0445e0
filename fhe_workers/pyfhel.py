"""The engine Pyfhel (on SEAL): which of its operations a piece of work is."""

import numpy as np

from fhe_workers import ckks, keys
from fhe_workers.contexts import Context
from fhe_workers.engines import Outcome
from fhe_workers.messages import Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.parameters import SealParameters


def load(params: SealParameters, parts: list[bytes]) -> Context:
    """See `Engine.load`."""
    if not parts:
        return Context(params)
    try:
        return keys.load_keys(params, parts)
    except (ValueError, RuntimeError) as error:
        raise JobRefused("key_invalid", f"the engine refused the key: {error}"[:200]) from None


def compute(work: Work, loaded: Context, operands: list[bytes]) -> Outcome:
    """See `Engine.compute`."""
    try:
        result = _apply(work, loaded, operands)
        return Outcome(ckks.dump(result), result.level, result.scale)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        raise ckks.refusal_of(error) from None


def _apply(work: Work, context: Context, operands: list[bytes]) -> ckks.Ciphertext:
    match (work.operation, work.operand_kinds):
        case ("add", ("cipher", "cipher")):
            left, right = (ckks.load(context, data) for data in operands)
            return ckks.add(context, left, right)
        case ("multiply", ("cipher", "cipher")):
            left, right = (ckks.load(context, data) for data in operands)
            return ckks.multiply(context, left, right)
        case ("add", ("cipher", "plain")):
            return ckks.add_plain(context, ckks.load(context, operands[0]), _values(operands[1]))
        case ("multiply", ("cipher", "plain")):
            return ckks.multiply_plain(
                context, ckks.load(context, operands[0]), _values(operands[1])
            )
    raise JobRefused(
        "unsupported_operation", f"no {work.operation} of {', '.join(work.operand_kinds)}"
    )


def _values(data: bytes) -> ckks.Values:
    if len(data) % 8:
        raise JobRefused("plaintext_invalid", "the plaintext is not a list of doubles")
    return np.frombuffer(data, dtype="<f8")
