"""Carry out one piece of work in a child: find or load its parameters and key, then compute."""

import time

from fhe_workers.contexts import ContextCache
from fhe_workers.engines import Loaded, Outcome, engine_of
from fhe_workers.messages import Work
from fhe_workers.refusals import JobRefused
from schemas.fhe.parameters import PARAMETER_SETS, ParameterSet


def context_for(work: Work, cache: ContextCache) -> Loaded | None:
    """What `work` computes with, or None when the key must be fetched first (see `learn_key`)."""
    if work.needs_key:
        return cache.get(work.key_name)
    context = cache.get(work.params_id)
    if context is None:
        params = parameters(work.params_id)
        context = engine_of(params).load(params, [])
        cache.put(work.params_id, context)
    return context


def learn_key(work: Work, parts: list[bytes], cache: ContextCache) -> Loaded:
    """Load the key that `work` needs and keep it; raises `JobRefused` (key_invalid)."""
    params = parameters(work.params_id)
    context = engine_of(params).load(params, parts)
    cache.put(work.key_name, context)
    return context


def compute(work: Work, context: Loaded, operands: list[bytes]) -> Outcome:
    """The resulting ciphertext; raises `JobRefused`."""
    if len(operands) != len(work.operand_kinds):
        raise JobRefused("unsupported_operation", "an operand is missing")
    return engine_of(parameters(work.params_id)).compute(work, context, operands)


def parameters(params_id: str) -> ParameterSet:
    """The set called `params_id`; raises `JobRefused` when there is none."""
    params = PARAMETER_SETS.get(params_id)
    if params is None:
        raise JobRefused("unsupported_operation", f"no parameter set {params_id}")
    return params


def cpu_us_since(start: int) -> int:
    """Processor time in microseconds since `start` (from time.process_time_ns)."""
    return (time.process_time_ns() - start) // 1000
