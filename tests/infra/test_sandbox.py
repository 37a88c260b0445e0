"""A process for dangerous work: it answers, or dies of its limits, and the parent lives on."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from infra.sandbox import ChildFailed, Limits, Sandbox, packed, unpacked
from schemas.fhe.key_work import CheckKey, GenerateKeys, KeyVerdict
from tests.fhe_workers.clients import Client

MODULE = "tests.infra.sandbox_child"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def asked(what: str) -> GenerateKeys:
    return GenerateKeys(what, [])


async def test_a_child_has_no_environment_and_cannot_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_SECRET_KEY", "ours")
    told = msgspec.json.decode(await Sandbox(MODULE).ask(asked(str(tmp_path / "file"))))
    assert "WEIR_SECRET_KEY" not in told["environment"]
    assert told["wrote"] is False and not (tmp_path / "file").read_bytes()
    assert (told["core"], told["dumpable"]) == (0, 0)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0


@pytest.mark.parametrize("way", ["memory", "signal", "talk", "sleep"])
async def test_however_it_ends_the_parent_is_told_and_nothing_is_left(way: str) -> None:
    limits = Limits(address_space_bytes=1024**3, wall_seconds=1.5, answer_bytes=1024**2)
    began = time.monotonic()
    with pytest.raises(ChildFailed):
        await Sandbox(MODULE, limits).ask(asked(way))
    assert time.monotonic() - began < 30


async def test_a_body_that_fails_ends_the_child_and_is_raised() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("the store is away")

    with pytest.raises(KeyError):
        await asyncio.wait_for(Sandbox(MODULE).ask(asked("read"), failing()), 30)


@pytest.fixture
def alice() -> Client:
    return Client(rotations=(1,))


async def test_the_engine_looks_at_a_key_and_makes_one(alice: Client) -> None:
    sandbox = Sandbox("fhe_workers.key_child")
    sizes = [len(alice.relin), len(alice.rotate)]
    work = CheckKey("ckks-n13", ["relin", "rotate"], sizes)
    fine = await sandbox.ask(work, chunks(alice.relin, alice.rotate))
    assert msgspec.json.decode(fine, type=KeyVerdict) == KeyVerdict()
    spoilt = await sandbox.ask(work, chunks(alice.relin[:-8] + b"\xff" * 8, alice.rotate))
    assert msgspec.json.decode(spoilt, type=KeyVerdict).reason == "key_invalid"
    short = await sandbox.ask(work, chunks(alice.relin))
    assert msgspec.json.decode(short, type=KeyVerdict).reason == "truncated"
    made = unpacked(await sandbox.ask(GenerateKeys("ckks-n13", [1])))
    assert set(made) == {"secret", "public", "relin", "rotate"}


def test_parts_are_packed_and_nothing_else_is_taken_for_them() -> None:
    parts = {"a": b"xyz", "b": b""}
    answer = packed(parts)
    assert {name: bytes(data) for name, data in unpacked(answer).items()} == parts
    for wrong in (b"", answer[:-1], answer + b"x", b"\x00\x00\x00\x09nonsense!"):
        with pytest.raises(ChildFailed):
            unpacked(wrong)
