"""CKKS arithmetic on serialised ciphertexts, with everything guarded that the engine leaves open.

The engine (Pyfhel on SEAL) forgets the level of a ciphertext that it loads, does not count a
rescale, encodes values that are not finite without a word, and makes a key of its own when it has
none. Here the level always comes from the ciphertext's own head, and the scale is the true one:
after a rescale it is not 2^40 but 2^80 divided by the prime that was dropped.
"""

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from Pyfhel import PyCtxt

from fhe_workers.contexts import Context
from fhe_workers.keys import require_relin_key
from fhe_workers.refusals import JobRefused
from schemas.fhe.ciphertext import CiphertextInvalid, read_shape
from schemas.fhe.parameters import VALUE_MAGNITUDE_MAX

Values = NDArray[np.float64]

# Twice the tolerance of a single ciphertext's scale.
_RELABEL_MAX = 2e-4

# What the engine says, and what it means to a client.
_ENGINE_REFUSALS = {
    "transparent": ("transparent_result", "the result would not hide its value"),
    "scale out of bounds": ("level_exhausted", "no level is left for this operation"),
    "end of modulus switching chain": ("level_exhausted", "no level is left for this operation"),
    "scale mismatch": ("scale_mismatch", "the operands have different scales"),
    "data is invalid": ("ciphertext_invalid", "a coefficient is not below its prime"),
    "too large": ("plaintext_invalid", "a plaintext value is too large for this level"),
}


class Ciphertext(Struct, frozen=True):
    """A loaded ciphertext and the level that the engine would forget."""

    body: Any
    level: int

    @property
    def scale(self) -> float:
        """The true scale, as the engine will write it into the ciphertext's head."""
        return float(self.body.scale)


def load(context: Context, data: bytes) -> Ciphertext:
    """A ciphertext of the context's parameter set; raises `JobRefused` when it is none."""
    try:
        # The residues the gateway has checked, and the engine checks them again on loading.
        shape = read_shape(data, context.params)
    except CiphertextInvalid as error:
        raise JobRefused("ciphertext_invalid", error.message) from None
    body = PyCtxt(pyfhel=context.engine, bytestring=data)
    body.mod_level = shape.level
    return Ciphertext(body, shape.level)


def dump(ciphertext: Ciphertext) -> bytes:
    """The serialised ciphertext, never compressed."""
    return bytes(ciphertext.body.to_bytes("none"))


def add(context: Context, left: Ciphertext, right: Ciphertext) -> Ciphertext:
    """left + right, at the lower of the two levels, with the operands' scales made equal first."""
    left, right = _align(context, left, right)
    body = context.engine.add(left.body, right.body, True)
    return at(body, left.level)


def add_plain(context: Context, left: Ciphertext, values: Values) -> Ciphertext:
    """left + values, slot by slot; missing values count as 0. Uses no level."""
    plain = encode(context, values, left.scale, left.level)
    return at(context.engine.add_plain(left.body, plain, True), left.level)


def multiply(context: Context, left: Ciphertext, right: Ciphertext) -> Ciphertext:
    """left * right, relinearised and rescaled: one level below the lower of the two.

    Raises `JobRefused`: key_missing_relin, level_exhausted.
    """
    require_relin_key(context)
    level = max(left.level, right.level)
    require_levels(context, level)
    body = context.engine.multiply(
        lowered(context, left, level).body, lowered(context, right, level).body, True
    )
    context.engine.relinearize(body)
    return rescaled(context, body, level)


def multiply_plain(context: Context, left: Ciphertext, values: Values) -> Ciphertext:
    """left * values, slot by slot and rescaled: one level lower, at exactly left's scale.

    Missing values count as 0. Raises `JobRefused`: level_exhausted, plaintext_invalid.
    """
    require_levels(context, left.level)
    # Encoded at the scale of the very prime that the rescale divides by, the scale is unchanged.
    plain = encode(context, values, next_prime(context, left.level), left.level)
    body = context.engine.multiply_plain(left.body, plain, True)
    return rescaled(context, body, left.level)


