"""Values that the tests of this folder share."""

from commands.fhe.evaluation_key import EvaluationKey
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.job import Operand

RELIN = StoredPart("relin", "fhe/ten_1/keys/1/aa", "aa" * 32, 1_573_267)
ROTATE = StoredPart("rotate", "fhe/ten_1/keys/1/bb", "bb" * 32, 3_211_998, [1, 8])
FINGERPRINT = "cc" * 32

KEY = EvaluationKey(is_live=True, params_id="ckks-n13", fingerprint=FINGERPRINT, parts=[RELIN])


def cipher(name: str = "a", level: int = 0) -> Operand:
    return Operand("cipher", f"fhe/ten_1/jobs/job_1/{name}", "dd" * 32, 393_329, level, 2.0**40)


def plain(name: str = "v") -> Operand:
    return Operand("plain", f"fhe/ten_1/jobs/job_1/{name}", "ee" * 32, 64)
