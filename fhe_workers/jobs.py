"""Carry out one piece of work in a child: find or load the context, compute, serialise."""

import time

import numpy as np

from fhe_workers import ckks, keys
from fhe_workers.contexts import Context, ContextCache
from fhe_workers.messages import Work, needs_key
from fhe_workers.refusals import JobRefused
from schemas.fhe.parameters import PARAMETER_SETS, ParameterSet


def context_for(work: Work, cache: ContextCache) -> Context | None:
    """The context for `work`, or None when the key must be fetched first (see `learn_key`)."""
    if needs_key(work):
        return cache.get(work.key_name)
    context = cache.get(work.params_id)
    if context is None:
        context = Context(parameters(work.params_id))
        cache.put(work.params_id, context)
    return context


def learn_key(work: Work, parts: list[bytes], cache: ContextCache) -> Context:
    """Load the key that `work` needs and keep it; raises `JobRefused` (key_invalid)."""
    try:
        context = keys.load_keys(parameters(work.params_id), parts)
    except (ValueError, RuntimeError) as error:
        raise JobRefused("key_invalid", f"the engine refused the key: {error}"[:200]) from None
    cache.put(work.key_name, context)
    return context


def compute(work: Work, context: Context, operands: list[bytes]) -> tuple[ckks.Ciphertext, bytes]:
    """The resulting ciphertext and its bytes; raises `JobRefused`."""
    if len(operands) != len(work.operand_kinds):
        raise JobRefused("unsupported_operation", "an operand is missing")
    try:
        result = _apply(work, context, operands)
        return result, ckks.dump(result)
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


def parameters(params_id: str) -> ParameterSet:
    """The set called `params_id`; raises `JobRefused` when there is none."""
    params = PARAMETER_SETS.get(params_id)
    if params is None:
        raise JobRefused("unsupported_operation", f"no parameter set {params_id}")
    return params


def cpu_us_since(start: int) -> int:
    """Processor time in microseconds since `start` (from time.process_time_ns)."""
    return (time.process_time_ns() - start) // 1000


def _values(data: bytes) -> ckks.Values:
    if len(data) % 8:
        raise JobRefused("plaintext_invalid", "the plaintext is not a list of doubles")
    return np.frombuffer(data, dtype="<f8")
