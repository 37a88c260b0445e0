"""Models on encrypted inputs: a matrix product, biases, and a sigmoid as a cubic."""

import numpy as np

from fhe_workers import ckks, linear
from fhe_workers.ckks import Ciphertext
from fhe_workers.contexts import Context
from schemas.fhe.models import Model


def infer(context: Context, model: Model, inputs: Ciphertext) -> Ciphertext:
    """The model's outputs, `model.levels` below the inputs; both repeat every `model.size` values.

    Raises `JobRefused`: key_missing_relin, key_missing_rotation, level_exhausted.
    """
    ckks.require_levels(context, inputs.level, model.levels)
    rows, columns = len(model.output_names), len(model.input_names)
    weights = np.zeros((model.size, model.size))
    weights[:rows, :columns] = model.weights
    scores = linear.matvec(context, weights, inputs)
    scores = ckks.add_plain(context, scores, _repeated(context, model, model.biases))
    if model.sigmoid is None:
        return scores
    constant, slope, cubic = (
        _repeated(context, model, [factor] * rows) for factor in model.sigmoid
    )
    # Of the outputs alone: what stands beside them stays zero.
    cube = ckks.multiply(
        context,
        ckks.multiply(context, scores, scores),
        ckks.multiply_plain(context, scores, cubic),
    )
    line = ckks.multiply_plain(context, scores, slope)
    return ckks.add_plain(context, ckks.add(context, cube, line), constant)


def _repeated(context: Context, model: Model, values: list[float]) -> ckks.Values:
    """One value for each output, then zeros, over all slots."""
    padded = np.zeros(model.size)
    padded[: len(values)] = values
    return np.tile(padded, context.params.slots // model.size)