def refusal_of(error: Exception) -> JobRefused:
    """What an error of the engine means; the engine knows no classes, only sentences."""
    text = str(error)
    for fragment, (reason, message) in _ENGINE_REFUSALS.items():
        if fragment in text:
            return JobRefused(reason, message)
    return JobRefused("engine_refused", f"the engine refused the operation: {text[:200]}")


def _align(context: Context, left: Ciphertext, right: Ciphertext) -> tuple[Ciphertext, Ciphertext]:
    if left.level < right.level:
        return _brought_down(context, left, right), right
    if right.level < left.level:
        return left, _brought_down(context, right, left)
    return left, _relabelled(right, left.scale)


def _brought_down(context: Context, upper: Ciphertext, lower: Ciphertext) -> Ciphertext:
    """`upper` at the level and exactly the scale of `lower`.

    The last step down is a multiplication by one, encoded at the scale that makes the rescaled
    product's scale equal to `lower`'s; dropping primes alone would leave a relative error of
    about 1e-6.
    """
    last = lowered(context, upper, lower.level - 1)
    prime = next_prime(context, last.level)
    ones = np.ones(context.params.slots)
    plain = encode(context, ones, lower.scale * prime / last.scale, last.level)
    body = context.engine.multiply_plain(last.body, plain, True)
    return _relabelled(rescaled(context, body, last.level), lower.scale)


def _relabelled(ciphertext: Ciphertext, scale: float) -> Ciphertext:
    """The ciphertext with its scale declared to be `scale`, for scales that hardly differ.

    The relative difference becomes a relative error: nothing after `_brought_down`, up to 4e-5
    for a ciphertext that its client has lowered without rescaling.
    """
    if ciphertext.scale == scale:
        return ciphertext
    if abs(ciphertext.scale / scale - 1.0) > _RELABEL_MAX:
        raise JobRefused("scale_mismatch", "the operands have different scales")
    body = PyCtxt(copy_ctxt=ciphertext.body)
    body.set_scale(scale)
    return at(body, ciphertext.level)


def lowered(context: Context, ciphertext: Ciphertext, level: int) -> Ciphertext:
    """The ciphertext with primes dropped until it is at `level`; a copy unless it was."""
    if ciphertext.level == level:
        return ciphertext
    body = PyCtxt(copy_ctxt=ciphertext.body)
    for _ in range(level - ciphertext.level):
        context.engine.mod_switch_to_next(body)
    return at(body, level)


def rescaled(context: Context, body: Any, level: int) -> Ciphertext:
    """`body`, which is at `level`, divided by the prime that it loses; changes `body` itself."""
    context.engine.rescale_to_next(body)
    return at(body, level + 1)


def at(body: Any, level: int) -> Ciphertext:
    """`body` as a ciphertext that is at `level`, whatever the engine believes."""
    body.mod_level = level
    return Ciphertext(body, level)


def encode(context: Context, values: Values, scale: float, level: int) -> Any:
    """Values as the engine's plaintext at `level`; raises `JobRefused` (plaintext_invalid)."""
    if len(values) > context.params.slots:
        raise JobRefused("plaintext_invalid", f"more than {context.params.slots} plaintext values")
    # `not all <=` also catches what is not a number, which the engine encodes without a word.
    if not bool((np.abs(values) <= VALUE_MAGNITUDE_MAX).all()):
        raise JobRefused("plaintext_invalid", "a plaintext value is too large or not a number")
    # A copy, because the engine wants an array that it could write to.
    plain = context.engine.encodeFrac(np.array(values, dtype=np.float64), scale=scale)
    for _ in range(level):
        plain = context.engine.mod_switch_to_next_ptxt(plain, False)
    return plain


def next_prime(context: Context, level: int) -> float:
    """The prime that a rescale at `level` divides by."""
    return float(context.params.data_primes(level)[-1])


def require_levels(context: Context, level: int, count: int = 1) -> None:
    """Refuse what would need more than the levels below `level`."""
    if level + count > context.params.depth:
        raise JobRefused(
            "level_exhausted",
            f"{count} more levels are needed, and {context.params.params_id} has "
            f"{context.params.depth - level} left",
        )
