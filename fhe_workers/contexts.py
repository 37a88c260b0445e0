"""Encryption contexts: made from a parameter id, kept while there is room, never from a blob."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from Pyfhel import Pyfhel

from fhe_workers.engines import Loaded
from schemas.fhe.parameters import SealParameters


class ContextUnsound(Exception):
    """The engine did not make the parameters that were asked for; nothing may be computed."""


# Holds the 64 diagonals of a 64x64 matrix in each parameter set.
PLAINTEXT_CACHE_BYTES = 64 * 1024**2
# For each coefficient of each prime of each level.
_TABLE_BYTES = 110


class PlaintextCache:
    """Encoded diagonals of matrices: to encode one costs more than to multiply with it.

    Each context has its own, so that nobody can tell from the time that a computation takes which
    matrices somebody else uses. The least recently used matrix goes first; what does not fit beside
    the one at hand is not kept, since dropping its own diagonals would drop each before its use.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._matrices: OrderedDict[str, dict[tuple[int, int], Any]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def get(
        self, matrix: str, place: tuple[int, int], size_bytes: int, encode: Callable[[], Any]
    ) -> Any:
        """What is kept for a matrix (named by its hash) at `place`, or what `encode` makes now."""
        kept = self._matrices.setdefault(matrix, {})
        self._matrices.move_to_end(matrix)
        plain = kept.get(place)
        if plain is None:
            plain = encode()
            while self.resident_bytes + size_bytes > self._limit_bytes and len(self._matrices) > 1:
                oldest, _ = self._matrices.popitem(last=False)
                self._sizes.pop(oldest, None)
            if self.resident_bytes + size_bytes <= self._limit_bytes:
                kept[place] = plain
                self._sizes[matrix] = self._sizes.get(matrix, 0) + size_bytes
        return plain

    @property
    def resident_bytes(self) -> int:
        """What is kept, in bytes."""
        return sum(self._sizes.values())


class Context:
    """An engine for one parameter set, with or without a client's evaluation key loaded."""

    def __init__(self, params: SealParameters) -> None:
        self.params = params
        self.engine: Any = Pyfhel()
        modulus = params.plain_modulus
        status = self.engine.contextGen(
            params.scheme,
            n=params.ring_degree,
            qi_sizes=list(params.prime_bits),
            sec=params.security_bits,
            **({"t_bits": modulus.bit_length()} if modulus else {"scale": params.scale}),
        )
        made = tuple(self.engine.qi), self.engine.t if modulus else 0
        if status != "success: valid" or made != (params.primes, modulus):
            raise ContextUnsound(f"{params.params_id}: {status}, made {made}")
        self.key_bytes = 0
        self.rotations: frozenset[int] = frozenset()
        self.plaintexts = PlaintextCache(PLAINTEXT_CACHE_BYTES)

    @property
    def resident_bytes(self) -> int:
        """About what the context costs in memory: tables of each level, and the keys.

        Measured, with a key that relinearises only: 11 MB in ckks-n13, 32 in ckks-n14 and 58 in
        ckks-n14d5, of which the key has 1.6, 5.2 and 11.
        """
        count = len(self.params.primes)
        tables = count * (count + 1) // 2 * self.params.ring_degree * _TABLE_BYTES
        return tables + self.key_bytes + self.plaintexts.resident_bytes


class ContextCache:
    """The most recently used contexts, bounded by `limit_bytes`; the newest is always kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._contexts: OrderedDict[str, Loaded] = OrderedDict()

    def get(self, name: str) -> Loaded | None:
        """The context called `name`, which becomes the most recently used."""
        context = self._contexts.get(name)
        if context is not None:
            self._contexts.move_to_end(name)
        return context

    def put(self, name: str, context: Loaded) -> None:
        """Keep `context` as `name` and drop the least recently used ones beyond the limit."""
        self._contexts[name] = context
        self._contexts.move_to_end(name)
        total = sum(kept.resident_bytes for kept in self._contexts.values())
        while total > self._limit_bytes and len(self._contexts) > 1:
            _, dropped = self._contexts.popitem(last=False)
            total -= dropped.resident_bytes

    def __len__(self) -> int:
        return len(self._contexts)
