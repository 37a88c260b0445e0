"""Operands of a computation: read, checked, and stored for the worker."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from api.bodies import too_large
from api.fhe.jobs import HANDLE_PREFIX, JOB_PREFIX
from api.fhe.storage import answered
from api.problems import Problem
from commands.fhe.job_state import Input
from infra.objects import Objects
from schemas.fhe.bits import read_bits
from schemas.fhe.ciphertext import CiphertextInvalid, read_ciphertext
from schemas.fhe.job import Operand, Operation
from schemas.fhe.lattigo import read_lattigo_ciphertext
from schemas.fhe.linear import padded_size
from schemas.fhe.parameters import (
    CIPHERTEXT_BYTES_MAX,
    VALUE_MAGNITUDE_MAX,
    CkksParameters,
    GateParameters,
    LattigoParameters,
    ParameterSet,
)
from schemas.types import Text

Vector = NDArray[np.float64]
_FORMS = ("ciphertext", "handle", "values", "value")
Value = Annotated[float, Meta(ge=-VALUE_MAGNITUDE_MAX, le=VALUE_MAGNITUDE_MAX)]
Magnitude = Annotated[float, Meta(gt=0, le=VALUE_MAGNITUDE_MAX)]
Values = Annotated[list[Value], Meta(min_length=1, max_length=8192)]


class OperandBody(Struct):
    """One of: a ciphertext in base64, the handle of an earlier result, values in the clear.

    `value` counts for every slot; of `values`, the slots beyond the last are 0. `magnitude`, of a
    ciphertext: no value in it is larger. By it we follow whether results can overflow, and how
    exact they are.
    """

    ciphertext: bytes | None = None
    handle: Annotated[Text, Meta(max_length=64)] | None = None
    values: Values | None = None
    value: Value | None = None
    magnitude: Magnitude = 1.0


class BitsBody(Struct):
    """One of: ciphertexts one after another in base64, a list of them, an earlier result's handle.

    A ciphertext holds one bit (tfhe-132) or a bit in each slot (bgv-n13).
    """

    ciphertext: bytes | None = None
    ciphertexts: Annotated[list[bytes], Meta(min_length=1, max_length=1024)] | None = None
    handle: Annotated[Text, Meta(max_length=64)] | None = None


class Intake:
    """Takes in the operands of one request, and stores them once it is known that they are needed.

    `stored` is what it has put into the object store.
    """

    def __init__(self, objects: Objects, folder: str, params: ParameterSet) -> None:
        self._objects, self._folder, self._params = objects, folder, params
        self._pending: dict[str, bytes] = {}
        self.stored: list[str] = []

    async def store(self) -> None:
        """Put what was taken into the object store. Raises Problem (503)."""
        for name, data in self._pending.items():
            await answered(self._objects.put(name, data))
            self.stored.append(name)
        self._pending = {}

    async def take(self, body: OperandBody, operation: Operation, field: str) -> Input:
        """The operand as the decider wants it; `field` is its place in the request's body.

        Raises Problem: 422 for none or several of the forms, 413, 400 with the reason
        (ciphertext_invalid, plaintext_invalid, transparent_result), 404 for what is no handle.
        """
        given = [name for name in _FORMS if getattr(body, name) is not None]
        if len(given) != 1:
            wanted = "Give one of ciphertext, handle, values, value"
            raise Problem(422, "validation_error", wanted, field=field)
        if body.handle is not None:
            return _of_handle(body.handle, field)
        if body.ciphertext is not None:
            return self._cipher(body.ciphertext, body.magnitude, f"{field}.ciphertext")
        return self._plain(body, operation, f"{field}.{given[0]}")

    def take_matrix(self, rows: Sequence[Sequence[float]], field: str) -> tuple[Input, int]:
        """A matrix in the clear, and to which size it was filled up with zeros.

        Raises Problem: 422 for rows of different lengths, 400 transparent_result.
        """
        columns = len(rows[0])
        if any(len(row) != columns for row in rows):
            raise Problem(422, "validation_error", "The rows differ in length", field=field)
        size = padded_size(max(len(rows), columns))
        matrix = np.zeros((size, size))
        matrix[: len(rows), :columns] = rows
        largest = float(np.abs(matrix).sum(axis=1).max())
        return self._clear(matrix.ravel(), largest, field), size

    def _cipher(self, data: bytes, magnitude: float, field: str) -> Input:
        if len(data) > CIPHERTEXT_BYTES_MAX:
            raise too_large(CIPHERTEXT_BYTES_MAX, close=False)
        params = self._params
        try:
            if isinstance(params, LattigoParameters):
                shape = read_lattigo_ciphertext(data, params)
            elif isinstance(params, CkksParameters):
                shape = read_ciphertext(data, params)
            else:
                raise unsupported(params, "do arithmetic")
        except CiphertextInvalid as error:
            raise _invalid(error, field) from None
        name, digest = self._keep(data)
        return Input(
            Operand(
                kind="cipher",
                object=name,
                sha256=digest,
                size_bytes=len(data),
                level=shape.level,
                scale=shape.scale,
                magnitude=magnitude,
            )
        )

    def _plain(self, body: OperandBody, operation: Operation, field: str) -> Input:
        params = self._params
        if not isinstance(params, CkksParameters | LattigoParameters):
            raise unsupported(params, "do arithmetic")
        slots = params.slots
        if body.values is not None and len(body.values) > slots:
            raise Problem(400, "plaintext_invalid", f"There are {slots} slots", field=field)
        values = np.full(slots, body.value) if body.values is None else np.array(body.values)
        largest = float(np.abs(values).max())
        return self._clear(values, largest, None if operation == "add" else field)

    def _clear(self, values: Vector, magnitude: float, factor: str | None) -> Input:
        """Values in the clear; `factor` is their place in the body when something is multiplied."""
        if factor is not None and not values.any():
            message = "The product with zeros would not hide its value"
            raise Problem(400, "transparent_result", message, field=factor)
        data = values.astype("<f8").tobytes()
        name, digest = self._keep(data)
        return Input(Operand("plain", name, digest, len(data), magnitude=magnitude))

    async def take_bits(self, body: BitsBody, field: str) -> Input:
        """The operand of a gate or circuit, as `take` does it."""
        given = [name for name in body.__struct_fields__ if getattr(body, name) is not None]
        if len(given) != 1:
            wanted = "Give one of ciphertext, ciphertexts, handle"
            raise Problem(422, "validation_error", wanted, field=field)
        if body.handle is not None:
            return _of_handle(body.handle, field)
        data = body.ciphertext if body.ciphertext is not None else b"".join(body.ciphertexts or [])
        if len(data) > CIPHERTEXT_BYTES_MAX:
            raise too_large(CIPHERTEXT_BYTES_MAX, close=False)
        params = self._params
        if not isinstance(params, GateParameters):
            raise unsupported(params, "compute gates")
        try:
            shape = read_bits(data, params)
        except CiphertextInvalid as error:
            raise _invalid(error, f"{field}.{given[0]}") from None
        name, digest = self._keep(data)
        return Input(Operand("cipher", name, digest, len(data), count=shape.count))

    def _keep(self, data: bytes) -> tuple[str, str]:
        digest = sha256(data).hexdigest()
        name = f"{self._folder}/{digest}"
        self._pending[name] = data
        return name, digest


def unsupported(params: ParameterSet, what: str) -> Problem:
    """The 400 of an operation that the key's parameter set does not have."""
    return Problem(
        400,
        "unsupported_operation",
        f"Keys of {params.params_id} cannot {what}",
        field="key_id",
        details={"params_id": params.params_id},
    )


def _of_handle(handle: str, field: str) -> Input:
    if not handle.startswith(HANDLE_PREFIX):
        raise Problem(404, "not_found", "No such ciphertext", field=f"{field}.handle")
    return Input(source_job_id=JOB_PREFIX + handle.removeprefix(HANDLE_PREFIX))


def _invalid(error: CiphertextInvalid, field: str) -> Problem:
    details = {"reason": error.reason}
    return Problem(400, "ciphertext_invalid", error.message, field=field, details=details)
