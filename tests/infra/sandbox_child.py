"""What a child may be asked to do wrong; `params_id` says which way."""

import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path

import msgspec

from infra.sandbox import Limits, answering, confine, request_of
from schemas.fhe.key_work import GenerateKeys


def main() -> None:
    confine(msgspec.json.decode(sys.argv[1], type=Limits))
    answers = answering()
    way = msgspec.json.decode(request_of(sys.stdin.buffer), type=GenerateKeys).params_id
    match way:
        case "memory":
            bytearray(2 * 1024**3)
        case "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "talk":
            while True:
                answers.write(b"x" * 65536)
        case "sleep":
            time.sleep(60)
        case "read":
            sys.stdin.buffer.read()
        case path:
            answers.write(msgspec.json.encode(said(Path(path))))
            answers.flush()


def said(path: Path) -> dict[str, object]:
    try:
        path.write_bytes(b"x")
        wrote = True
    except OSError:
        wrote = False
    return {
        "environment": sorted(os.environ),
        "wrote": wrote,
        "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    }


if __name__ == "__main__":
    main()
