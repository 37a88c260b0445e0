"""The object store: where bytes go that are too large for the log (a folder, S3, or memory).

An object is written once and never changed, so its name may hold the SHA-256 of its content, and a
reader that knows the hash knows whether it got what was written; only the keys of persons are
overwritten, to destroy them (`streams/person_keys.py`). Every call is safe to repeat.
A streamed write appears whole when it ends and not at all when its source fails.
"""

import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*$")
_CHUNK_BYTES = 5 * 1024 * 1024  # the least that S3 takes as a part
_PART_BYTES = 256 * 1024  # of a streamed read
# obstore alone would go on for three minutes before it says that a store is away.
_RETRY: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=5)}


class ObjectMissing(Exception):
    """There is no object of that name."""


class ObjectCorrupt(Exception):
    """The object is not what was written: its length or its hash is another."""


class ObjectsUnavailable(Exception):
    """The store did not answer as it should; the call may be repeated."""

    retry_after = 2


class Objects:
    """One store. Names are paths of letters, digits and `._=-`; anything else is a ValueError."""

    def __init__(self, url: str, *, in_place: bool = False) -> None:
        """`url` is file:///folder, s3://bucket/prefix or memory:///; no connection is made yet.

        in_place: a folder is read and written on the calling thread, at a fraction of the cost.
        For a process in which nobody waits for the event loop.
        """
        local = url.startswith("file:")
        if local:
            self._store: ObjectStore = from_url(url, mkdir=True)
        elif url.startswith("s3:"):
            self._store = from_url(url, client_options=_client(), retry_config=_RETRY)
        else:
            self._store = from_url(url)
        # A string: to join paths would take as long as to open them.
        self._folder = unquote(urlsplit(url).path).rstrip("/") if in_place and local else None
        # Unfinished objects have a name of this process, one that obstore does not list.
        self._unfinished = f"#{secrets.randbits(60)}"

    @property
    def in_place(self) -> bool:
        """Whether objects are read and written on the calling thread, without waiting."""
        return self._folder is not None

    async def put(self, name: str, data: bytes) -> None:
        """Write an object; the same name again replaces it. Raises ObjectsUnavailable."""
        _check(name)
        try:
            if self._folder is not None:
                self._write(f"{self._folder}/{name}", data)
            else:
                await obstore.put_async(self._store, name, data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot write {name}: {error}") from error

    async def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of that name; whether it was written.

        Of several that try at once one succeeds. Raises ObjectsUnavailable.
        """
        _check(name)
        try:
            await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot write {name}: {error}") from error
        return True

    async def put_stream(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write an object as it arrives. What `chunks` raises passes through, nothing is left.

        Raises ObjectsUnavailable.
        """
        _check(name)
        try:
            await obstore.put_async(self._store, name, chunks, chunk_size=_CHUNK_BYTES)
        except BaseError as error:
            raise ObjectsUnavailable(f"cannot write {name}: {error}") from error

    async def get(self, name: str, *, size: int, digest: str) -> bytes:
        """The `size` bytes of an object whose SHA-256 in hex is `digest`.

        Raises ObjectMissing, ObjectCorrupt, ObjectsUnavailable.
        """
        data = bytes(await self.view(name, size=size))
        if sha256(data).hexdigest() != digest:
            raise ObjectCorrupt(f"{name} is not the object that was written")
        return data

    async def whole(self, name: str) -> bytes:
        """An object, whatever its size: for small ones that their reader can check by themselves.

        Raises ObjectMissing, ObjectsUnavailable.
        """
        _check(name)
        try:
            found = await obstore.get_async(self._store, name)
            return bytes(await found.bytes_async())
        except FileNotFoundError as error:
            raise ObjectMissing(name) from error
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot read {name}: {error}") from error

    async def view(self, name: str, *, size: int) -> memoryview:
        """The `size` bytes of an object as the store gives them: neither hashed nor copied.

        For what is read once, soon after it was written, where hashing (a gigabyte a second and
        core) would show. Raises ObjectMissing, ObjectCorrupt (another length), ObjectsUnavailable.
        """
        _check(name)
        try:
            found = await obstore.get_range_async(self._store, name, start=0, end=size)
        except FileNotFoundError as error:
            raise ObjectMissing(name) from error
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot read {name}: {error}") from error
        if len(found) != size:
            raise ObjectCorrupt(f"{name} is not the object that was written")
        return memoryview(found)

    async def fill(self, name: str, buffer: memoryview) -> None:
        """Read an object of just the buffer's length into the buffer; not hashed, as with `view`.

        A folder that is read in place is read without a copy in between, and without waiting.
        Raises ObjectMissing, ObjectCorrupt (another length), ObjectsUnavailable.
        """
        if self._folder is None:
            buffer[:] = await self.view(name, size=len(buffer))
            return
        _check(name)
        try:
            file = os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                length = os.readv(file, [buffer])
            finally:
                os.close(file)
        except FileNotFoundError as error:
            raise ObjectMissing(name) from error
        except OSError as error:
            raise ObjectsUnavailable(f"cannot read {name}: {error}") from error
        if length != len(buffer):
            raise ObjectCorrupt(f"{name} is not the object that was written")

    async def stream(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes of an object, a part at a time; whoever reads them checks their hash.

        Raises ObjectMissing, ObjectsUnavailable, before the first part or between two.
        """
        _check(name)
        try:
            found = await obstore.get_async(self._store, name)
            async for part in found.stream(min_chunk_size=_PART_BYTES):
                yield bytes(part)
        except FileNotFoundError as error:
            raise ObjectMissing(name) from error
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot read {name}: {error}") from error

    async def move(self, source: str, target: str) -> None:
        """Give an object another name. Raises ObjectMissing, ObjectsUnavailable."""
        _check(source)
        _check(target)
        try:
            await obstore.rename_async(self._store, source, target)
        except FileNotFoundError as error:
            raise ObjectMissing(source) from error
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot move {source}: {error}") from error

    async def exists(self, name: str) -> bool:
        """Whether there is an object of that name. Raises ObjectsUnavailable."""
        _check(name)
        try:
            await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot look for {name}: {error}") from error
        return True

    async def delete(self, name: str) -> None:
        """Remove an object; nothing when it is gone already. Raises ObjectsUnavailable."""
        _check(name)
        try:
            if self._folder is not None:
                os.unlink(f"{self._folder}/{name}")  # noqa: PTH108
            else:
                await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot remove {name}: {error}") from error

    def _write(self, path: str, data: bytes) -> None:
        """Write a file that appears whole, as obstore does."""
        unfinished = path + self._unfinished
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            file = os.open(unfinished, flags, 0o644)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            file = os.open(unfinished, flags, 0o644)
        try:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(file, left) :]
            finally:
                os.close(file)
            os.rename(unfinished, path)  # noqa: PTH104
        except OSError:
            # Such as a full disk, which the rest of it would keep full.
            os.unlink(unfinished)  # noqa: PTH108
            raise

    async def names(self, prefix: str) -> list[str]:
        """The names below a prefix, in no order. Raises ObjectsUnavailable."""
        _check(prefix)
        found: list[str] = []
        try:
            async for batch in obstore.list(self._store, prefix):
                found.extend(str(item["path"]) for item in batch)
        except (BaseError, OSError) as error:
            raise ObjectsUnavailable(f"cannot list {prefix}: {error}") from error
        return found


def _client() -> "ClientConfig":
    """Bounds on a request. Given any, obstore no longer reads this one variable by itself."""
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    return {"connect_timeout": "3s", "timeout": "10s", "allow_http": plain}


def _check(name: str) -> None:
    if not _NAME.match(name) or "/../" in f"/{name}/":
        raise ValueError(f"{name!r} is no name for an object")
