"""The process that touches an evaluation key first, and the one that makes keys for trials.

One request and it ends; see `infra/sandbox.py`. The API starts it: there a key must be refused
before anybody relies on it, whether or not a worker is up.
"""

import os
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from fhe_workers.engines import check_part
from fhe_workers.refusals import JobRefused
from infra.keyholder import Keyholder
from infra.sandbox import Limits, answering, confine, packed, request_of
from schemas.fhe.key_work import CheckKey, GenerateKeys, KeyVerdict, KeyWork
from schemas.fhe.parameters import PARAMETER_SETS, SEAL_SETS

EXIT_OUT_OF_MEMORY = 71


def main() -> None:
    """Answer the one request on standard input."""
    confine(msgspec.json.decode(sys.argv[1], type=Limits))
    answers = answering()
    try:
        answer = answer_to(sys.stdin.buffer)
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    with answers:
        answers.write(answer)


def answer_to(stream: BinaryIO) -> bytes:
    """The answer to the request at the beginning of a stream, whose rest is its body."""
    work: Struct = msgspec.json.decode(request_of(stream), type=KeyWork)
    if isinstance(work, GenerateKeys):
        params = SEAL_SETS[work.params_id]
        return packed(Keyholder.generated(params, work.rotations).parts)
    assert isinstance(work, CheckKey)
    return msgspec.json.encode(_verdict(work, stream))


def _verdict(work: CheckKey, stream: BinaryIO) -> KeyVerdict:
    params = PARAMETER_SETS[work.params_id]
    helper = Path(work.helper) if work.helper else None
    try:
        for kind, size_bytes in zip(work.kinds, work.sizes, strict=True):
            data = stream.read(size_bytes)
            if len(data) != size_bytes:
                return KeyVerdict("truncated", f"the {kind} part ends early")
            check_part(params, kind, data, helper)
    except JobRefused as error:
        return KeyVerdict(error.reason, error.message)
    return KeyVerdict()


if __name__ == "__main__":
    main()
