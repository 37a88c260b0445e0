"""Take in an evaluation key: looked at, hashed and stored as it arrives, never held whole.

Nothing is written before the head of a part says that it is no secret key, and a part that turns
out to be no key leaves nothing behind: the store's write is abandoned.
"""

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

from msgspec import Struct

from api.bodies import declared_length, too_large
from api.fhe.key_checks import check_parts, refused
from api.fhe.multipart import Parts
from api.fhe.storage import answered, discard
from api.problems import Problem
from api.routing import Call
from api.services import Services
from infra.ids import new_id
from infra.objects import Objects
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.key_material import RELIN, ROTATE, SERVER, KeyPart, KeyReader, KeyRefused
from schemas.fhe.parameters import KEY_BYTES_MAX, PARAMETER_SETS, SEAL_SETS, TfheParameters

# Room for the boundaries and small fields around the parts.
BODY_BYTES_MAX = KEY_BYTES_MAX + 64 * 1024
NAME_BYTES_MAX = 200
_HEAD_BYTES = 88  # by then a KeyReader has said whether it is a secret key


class Upload(Struct, frozen=True):
    """A complete key, stored: its parts, what the client calls it, and what set it belongs to."""

    params_id: str
    parts: list[StoredPart]
    name: str

    @property
    def objects(self) -> list[str]:
        """The names of the parts in the store."""
        return [part.object for part in self.parts]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the parts' kinds and hashes: the same key, the same fingerprint."""
        lines = sorted(f"{part.kind}:{part.sha256}" for part in self.parts)
        return sha256("\n".join([self.params_id, *lines]).encode()).hexdigest()


