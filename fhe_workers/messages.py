"""What a worker and its children say to each other; free of the engine, so that the parent is too.

Operands and results lie in shared memory (region.py), and messages say how long they are; the
parts of a key follow their message as raw blobs (frames.py).
"""

from msgspec import Struct

from schemas.types import EMPTY_JSON, Json

# What an operand is: a ciphertext, or values in the clear (little-endian doubles).
CIPHER = "cipher"
PLAIN = "plain"


class ChildLimits(Struct, frozen=True):
    """What a child may use; bytes. `niceness` keeps the API responsive under encrypted load."""

    address_space_bytes: int = 4 * 1024**3
    cache_bytes: int = 512 * 1024**2
    niceness: int = 10


class Work(Struct, frozen=True, tag="work"):
    """Compute `operation` over operands: ciphertexts, or values in the clear.

    `key_name` names the key material in the child's cache; it changes when the material does.
    `level` is that of the result, as far as the operation alone says it; `counts` are the numbers
    of ciphertexts in the operands.
    `slot` and `operand_bytes` say where the operands lie; the parent fills them in.
    """

    job_id: str
    operation: str
    params_id: str
    key_name: str
    operand_kinds: tuple[str, ...]
    cpu_seconds_max: int
    needs_key: bool = False
    arguments: Json = EMPTY_JSON
    level: int = 0
    counts: tuple[int, ...] = ()
    operand_bytes: tuple[int, ...] = ()
    slot: int = 0


class KeyMaterial(Struct, frozen=True, tag="key_material"):
    """The key that the child asked for; the blobs are its parts."""


class KeyWanted(Struct, frozen=True, tag="key_wanted"):
    """The child has no such key in its cache: send KeyMaterial, then wait for the answer."""

    key_name: str


class Computed(Struct, frozen=True, tag="computed"):
    """The job is done; the resulting ciphertext has `result_bytes`."""

    job_id: str
    level: int
    scale: float
    cpu_us: int
    key_was_loaded: bool
    resident_bytes: int
    result_bytes: int
    count: int = 1


class Refused(Struct, frozen=True, tag="refused"):
    """The job cannot succeed. See JobRefused for the reasons."""

    job_id: str
    reason: str
    message: str
    resident_bytes: int


Request = Work | KeyMaterial
Answer = KeyWanted | Computed | Refused
