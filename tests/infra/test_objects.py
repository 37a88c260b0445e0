"""One behaviour over a folder, memory and S3: written whole, read exactly, removed twice."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from infra.embedded.ports import free_port
from infra.objects import ObjectCorrupt, ObjectMissing, Objects, ObjectsUnavailable

DATA = b"ciphertext" * 100_000
DIGEST = sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server that speaks S3, with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    httpx.put(f"{url}/weir").raise_for_status()
    yield url
    server.stop()


@pytest.fixture(params=["file", "in_place", "memory", "s3"])
def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Objects:
    if request.param == "memory":
        return Objects("memory:///")
    if request.param == "s3":
        return on_s3(monkeypatch, request.getfixturevalue("s3"), tmp_path.name)
    folder = tmp_path / "a folder" / "objects"
    return Objects(folder.as_uri(), in_place=request.param == "in_place")


def on_s3(monkeypatch: pytest.MonkeyPatch, url: str, prefix: str) -> Objects:
    """A store at an S3 server, set up as infra/deploy/compose.yaml does."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "weir")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "weir-demo")
    return Objects(f"s3://weir/{prefix}")


async def _chunks(data: bytes, fail: bool = False) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65_536):
        yield data[at : at + 65_536]
    if fail:
        raise ValueError("the source went away")


async def test_what_was_written_is_read(objects: Objects) -> None:
    await objects.put("fhe/ten_1/a", DATA)
    await objects.put("fhe/ten_1/a", DATA)
    assert await objects.get("fhe/ten_1/a", size=len(DATA), digest=DIGEST) == DATA
    assert await objects.view("fhe/ten_1/a", size=len(DATA)) == DATA
    buffer = bytearray(len(DATA))
    await objects.fill("fhe/ten_1/a", memoryview(buffer))
    assert buffer == DATA
    assert await objects.exists("fhe/ten_1/a")
    assert not await objects.exists("fhe/ten_1/b")


async def test_of_many_that_create_an_object_one_does(objects: Objects) -> None:
    tried = [objects.create("keys/1", bytes([number])) for number in range(8)]
    made = await asyncio.gather(*tried)
    assert made.count(True) == 1
    assert await objects.whole("keys/1") == bytes([made.index(True)])
    await objects.put("keys/1", b"dropped")
    assert not await objects.create("keys/1", b"2")
    assert await objects.whole("keys/1") == b"dropped"
    with pytest.raises(ObjectMissing):
        await objects.whole("keys/2")


async def test_a_stream_appears_whole_and_can_be_renamed(objects: Objects) -> None:
    await objects.put_stream("uploads/1", _chunks(DATA))
    await objects.move("uploads/1", "keys/1")
    assert await objects.get("keys/1", size=len(DATA), digest=DIGEST) == DATA
    assert await objects.names("uploads") == []
    assert await objects.names("keys") == ["keys/1"]


async def test_a_stream_that_fails_leaves_nothing(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="went away"):
        await objects.put_stream("uploads/2", _chunks(DATA, fail=True))
    assert await objects.names("uploads") == []
    # Nor does a half-written file stay behind under another name.
    assert not _files(tmp_path)


async def test_an_object_is_streamed_whole(objects: Objects) -> None:
    await objects.put("exports/1", DATA)
    assert b"".join([part async for part in objects.stream("exports/1")]) == DATA
    with pytest.raises(ObjectMissing):
        await anext(objects.stream("exports/2"))


async def test_a_file_is_streamed_a_part_at_a_time(tmp_path: Path) -> None:
    objects = Objects(tmp_path.as_uri())
    large = DATA * (2 + 1024 * 1024 // len(DATA))
    await objects.put("exports/1", large)
    parts = [part async for part in objects.stream("exports/1")]
    assert len(parts) > 1
    assert b"".join(parts) == large


async def test_missing_and_altered_objects_are_told_apart(objects: Objects) -> None:
    with pytest.raises(ObjectMissing):
        await objects.get("nothing/here", size=1, digest=DIGEST)
    with pytest.raises(ObjectMissing):
        await objects.fill("nothing/here", memoryview(bytearray(1)))
    with pytest.raises(ObjectMissing):
        await objects.move("nothing/here", "nothing/there")
    await objects.put("x", DATA[:-1] + b"!")
    with pytest.raises(ObjectCorrupt):
        await objects.get("x", size=len(DATA), digest=DIGEST)
    await objects.put("x", DATA[:-1])
    with pytest.raises(ObjectCorrupt):
        await objects.view("x", size=len(DATA))
    with pytest.raises(ObjectCorrupt):
        await objects.fill("x", memoryview(bytearray(len(DATA))))
    with pytest.raises(ObjectCorrupt):
        await objects.get("x", size=len(DATA), digest=DIGEST)


async def test_removing_twice_is_removing_once(objects: Objects) -> None:
    await objects.put("x", b"1")
    await objects.delete("x")
    await objects.delete("x")
    assert not await objects.exists("x")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["", "/x", "a/../b", "a//b", "..", ".x", "a b", "a\x00", "é"])
async def test_a_name_cannot_leave_the_store(objects: Objects, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        await objects.put(name, b"1")


async def test_a_store_that_is_away_is_told_and_found_again(
    monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    away = on_s3(monkeypatch, f"http://127.0.0.1:{free_port()}", "away")
    async with asyncio.timeout(10):
        for call in (
            away.put("x", DATA),
            away.get("x", size=len(DATA), digest=DIGEST),
            away.exists("x"),
            away.delete("x"),
        ):
            with pytest.raises(ObjectsUnavailable):
                await call
    found = on_s3(monkeypatch, s3, "away")
    await found.put("x", DATA)
    assert await found.get("x", size=len(DATA), digest=DIGEST) == DATA


async def test_a_full_disk_is_no_answer_and_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(tmp_path.as_uri(), in_place=True)

    def full(_: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("infra.objects.os.write", full)
    with pytest.raises(ObjectsUnavailable):
        await objects.put("results/1", DATA)
    monkeypatch.undo()
    assert not _files(tmp_path)
    await objects.put("results/1", DATA)
    assert await objects.names("results") == ["results/1"]


async def test_an_object_that_is_still_being_written_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(tmp_path.as_uri(), in_place=True)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infra.objects.os.rename", killed)
    with pytest.raises(KeyboardInterrupt):
        await objects.put("results/1", DATA)
    assert _files(tmp_path)
    assert await objects.names("results") == []
    assert not await objects.exists("results/1")
