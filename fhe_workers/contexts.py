"""Encryption contexts: made from a parameter id, kept while there is room, never from a blob."""

from collections import OrderedDict
from typing import Any

from Pyfhel import Pyfhel

from fhe_workers.engines import Loaded
from schemas.fhe.parameters import SealParameters


class ContextUnsound(Exception):
    """The engine did not make the parameters that were asked for; nothing may be computed."""


class Context:
    """An engine for one parameter set, with or without a client's evaluation key loaded."""

    def __init__(self, params: SealParameters) -> None:
        self.params = params
        self.engine: Any = Pyfhel()
        status = self.engine.contextGen(
            params.scheme,
            n=params.ring_degree,
            scale=params.scale,
            qi_sizes=list(params.prime_bits),
            sec=params.security_bits,
        )
        if status != "success: valid" or tuple(self.engine.qi) != params.primes:
            raise ContextUnsound(f"{params.params_id}: {status}, primes {self.engine.qi}")
        self.key_bytes = 0

    @property
    def resident_bytes(self) -> int:
        """About what the context costs in memory: tables per ring degree, and the keys.

        Measured 18 MB for 7.9 MB of keys at ring degree 8192, 47 MB for 26 MB at 16384.
        """
        return self.params.ring_degree * 1280 + self.key_bytes


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