class KeyIntake:
    """A key that is being taken in, part by part."""

    def __init__(self, objects: Objects, tenant: str) -> None:
        self._objects, self._folder = objects, f"fhe/{tenant}/keys/{new_id('up')}"
        self.parts: list[StoredPart] = []
        self.params_ids: set[str] = set()
        self.fields: dict[str, str] = {}

    async def take_part(self, kind: str, chunks: AsyncIterator[bytes]) -> None:
        """Check and store one part. Raises Problem (413, 422, 503)."""
        if any(part.kind == kind for part in self.parts):
            raise refused("malformed", f"the part {kind} comes twice")
        params_id, part = await read_part(self._objects, f"{self._folder}/{kind}", kind, chunks)
        self.params_ids.add(params_id)
        self.parts.append(part)

    async def take_field(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Read one small field; unknown ones are ignored. Raises Problem (422)."""
        value = b""
        async for chunk in chunks:
            value += chunk
            if len(value) > NAME_BYTES_MAX:
                raise _invalid(name, f"at most {NAME_BYTES_MAX} bytes")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise _invalid(name, "not UTF-8") from None
        if "\0" in text:
            raise _invalid(name, "NUL is not allowed in text")
        self.fields[name] = text

    def finished(self, params_id: str, name: str) -> Upload:
        """The upload as a whole. Raises Problem (422)."""
        if not any(part.kind in (RELIN, SERVER) for part in self.parts):
            raise refused("relin_missing", "the upload has no relinearisation key")
        if len(self.params_ids) > 1:
            raise refused("wrong_parameters", "the parts belong to different parameter sets")
        [found] = self.params_ids
        wanted = self.fields.get("params_id") or params_id
        if wanted and wanted != found:
            raise refused("wrong_parameters", f"the key belongs to {found}, not to {wanted}")
        return Upload(found, self.parts, self.fields.get("name") or name)

    async def abandon(self) -> None:
        """Remove what was stored; nothing refers to it."""
        await discard(self._objects, [part.object for part in self.parts])


async def read_part(
    objects: Objects, object: str, kind: str, chunks: AsyncIterator[bytes]
) -> tuple[str, StoredPart]:
    """The parameter set of a part of SEAL's, and the part, read and stored as it arrives.

    Raises Problem (413, 422, 503); then nothing is stored.
    """
    reader = KeyReader()
    try:
        await answered(objects.put_stream(object, _checked(reader, kind, chunks)))
    except KeyRefused as error:
        if error.reason == "too_large":
            raise too_large(KEY_BYTES_MAX, close=True) from None
        raise refused(error.reason, error.message) from None
    found = reader.finish()
    part = StoredPart(kind, object, found.sha256, found.size_bytes, list(found.rotations))
    return found.params_id, part


async def store_part(
    services: Services, object: str, params_id: str, kind: str, chunks: AsyncIterator[bytes]
) -> StoredPart:
    """One part of a key in a set that is known, stored once the engine has loaded it, too.

    Raises Problem (413, 422, 503); then nothing is stored.
    """
    if params_id in SEAL_SETS:
        found, part = await read_part(services.objects, object, kind, chunks)
    else:
        # Whose form only its engine knows.
        found, part = params_id, await _hashed(services.objects, object, kind, chunks)
    try:
        if found != params_id:
            raise refused("wrong_parameters", f"the part belongs to {found}, not to {params_id}")
        await check_parts(services, params_id, [part])
    except BaseException:
        await discard(services.objects, [object])
        raise
    return part


async def _hashed(
    objects: Objects, object: str, kind: str, chunks: AsyncIterator[bytes]
) -> StoredPart:
    digest, size = sha256(), 0

    async def passing() -> AsyncIterator[bytes]:
        nonlocal size
        async for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    await answered(objects.put_stream(object, passing()))
    return StoredPart(kind, object, digest.hexdigest(), size)


async def receive(call: Call[Any, Any], params_id: str, name: str) -> Upload:
    """The evaluation key in the request's body: octet-stream, or multipart with its parts.

    Raises Problem (400, 413, 415, 422, 503), and ClientDisconnect.
    """
    request = call.raw
    content_type = request.headers.get("content-type", "")
    essence = content_type.partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        # A key hardly shrinks, and what it expands to could not be bounded by its length.
        raise Problem(415, "unsupported_content_encoding", "Send the key as it is", where="header")
    declared_length(dict(call.scope["headers"]), BODY_BYTES_MAX)
    body = _nonempty(request.stream())
    intake = KeyIntake(call.services.objects, call.tenant)
    try:
        if essence == "application/octet-stream":
            is_whole = isinstance(PARAMETER_SETS.get(params_id), TfheParameters)
            await intake.take_part(SERVER if is_whole else RELIN, body)
        elif essence == "multipart/form-data":
            await _take_multipart(intake, Parts(content_type, body))
        else:
            raise Problem(
                415,
                "unsupported_media_type",
                "Send the key as application/octet-stream or multipart/form-data",
                where="header",
            )
        upload = intake.finished(params_id, name)
        await check_parts(call.services, upload.params_id, upload.parts)
        return upload
    except BaseException:
        await intake.abandon()
        raise


async def _take_multipart(intake: KeyIntake, parts: Parts) -> None:
    while (part := await parts.next()) is not None:
        if part.name in (RELIN, ROTATE, SERVER):
            await intake.take_part(part.name, parts.chunks())
        else:
            await intake.take_field(part.name, parts.chunks())


async def _checked(
    reader: KeyReader, kind: str, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """The chunks, each handed on only after the reader has accepted it."""
    held = b""
    async for chunk in chunks:
        reader.feed(chunk)
        held += chunk
        if reader.size_bytes >= _HEAD_BYTES:
            yield held
            held = b""
    found: KeyPart = reader.finish()
    if found.kind != kind:
        raise KeyRefused("wrong_part", f"this is a {found.kind} key, not a {kind} key")


async def _nonempty(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in stream:
        if chunk:
            yield chunk


def _invalid(field: str, message: str) -> Problem:
    return Problem(422, "validation_error", message, field=field)
