"""The engine Lattigo, which is a program of its own (native/bootstrap): what it is told and says.

`bootstrapping.py` keeps one running and computes with it. Here one is started for a single part of
a key that somebody has uploaded, by the process that is confined for that (`key_child.py`).
"""

import io
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from fhe_workers import frames
from fhe_workers.refusals import JobRefused
from infra.sandbox import Limits
from schemas.fhe import lattigo
from schemas.fhe.key_material import KeyRefused
from schemas.fhe.parameters import LattigoParameters

# One thread, and nothing else of ours.
ENVIRONMENT = {"GOMAXPROCS": "1"}


class HelperRequest(Struct, frozen=True, omit_defaults=True):
    """See `request` in native/bootstrap/serve.go."""

    do: str
    key: str
    part: str = ""
    sha256: str = ""
    kinds: Sequence[str] = ()


class HelperAnswer(Struct, frozen=True):
    """See `answer` in native/bootstrap/serve.go."""

    reason: str
    message: str
    level: int
    scale: float
    cpu_us: int


def check_part(program: Path, params: LattigoParameters, kind: str, data: bytes) -> None:
    """Have the helper load one part of a key, alone, within the limits of this process.

    Raises JobRefused (not_an_evaluation_key, wrong_length, key_invalid). Should this process be
    killed meanwhile, the helper's input ends, and so does the helper.
    """
    try:
        lattigo.check_part(kind, len(data), params)
    except KeyRefused as error:
        raise JobRefused(error.reason, error.message) from None
    request = HelperRequest("check", "", kind, sha256(data).hexdigest())
    memory = str(Limits().address_space_bytes)
    done = subprocess.run(
        [program, "serve", params.params_id, "1", memory],
        input=b"".join(frames.pack(msgspec.json.encode(request), [data])),
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        check=False,
    )
    answer = _answer_in(done.stdout)
    if answer is None:
        raise JobRefused("key_invalid", f"{kind} ended the process that loads it")
    if answer.reason:
        raise JobRefused("key_invalid", answer.message)


def _answer_in(output: bytes) -> HelperAnswer | None:
    try:
        frame = frames.read(io.BytesIO(output))
        return msgspec.json.decode(frame[0], type=HelperAnswer) if frame else None
    except (frames.FrameBroken, msgspec.DecodeError):
        return None
