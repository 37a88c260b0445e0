"""Keys of persons: what is reported of a person is sealed under one, and is gone when it is.

A key is 32 random bytes in the object store, one object for each generation of a person's keys,
`persons/<tenant>/<person>/<generation>`. The object is wrapped under a key that derives from
WEIR_SECRET_KEY, so neither the store nor the secret alone opens anything; no event and no database
has it. It is written once, whoever of several processes comes first. To destroy it, it is
overwritten with a mark: so a key that was destroyed can be told from one that is lost, and the
person's next key is another generation, which no late repeat of the destruction can hit.
"""

import asyncio
import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.ids import Signer
from infra.objects import ObjectMissing, Objects
from streams.memory import Recent

KEY_BYTES = 32
NONCE_BYTES = 12
REMEMBERED = 10_000
AT_ONCE = 16
"""Objects that are read side by side."""
_DROPPED = b"dropped"


class KeyUnusable(Exception):
    """The object is there, and is no key that this installation's secret opens."""


class PersonKey(NamedTuple):
    """A key. name: `<person>/<generation>`, unique within the tenant."""

    name: str
    cipher: AESGCM


def seal(cipher: AESGCM, data: bytes, place: bytes) -> bytes:
    """Data encrypted for one place, its nonce before it."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, place)


def unseal(cipher: AESGCM, sealed: bytes, place: bytes) -> bytes:
    """What was sealed for this place. Raises ValueError for anything else."""
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
    except (InvalidTag, ValueError):
        raise ValueError("it was not sealed under this key for this place") from None


class PersonKeys:
    """The keys of all tenants in one object store.

    `current` and `current_or_new` are for whoever reports: they remember a person's key until
    `forget` or `clear`. Everything raises ObjectsUnavailable when the store does not answer, and
    KeyUnusable.
    """

    def __init__(self, objects: Objects, signer: Signer) -> None:
        self._objects = objects
        self._signer = signer
        self._current: Recent[tuple[str, str], PersonKey] = Recent(REMEMBERED)
        self._forgotten = 0
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def current(self, tenant: str, person: str) -> PersonKey | None:
        """The key that reports of a person are sealed under now, None while there is none."""
        known, missing = self._current.pick([(tenant, person)])
        if not missing:
            return known[tenant, person]
        before = self._forgotten
        name, content = await self._newest(tenant, person)
        return self._remembered(tenant, person, self._opened(tenant, name, content), before)

    async def current_or_new(self, tenant: str, person: str) -> PersonKey:
        """As `current`; makes the person's first key, or the next one after an erasure."""
        while (found := await self.current(tenant, person)) is None:
            before = self._forgotten
            name, content = await self._newest(tenant, person)
            if content not in (b"", _DROPPED):
                continue  # another process has made it meanwhile
            generation = int(name.rpartition("/")[2]) + 1 if name else 0
            made = f"{person}/{generation}"
            key = os.urandom(KEY_BYTES)
            wrapped = self._signer.seal(key.hex(), *_purpose(tenant, made))
            if await self._objects.create(_object(tenant, made), wrapped.encode()):
                found = PersonKey(made, AESGCM(key))
                self._remembered(tenant, person, found, before)
                return found
        return found

    def forget(self, tenant: str, name: str) -> None:
        """Remember a key no more, since it was destroyed."""
        self._forgotten += 1
        self._current.drop((tenant, name.partition("/")[0]))

    def clear(self) -> None:
        """Remember nothing: some destructions may have passed unnoticed."""
        self._forgotten += 1
        self._current.clear()

    async def newest(self, tenant: str, person: str) -> str:
        """The name of a person's newest key, destroyed or not; empty if there never was one."""
        return (await self._newest(tenant, person))[0]

    async def _newest(self, tenant: str, person: str) -> tuple[str, bytes]:
        """The name and the content of a person's newest object; empty if there never was one."""
        name, content, generation = "", b"", 0
        while content in (b"", _DROPPED):
            following = f"{person}/{generation}"
            try:
                content = await self._read(tenant, following)
            except ObjectMissing:
                break
            name, generation = following, generation + 1
        return name, content

    def _remembered(
        self, tenant: str, person: str, key: PersonKey | None, before: int
    ) -> PersonKey | None:
        """The key, remembered unless it may have been destroyed while it was read."""
        if key is not None and before == self._forgotten:
            self._current.update({(tenant, person): key})
        return key

    async def find(self, tenant: str, name: str) -> PersonKey | None:
        """A key by its name; None when it was destroyed.

        Raises ObjectMissing when it was never there, or was removed by somebody else.
        """
        return self._opened(tenant, name, await self._read(tenant, name))

    async def _read(self, tenant: str, name: str) -> bytes:
        async with self._turns:
            return await self._objects.whole(_object(tenant, name))

    def _opened(self, tenant: str, name: str, content: bytes) -> PersonKey | None:
        if content in (b"", _DROPPED):
            return None
        try:
            key = bytes.fromhex(self._signer.unseal(content.decode(), *_purpose(tenant, name)))
            return PersonKey(name, AESGCM(key))
        except ValueError as error:
            raise KeyUnusable(f"the key {name} of {tenant} cannot be unwrapped: {error}") from error

    async def destroy(self, tenant: str, name: str) -> None:
        """Make a key unreadable for ever; nothing when it is so already."""
        await self._objects.put(_object(tenant, name), _DROPPED)
        self.forget(tenant, name)


def _object(tenant: str, name: str) -> str:
    return f"persons/{tenant}/{name}"


def _purpose(tenant: str, name: str) -> tuple[str, str, str]:
    return "person key", tenant, name
