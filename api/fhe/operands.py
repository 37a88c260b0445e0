"""Operands of a computation: read, checked, and stored for the worker."""

from hashlib import sha256
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from api.bodies import too_large
from api.fhe.jobs import HANDLE_PREFIX, JOB_PREFIX
from api.fhe.storage import answered
from api.problems import Problem
from commands.fhe.job import Input
from infra.objects import Objects
from schemas.fhe.ciphertext import CiphertextInvalid, read_ciphertext
from schemas.fhe.job import Operand, Operation
from schemas.fhe.parameters import (
    CIPHERTEXT_BYTES_MAX,
    VALUE_MAGNITUDE_MAX,
    ParameterSet,
    SealParameters,
)
from schemas.types import Text

Value = Annotated[float, Meta(ge=-VALUE_MAGNITUDE_MAX, le=VALUE_MAGNITUDE_MAX)]
Values = Annotated[list[Value], Meta(min_length=1, max_length=8192)]


class OperandBody(Struct):
    """One of: a ciphertext in base64, the handle of an earlier result, values in the clear.

    `value` counts for every slot; of `values`, the slots beyond the last are 0.
    """

    ciphertext: bytes | None = None
    handle: Annotated[Text, Meta(max_length=64)] | None = None
    values: Values | None = None
    value: Value | None = None


class Intake:
    """Takes in the operands of one job. `stored` is what it has put into the object store."""

    def __init__(self, objects: Objects, folder: str, params: ParameterSet) -> None:
        self._objects, self._folder, self._params = objects, folder, params
        self.stored: list[str] = []

    async def take(self, body: OperandBody, operation: Operation, field: str) -> Input:
        """The operand as the decider wants it; `field` is its place in the request's body.

        Raises Problem: 422 for none or several of the forms, 413, 400 with the reason
        (ciphertext_invalid, plaintext_invalid, transparent_result), 404 for what is no handle.
        """
        given = [name for name in body.__struct_fields__ if getattr(body, name) is not None]
        if len(given) != 1:
            wanted = "Give one of ciphertext, handle, values, value"
            raise Problem(422, "validation_error", wanted, field=field)
        if body.handle is not None:
            if not body.handle.startswith(HANDLE_PREFIX):
                raise Problem(404, "not_found", "No such ciphertext", field=f"{field}.handle")
            return Input(source_job_id=JOB_PREFIX + body.handle.removeprefix(HANDLE_PREFIX))
        if body.ciphertext is not None:
            return await self._cipher(body.ciphertext, f"{field}.ciphertext")
        return await self._plain(body, operation, f"{field}.{given[0]}")

    async def _cipher(self, data: bytes, field: str) -> Input:
        if len(data) > CIPHERTEXT_BYTES_MAX:
            raise too_large(CIPHERTEXT_BYTES_MAX, close=False)
        assert isinstance(self._params, SealParameters)
        try:
            shape = read_ciphertext(data, self._params)
        except CiphertextInvalid as error:
            raise Problem(
                400,
                "ciphertext_invalid",
                error.message,
                field=field,
                details={"reason": error.reason},
            ) from None
        name, digest = await self._store(data)
        return Input(Operand("cipher", name, digest, len(data), shape.level, shape.scale))

    async def _plain(self, body: OperandBody, operation: Operation, field: str) -> Input:
        params = self._params
        if not isinstance(params, SealParameters):
            message = f"Encrypt the operand: {params.params_id} takes no values in the clear"
            raise Problem(400, "plaintext_invalid", message, field=field)
        slots = params.slots
        if body.values is not None and len(body.values) > slots:
            raise Problem(400, "plaintext_invalid", f"There are {slots} slots", field=field)
        values = np.full(slots, body.value) if body.values is None else np.array(body.values)
        if operation == "multiply" and not values.any():
            message = "The product with zeros would not hide its value"
            raise Problem(400, "transparent_result", message, field=field)
        data = values.astype("<f8").tobytes()
        name, digest = await self._store(data)
        return Input(Operand("plain", name, digest, len(data)))

    async def _store(self, data: bytes) -> tuple[str, str]:
        digest = sha256(data).hexdigest()
        name = f"{self._folder}/{digest}"
        await answered(self._objects.put(name, data))
        self.stored.append(name)
        return name, digest
