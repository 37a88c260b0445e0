"""Why a job ends without a result, as values that travel to the client."""


class JobRefused(Exception):
    """The job cannot succeed, however often it is tried.

    `reason` is one of the stable codes of the API (key_invalid, key_missing_relin,
    ciphertext_invalid, level_exhausted, scale_mismatch, plaintext_invalid, transparent_result,
    unsupported_operation, engine_refused, engine_unavailable); `message` is one sentence for
    people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
