"""Load a client's evaluation key into a context, after looking at every byte of it again.

The gateway has read the key with the same reader before it stored it; the worker reads it once
more because the object store lies between the two.
"""

from fhe_workers.contexts import Context
from fhe_workers.refusals import JobRefused
from schemas.fhe.key_material import RELIN, ROTATE, KeyRefused, read_key_part
from schemas.fhe.parameters import SealParameters


def load_keys(params: SealParameters, parts: list[bytes]) -> Context:
    """A context of `params` with the key's `parts` (relinearisation, rotation) loaded.

    Raises `JobRefused` ("key_invalid") when a part is not such a key of this parameter set.
    """
    context = Context(params)
    for data in parts:
        try:
            part = read_key_part(data)
        except KeyRefused as error:
            raise JobRefused("key_invalid", error.message) from None
        if part.params_id != params.params_id:
            raise JobRefused("key_invalid", f"the key belongs to {part.params_id}")
        if part.kind == RELIN:
            context.engine.from_bytes_relin_key(data)
        elif part.kind == ROTATE:
            context.engine.from_bytes_rotate_key(data)
        context.key_bytes += len(data)
    return context


def require_relin_key(context: Context) -> None:
    """Refuse to go on without a relinearisation key.

    Without this test the engine would make a key under a fresh random secret, only warn, and
    return garbage.
    """
    if context.engine.is_relin_key_empty():
        raise JobRefused("key_missing_relin", "the evaluation key has no relinearisation part")
