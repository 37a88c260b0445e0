"""Requests that are not yet answered, in a file that outlives a `kill -9` of the process.

A mapped file of slots: a write to it is a copy in memory, and is the kernel's from then on. It does
not survive a power cut, which is no loss: then the log itself may have lost the request.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_SLOT = struct.Struct("<d16s16x32s")  # seconds since 1970 (0: free), fingerprint, command id
_SLOTS = 8192
_NAME_BYTES = 8


class Journal:
    """Slots in a file, made when it is not there. One process may have a file open at a time.

    name: of whoever has the file, the same for the processes that have it one after the other.
    now: seconds since 1970. Raises OSError when the file can be neither made nor opened.
    """

    def __init__(
        self, path: Path, now: Callable[[], float] = time.time, slots: int = _SLOTS
    ) -> None:
        self._now = now
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.truncate(slots * _SLOT.size + _NAME_BYTES)
            self._map = mmap.mmap(file.fileno(), slots * _SLOT.size + _NAME_BYTES)
        if not any(self._map[-_NAME_BYTES:]):
            self._map[-_NAME_BYTES:] = os.urandom(_NAME_BYTES)
        self.name = self._map[-_NAME_BYTES:].hex()
        self._free = [slot for slot in reversed(range(slots)) if not self._read(slot)[0]]

    def put(self, fingerprint: str, command_id: str) -> int:
        """Note a request; the slot that holds it, or -1 when all are taken.

        fingerprint: 32 hex digits.
        """
        if not self._free:
            return -1
        slot = self._free.pop()
        # The time last: what is cut short by a crash is a free slot still.
        place = slot * _SLOT.size
        entry = _SLOT.pack(self._now(), bytes.fromhex(fingerprint), command_id.encode())
        self._map[place + 8 : place + _SLOT.size] = entry[8:]
        self._map[place : place + 8] = entry[:8]
        return slot

    def clear(self, slot: int) -> None:
        """Forget the request of a slot; nothing for -1."""
        if slot >= 0:
            place = slot * _SLOT.size
            self._map[place : place + 8] = bytes(8)
            self._free.append(slot)

    def left_behind(self, seconds: float) -> Iterator[tuple[int, str, str]]:
        """What an earlier process left: slot, fingerprint, command id. Older ones are cleared."""
        oldest, known = self._now() - seconds, set()
        for slot in range(len(self._map) // _SLOT.size):
            noted, digest, name = self._read(slot)
            command_id = name.rstrip(b"\0").decode()
            if not noted:
                continue
            if noted < oldest or command_id in known:
                self.clear(slot)
                continue
            known.add(command_id)
            yield slot, digest.hex(), command_id

    def _read(self, slot: int) -> tuple[float, bytes, bytes]:
        found: tuple[float, bytes, bytes] = _SLOT.unpack_from(self._map, slot * _SLOT.size)
        return found
