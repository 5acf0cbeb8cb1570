"""The calls of one channel: those that wait to be sent, and those under way. No I/O.

A call keeps its place from `Outbox.enter` to `Outbox.leave`, whatever becomes of it; numbers are never used
again. What is waiting is taken in the order in which it came, as much at a time as one message may have.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain, islice
from math import inf
from typing import Final

from peers.bounds import Bounds
from peers.errors import MessageTooLarge, PeerError
from peers.wire import MAX_TIMEOUT_S, Call, CallRow, call_row
from snapring.errors import Overloaded, SnapringError

_log: Final = logging.getLogger("snapring.peers")


class Pending:
    """A call, and what becomes of it: a subclass says what its outcome, of which there is one at most, is good for.

    From `Outbox.enter` on it has a ``number`` and ends by monotonic ``deadline_s``. Once it is ``left``, it has no
    outcome any more.
    """

    __slots__ = ("call", "deadline_s", "left", "number")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.number = 0
        self.deadline_s = inf
        self.left = False

    def end(self, outcome: bytes | SnapringError) -> None:
        """Hand the outcome over. A defect of who gets it reaches no other call."""
        try:
            if isinstance(outcome, bytes):
                self.answered(outcome)
            elif not self.left:
                self.failed(outcome)
        except Exception:  # noqa: BLE001 - as in `peers.inbox`
            _log.exception("what became of a call has met a defect")

    @abstractmethod
    def answered(self, body: bytes) -> None:
        """The peer has answered."""

    @abstractmethod
    def failed(self, error: SnapringError) -> None:
        """The peer has answered with ``error``, or the hop has failed."""


class Outbox:
    """Calls, by number. ``traces`` are those of the calls last taken, by number."""

    def __init__(self, bounds: Bounds, *, clock: Callable[[], float]) -> None:
        self._bounds = bounds
        self._clock = clock
        self._numbers = 0
        self._waiting: dict[int, Pending] = {}
        self._under_way: dict[int, Pending] = {}
        self._left: list[int] = []
        self.waiting_bytes = 0
        self.traces: list[tuple[int, bytes]] = []

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

    def __iter__(self) -> Iterator[Pending]:
        """Every call that has a place, the oldest first but for those that wait."""
        return chain(self._under_way.values(), self._waiting.values())

    def enter(self, pending: Pending) -> None:
        """A place for ``pending``. Raises `MessageTooLarge`, `Overloaded`."""
        call, bounds, waiting = pending.call, self._bounds, self._waiting
        size = len(call.body)
        if size > bounds.max_body_bytes:
            raise MessageTooLarge(f"a call of {size} bytes: peers exchange at most {bounds.max_body_bytes}")
        held = self.waiting_bytes + size
        if held > bounds.max_held_bytes or len(waiting) >= bounds.max_waiting:
            raise Overloaded("too many calls wait for this peer", retry_after_s=bounds.retry_after_s)
        pending.number = self._numbers = number = self._numbers + 1
        pending.deadline_s = self._clock() + min(call.timeout_s, MAX_TIMEOUT_S)
        waiting[number] = pending
        self.waiting_bytes = held

    def leave(self, pending: Pending) -> bool:
        """Its caller waits no more: free the place. Whether the peer still has to be told."""
        pending.left = True
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
        bounds, now = self._bounds, self._clock()
        room = min(bounds.max_batch_calls, bounds.max_under_way - len(self._under_way))
        rows: list[CallRow] = []
        traces: list[tuple[int, bytes]] = []
        taken: dict[int, Pending] = {}
        size, most = 0, bounds.max_batch_bytes
        for number, pending in islice(self._waiting.items(), max(0, room)):
            call = pending.call
            with_it = size + len(call.body)
            if rows and with_it > most:
                break
            if call.trace:
                traces.append((number, call.trace))
                most -= len(call.trace)
            size = with_it
            taken[number] = pending
            rows.append(call_row(number, call, pending.deadline_s - now))
        if len(taken) == len(self._waiting):
            self._waiting.clear()
        else:
            for number in taken:
                del self._waiting[number]
        self._under_way.update(taken)
        self.waiting_bytes -= size
        self.traces = traces
        return rows

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
            pending.end(error())
