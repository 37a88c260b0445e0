"""Keys of persons over a folder, memory and S3: one for all who ask, and gone when destroyed."""

import asyncio

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.ids import Signer, new_id
from infra.objects import ObjectMissing, Objects
from streams.person_keys import KeyUnusable, PersonKeys, seal, unseal
from tests.infra.test_objects import objects, s3

__all__ = ["objects", "s3"]

SIGNER = Signer(bytes(range(32)))
TENANT = "ten_1"
PLACE = b"here"


def somebody() -> str:
    return SIGNER.person(TENANT, new_id("usr"))


def keys(objects: Objects) -> PersonKeys:
    """As another process has them."""
    return PersonKeys(objects, SIGNER)


async def test_many_processes_that_ask_at_once_get_one_key(objects: Objects) -> None:
    person = somebody()
    found = await asyncio.gather(*(keys(objects).current_or_new(TENANT, person) for _ in range(8)))
    assert {key.name for key in found} == {f"{person}/0"}
    sealed = seal(found[0].cipher, b"text", PLACE)
    assert {unseal(key.cipher, sealed, PLACE) for key in found} == {b"text"}


async def test_nobody_has_a_key_before_it_is_made(objects: Objects) -> None:
    person = somebody()
    assert await keys(objects).current(TENANT, person) is None
    assert await keys(objects).newest(TENANT, person) == ""
    with pytest.raises(ObjectMissing):
        await keys(objects).find(TENANT, f"{person}/0")


async def test_a_destroyed_key_is_gone_and_the_next_is_another(objects: Objects) -> None:
    person, mine = somebody(), keys(objects)
    first = await mine.current_or_new(TENANT, person)
    await mine.destroy(TENANT, first.name)
    assert await mine.current(TENANT, person) is None
    assert await mine.find(TENANT, first.name) is None
    assert await mine.newest(TENANT, person) == first.name
    second = await mine.current_or_new(TENANT, person)
    assert second.name == f"{person}/1"
    # A late repeat of the destruction does not hit it.
    await mine.destroy(TENANT, first.name)
    assert await keys(objects).newest(TENANT, person) == second.name
    with pytest.raises(ValueError, match="not sealed under this key"):
        unseal(second.cipher, seal(first.cipher, b"text", PLACE), PLACE)


async def test_a_remembered_key_is_used_until_it_is_forgotten(objects: Objects) -> None:
    person, mine = somebody(), keys(objects)
    first = await mine.current_or_new(TENANT, person)
    await keys(objects).destroy(TENANT, first.name)
    assert await mine.current(TENANT, person) == first
    mine.forget(TENANT, first.name)
    assert await mine.current(TENANT, person) is None


async def test_a_key_that_was_read_before_it_was_destroyed_is_not_remembered_after() -> None:
    objects, person = Objects("memory:///"), somebody()
    made = await keys(objects).current_or_new(TENANT, person)

    class Slow(Objects):
        async def whole(self, name: str) -> bytes:
            content = await objects.whole(name)
            if not read.is_set():
                read.set()
                await go_on.wait()
            return content

    read, go_on = asyncio.Event(), asyncio.Event()
    mine = keys(Slow("memory:///"))
    reading = asyncio.create_task(mine.current(TENANT, person))
    await read.wait()
    await keys(objects).destroy(TENANT, made.name)
    mine.forget(TENANT, made.name)  # as the tail of the log tells
    go_on.set()
    assert (await reading) is not None
    assert await mine.current(TENANT, person) is None


async def test_the_store_alone_opens_nothing(objects: Objects) -> None:
    person = somebody()
    await keys(objects).current_or_new(TENANT, person)
    with pytest.raises(KeyUnusable):
        await PersonKeys(objects, Signer(bytes(32))).current(TENANT, person)


async def test_a_key_in_another_s_place_is_none() -> None:
    objects, ada, bob = Objects("memory:///"), somebody(), somebody()
    await keys(objects).current_or_new(TENANT, ada)
    await objects.move(f"persons/{TENANT}/{ada}/0", f"persons/{TENANT}/{bob}/0")
    with pytest.raises(KeyUnusable):
        await keys(objects).current(TENANT, bob)


def test_what_was_sealed_for_one_place_opens_at_no_other() -> None:
    cipher = AESGCM(bytes(32))
    sealed = seal(cipher, b"text", PLACE)
    assert unseal(cipher, sealed, PLACE) == b"text"
    for broken in (sealed[:-1], sealed[:11], b"", sealed + b"x"):
        with pytest.raises(ValueError, match="not sealed"):
            unseal(cipher, broken, PLACE)
    with pytest.raises(ValueError, match="not sealed"):
        unseal(cipher, sealed, b"there")
    assert seal(cipher, b"text", PLACE) != sealed
