"""The replies of one connection, in the order of its commands. No I/O.

A command that must wait takes a `Slot`; the replies to those behind it queue until its frame is there.
"""

import asyncio
from collections import deque

from cluster.access.quotas import Allowance
from cluster.doors.reads import Late


class Slot:
    """The place of a reply that is not there yet. ``work`` is on it; ``null`` would show that there is no value."""

    __slots__ = ("allowance", "frame", "null", "work")

    def __init__(self, null: bytes, allowance: Allowance | None = None) -> None:
        self.null = null
        self.allowance = allowance
        self.frame: bytes | None = None
        self.work: asyncio.Task[bytes] | Late | None = None

    def leave(self) -> None:
        """It waits no longer."""
        if self.allowance is not None:
            self.allowance.leave()
            self.allowance = None

    def cancel(self) -> None:
        """Nobody waits for it."""
        self.leave()
        if self.work is not None:
            self.work.cancel()


class Replies:
    """``size_bytes`` is of all frames that are there; ``pending`` begins with one that is not, but for its `fill`."""

    __slots__ = ("_out", "pending", "size_bytes")

    def __init__(self) -> None:
        self.pending: deque[Slot] = deque()
        self.size_bytes = 0
        self._out: list[bytes] = []  # before all that is pending

    def __repr__(self) -> str:
        return f"<Replies pending={len(self.pending)} {self.size_bytes} bytes>"

    def __bool__(self) -> bool:
        return bool(self.pending or self._out)

    @property
    def last_one(self) -> bool:
        """Whether a single one is pending, and nothing is to be written before it."""
        return len(self.pending) == 1 and not self._out

    def add(self, frame: bytes) -> None:
        """A reply, behind all others."""
        self.size_bytes += len(frame)
        if self.pending:
            slot = Slot(b"")
            slot.frame = frame
            self.pending.append(slot)
        else:
            self._out.append(frame)

    def fill(self, slot: Slot, frame: bytes) -> None:
        """The frame of ``slot``, unless it has one."""
        if slot.frame is None:
            slot.leave()
            slot.frame = frame
            self.size_bytes += len(frame)

    def take(self) -> bytes:
        """What is ready and in order, in one piece."""
        out, pending = self._out, self.pending
        while pending and (frame := pending[0].frame) is not None:
            out.append(frame)
            pending.popleft()
        taken = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.size_bytes -= len(taken)
        return taken

    def drop(self) -> None:
        """Nobody waits for any of them."""
        for slot in self.pending:
            slot.cancel()
        self.pending.clear()
        self._out.clear()
