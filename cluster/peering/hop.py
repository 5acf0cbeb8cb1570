"""A plain read on its way to the owner of its key, without a task of its own. No I/O.

It has one outcome at most, and none once it is cancelled: the owner's value or its error about the request; or,
where the hop or the answer is no good, the coroutine that goes on without the owner.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from cluster.config import CacheConfig
from cluster.requests import State
from peers.channel import Channel
from peers.outbox import Pending
from peers.wire import Call
from snapring.errors import SnapringError

Outcome = bytes | None | SnapringError | Coroutine[Any, Any, bytes | None]


class Judge(Protocol):
    """Says what becomes of a hop: calls its ``done``."""

    def answered(self, hop: "Hop", body: bytes) -> None:
        """The owner has answered."""

    def broke(self, hop: "Hop", error: SnapringError) -> None:
        """The owner has answered with ``error``, or the hop has failed."""


class Hop(Pending):
    """A read of ``key``, in ``slot``, of ``cache``, that came at monotonic ``asked_s``. `begin` it once."""

    __slots__ = ("_judge", "age_s", "asked_s", "cache", "channel", "done", "key", "slot", "state")

    done: Callable[[Outcome], None]

    def __init__(
        self,
        *,
        call: Call,
        channel: Channel,
        key: bytes,
        slot: int,
        cache: CacheConfig,
        asked_s: float,
        judge: Judge,
    ) -> None:
        Pending.__init__(self, call)  # faster than super()
        self.channel = channel
        self.key = key
        self.slot = slot
        self.cache = cache
        self.asked_s = asked_s
        self.state: State | None = None  # of the owner's value, once it has come
        self.age_s = 0.0
        self._judge = judge

    def begin(self, done: Callable[[Outcome], None]) -> None:
        """Ask; ``done`` gets the outcome, at once where nothing could be sent."""
        self.done = done
        try:
            self.channel.ask(self)
        except SnapringError as error:
            self.failed(error)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.channel.leave(self)

    def answered(self, body: bytes) -> None:
        """See `Pending`."""
        self._judge.answered(self, body)

    def failed(self, error: SnapringError) -> None:
        """See `Pending`."""
        self._judge.broke(self, error)
