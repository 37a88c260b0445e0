"""The hash chain over a tenant's audit records: seal one, verify many. Pure.

A record's hash is the SHA-256, in lower-case hex, of its canonical bytes: all fields but `hash` as
JSON in the form of RFC 8785 (keys sorted, no white space, UTF-8, integers in plain decimals). Since
`prev_hash` is among them, each hash vouches for everything before it; whoever keeps the newest hash
can tell later that nothing was edited, dropped, inserted or swapped.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from schemas.platform.audit import AuditRecorded

GENESIS_HASH = "0" * 64

Fault = Literal[
    "edited",
    "gap",
    "out_of_order",
    "wrong_prev_hash",
    "other_tenant",
    "replaced",
    "truncated",
    "unreadable",
]


def canonical_bytes(record: AuditRecorded) -> bytes:
    """What is hashed of a record: everything but `hash`, including `prev_hash`.

    A field added in a later release must be left out of here while it has its default, or the
    hashes of the records written before it would change.
    """
    fields = msgspec.structs.asdict(record)
    del fields["hash"]
    return msgspec.json.encode(fields, order="sorted")


def chain_hash(record: AuditRecorded, prev_hash: str) -> str:
    """The hash of a record that follows the one whose hash is `prev_hash`."""
    if record.prev_hash != prev_hash:
        record = msgspec.structs.replace(record, prev_hash=prev_hash)
    return hashlib.sha256(canonical_bytes(record)).hexdigest()


def seal(record: AuditRecorded, prev_hash: str) -> AuditRecorded:
    """The record with its place in the chain: `prev_hash` and `hash` set, all else as given.

    The first record of a tenant takes GENESIS_HASH.
    """
    record = msgspec.structs.replace(record, prev_hash=prev_hash)
    return msgspec.structs.replace(record, hash=chain_hash(record, prev_hash))


class Link(Struct, frozen=True):
    """The end of a chain: the newest record's number and hash. What to keep as a receipt."""

    seq: int = 0
    hash: str = GENESIS_HASH


START = Link()


class Break(Struct, frozen=True):
    """The first place where a chain does not hold.

    index: how many records before it were good. seq: what the record there says it is, or the
    number that is missing. position: where it was read (`topic:partition:offset`), if known.
    """

    index: int
    seq: int
    fault: Fault
    message: str
    position: str = ""


class ChainVerifier:
    """Verifies the records of one tenant, handed over in the order they were written.

    after: the link that the first record must follow. None trusts the first record's own
    `prev_hash`, for a window whose beginning is elsewhere. seen: a link kept from an earlier
    verification; the chain must still hold it. Without one, records cut off the end, or a chain
    rewritten from some record on, cannot be noticed. Memory does not grow with the chain.
    """

    def __init__(self, tenant: str, after: Link | None = START, seen: Link | None = None) -> None:
        self.tenant = tenant
        self.seen = seen
        self.head = after
        self.verified = 0

    def check(self, record: AuditRecorded, position: str = "") -> Break | None:
        """Take the next record; what is wrong with it, if anything.

        After a break the verifier stays where it was: nothing later can be vouched for.
        """
        fault = self._fault(record)
        if fault is not None:
            kind, message = fault
            return Break(self.verified, record.seq, kind, message, position)
        self.head = Link(record.seq, record.hash)
        self.verified += 1
        return None

    def finish(self) -> Break | None:
        """Call when no record is left: whether the chain reaches as far as it did before."""
        reached = self.head or START
        if self.seen is None or reached.seq >= self.seen.seq:
            return None
        message = f"the chain ends at {reached.seq}, but record {self.seen.seq} was seen before"
        return Break(self.verified, reached.seq + 1, "truncated", message)

    def _fault(self, record: AuditRecorded) -> tuple[Fault, str] | None:
        if record.tenant != self.tenant:
            return "other_tenant", f"the record is {record.tenant}'s, the chain is {self.tenant}'s"
        found = chain_hash(record, record.prev_hash)
        if found != record.hash:
            return "edited", f"its fields hash to {found}, it says {record.hash or 'nothing'}"
        if self.head is not None:
            expected = self.head.seq + 1
            if record.seq > expected:
                last = record.seq - 1
                missing = f"{expected}" if last == expected else f"{expected}..{last}"
                return "gap", f"record {missing} is missing before it"
            if record.seq < expected:
                return "out_of_order", f"expected {expected}: it is repeated or out of its place"
            if record.prev_hash != self.head.hash:
                was, is_ = record.prev_hash, self.head.hash
                return "wrong_prev_hash", f"prev_hash is {was}, record {self.head.seq} has {is_}"
        if self.seen is not None and record.seq == self.seen.seq and record.hash != self.seen.hash:
            return "replaced", f"it was seen before with hash {self.seen.hash}, now {record.hash}"
        return None


def verify(
    records: Iterable[AuditRecorded], after: Link | None = START, seen: Link | None = None
) -> Break | None:
    """The first break in one tenant's chain, None when it holds. See ChainVerifier."""
    verifier: ChainVerifier | None = None
    for record in records:
        if verifier is None:
            verifier = ChainVerifier(record.tenant, after, seen)
        broken = verifier.check(record)
        if broken is not None:
            return broken
    return (verifier or ChainVerifier("", after, seen)).finish()
