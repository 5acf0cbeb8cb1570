"""The calls of one channel: those that wait to be sent, and those under way. No I/O.

A call keeps its place from `Outbox.enter` to `Outbox.leave`, whatever becomes of it; numbers are never used
again. What is waiting is taken in the order in which it came, as much at a time as one message may have.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from peers.bounds import Bounds
from peers.errors import MessageTooLarge, PeerError
from peers.wire import Call, CallRow, call_row
from snapring.errors import Overloaded


@dataclass(slots=True, eq=False)
class Pending:
    """A call whose caller waits for ``future`` until monotonic ``deadline_s``."""

    number: int
    call: Call
    deadline_s: float
    future: asyncio.Future[bytes]

    def fail(self, error: Exception) -> None:
        """Give the caller ``error``, unless it has an outcome."""
        if not self.future.done():
            self.future.set_exception(error)


class Outbox:
    """Calls, by number."""

    def __init__(self, bounds: Bounds, *, clock: Callable[[], float]) -> None:
        self._bounds = bounds
        self._clock = clock
        self._numbers = 0
        self._waiting: dict[int, Pending] = {}
        self._under_way: dict[int, Pending] = {}
        self._left: list[int] = []
        self.waiting_bytes = 0

    def __repr__(self) -> str:
        return f"<Outbox {self.waiting} waiting, {self.under_way} under way>"

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def waiting(self) -> int:
        """Calls not sent."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Calls sent and not answered."""
        return len(self._under_way)

    def enter(self, call: Call, future: asyncio.Future[bytes]) -> Pending:
        """A place for ``call``. Raises `MessageTooLarge`, `Overloaded`."""
        size, bounds = len(call.body), self._bounds
        if size > bounds.max_body_bytes:
            raise MessageTooLarge(f"a call of {size} bytes: peers exchange at most {bounds.max_body_bytes}")
        if len(self._waiting) >= bounds.max_waiting or self.waiting_bytes + size > bounds.max_held_bytes:
            raise Overloaded("too many calls wait for this peer", retry_after_s=bounds.retry_after_s)
        self._numbers += 1
        pending = Pending(self._numbers, call, self._clock() + call.timeout_s, future)
        self._waiting[pending.number] = pending
        self.waiting_bytes += size
        return pending

    def leave(self, pending: Pending) -> bool:
        """Its caller waits no more: free the place. Whether the peer still has to be told."""
        if self._waiting.pop(pending.number, None) is not None:
            self.waiting_bytes -= len(pending.call.body)
            return False
        unanswered = self._under_way.pop(pending.number, None) is not None
        # Beyond this bound the peer learns of it by the call's deadline.
        if unanswered and len(self._left) < self._bounds.max_under_way:
            self._left.append(pending.number)
        return unanswered

    def take(self) -> list[CallRow]:
        """The calls of the next message, each with the time it has left; from now on they are under way."""
        bounds = self._bounds
        room = min(bounds.max_batch_calls, bounds.max_under_way - len(self._under_way))
        taken: list[Pending] = []
        size = 0
        for pending in islice(self._waiting.values(), max(0, room)):
            size += len(pending.call.body)
            if taken and size > bounds.max_batch_bytes:
                break
            taken.append(pending)
        now = self._clock()
        return [self._send(pending, now) for pending in taken]

    def take_left(self) -> list[int]:
        """The numbers of calls under way whose callers have left since the last time."""
        left, self._left = (
            self._left[: self._bounds.max_batch_calls],
            self._left[self._bounds.max_batch_calls :],
        )
        return left

    def answered(self, number: int) -> Pending | None:
        """The call that an answer is for; None if nobody waits for it."""
        return self._under_way.pop(number, None)

    def fail_all(self, error: Callable[[], PeerError]) -> None:
        """Every caller gets an error of its own; no place is taken any more."""
        everyone = (*self._waiting.values(), *self._under_way.values())
        self._waiting.clear()
        self._under_way.clear()
        self._left.clear()
        self.waiting_bytes = 0
        for pending in everyone:
            pending.fail(error())

    def _send(self, pending: Pending, now: float) -> CallRow:
        del self._waiting[pending.number]
        self._under_way[pending.number] = pending
        self.waiting_bytes -= len(pending.call.body)
        return call_row(pending.number, pending.call, pending.deadline_s - now)
