"""E-mail addresses: one spelling for each, and the hash under which the directory knows it."""

import hashlib
import re
import unicodedata

# What almost every address looks like; whether it can receive mail only a mail can tell.
_ADDRESS = re.compile(r"^[^@\s]{1,64}@[^@\s]{1,189}$")


def normalise(address: str) -> str:
    """The one spelling of an address: NFKC, trimmed, case-folded. Raises ValueError.

    The part before the @ is case-folded too: two mailboxes that differ in case only are a trap.
    """
    text = unicodedata.normalize("NFKC", address).strip().casefold()
    if not _ADDRESS.match(text) or "\x00" in text:
        raise ValueError("not an e-mail address")
    return text


def email_hash(address: str) -> str:
    """SHA-256 in hex of the normalised address: the id of its stream. Raises ValueError."""
    return hashlib.sha256(normalise(address).encode()).hexdigest()
