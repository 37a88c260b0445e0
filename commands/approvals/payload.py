"""What a decision is bound to: the SHA-256 of the canonical JSON of action and context.

Canonical is RFC 8785 (JCS): no white space, names sorted by UTF-16 code units, shortest escapes,
numbers as ECMAScript writes them. One difference: integers beyond 2^53 keep all their digits, since
agents do send 64-bit ids and rounding them would make two questions look like one.
"""

import hashlib
import math
from typing import Any

import msgspec

from schemas.types import Json

MAX_DEPTH = 32
MAX_BYTES = 10 * 1024

_EXPONENT_FROM = 21  # ECMAScript writes 1e21 and above, and below 1e-6, with an exponent
_EXPONENT_BELOW = -6


class NotCanonical(ValueError):
    """A JSON value that cannot be kept: too deep, too large, or a text with a NUL in it."""


def canonical_json(value: Any, max_bytes: int = MAX_BYTES) -> Json:
    """The canonical text of a decoded JSON value. Raises NotCanonical, in plain words."""
    text = _write(value, 0)
    if len(text.encode()) > max_bytes:
        raise NotCanonical(f"is larger than {max_bytes // 1024} KB of JSON")
    return text


def payload_hash(action: str, context: Json, modifications: Json | None = None) -> str:
    """SHA-256, in hex, of `{"action":…,"context":…}`, with `"modifications":…` if there are any.

    context and modifications are canonical already.
    """
    changed = "" if modifications is None else f',"modifications":{modifications}'
    text = f'{{"action":{_text(action)},"context":{context}{changed}}}'
    return hashlib.sha256(text.encode()).hexdigest()


def modified(context: Json, modifications: Json) -> Json:
    """The canonical context with the modifications in it: a JSON merge patch (RFC 7396).

    Both are canonical already, and objects.
    """
    merged = _merged(msgspec.json.decode(context), msgspec.json.decode(modifications))
    return canonical_json(merged, 2 * MAX_BYTES)


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), change)
    return merged


def _write(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise NotCanonical(f"is nested deeper than {MAX_DEPTH} levels")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case int():
            return str(value)
        case float():
            return _number(value)
        case list():
            return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
        case dict():
            names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
            fields = (f"{_text(name)}:{_write(value[name], depth + 1)}" for name in names)
            return "{" + ",".join(fields) + "}"
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _text(text: str) -> str:
    # Postgres cannot hold a NUL; msgspec's escapes are the short ones that RFC 8785 asks for.
    if "\x00" in text:
        raise NotCanonical("holds a NUL character")
    return msgspec.json.encode(text).decode()


def _number(number: float) -> str:
    """A double as ECMAScript's Number::toString writes it (ECMA-262, 6.1.6.1.20)."""
    if not math.isfinite(number):
        raise NotCanonical("holds a number that is not finite")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.digits times ten to the power of `point`.
    point = len(whole) + int(exponent or 0)
    if whole == "0":
        point -= len(fraction) - len(fraction.lstrip("0")) + 1
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= _EXPONENT_FROM:
        return sign + digits + "0" * (point - count)
    if 0 < point <= _EXPONENT_FROM:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _EXPONENT_BELOW < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"
