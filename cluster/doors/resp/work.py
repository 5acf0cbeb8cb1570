"""The commands of one connection in work: executed, and answered, in the order in which they came.

A command that must wait takes a `Slot`; the commands behind it run all the same, and their replies queue behind
it. Only a write is alone: it begins when all before it has been answered, and what is behind it waits for its
end, so that the reads and writes of a connection take effect in their order. What is bounded, and by which setting:

* commands in work: ``max_pipeline``; beyond it nothing more is executed.
* replies that the client has not read: ``write_buffer``, the same; a client for which what was under way piles up
  to `_PILE` times as much is disconnected.
* commands executed in one round of the loop: `_ROUND`, and where clients show keys, their tenant's turn: a long
  pipeline does not hold up other clients.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, cast

from cluster.config import RespConfig
from cluster.doors.reads import Come, Late, Value
from cluster.doors.resp.commands import Alone, Session, Words
from cluster.doors.resp.frames import bulk, failure
from cluster.doors.resp.outcomes import STOPPING, Outcomes
from cluster.doors.resp.replies import Replies, Slot
from cluster.doors.resp.shares import Share
from snapring.errors import SnapringError, WriteUncertain

_ROUND: Final = 256
_PILE: Final = 8
_LATE_S: Final = 0.0001
"""What a task takes of the loop's time after its turn, roughly."""


_UNCERTAIN: Final = WriteUncertain(
    "the node stopped before the write had ended: it may have happened, or may soon,"
    " unless it demands a version that is gone by then"
)


class Client(Protocol):
    """Who is answered. ``direct`` tells it that it may answer the next command by itself."""

    direct: bool

    @property
    def write(self) -> Callable[[bytes], None]:
        """How to send."""

    def settle(self) -> None:
        """Something has been executed or answered."""

    def disconnect(self) -> None:
        """It does not read what it asks for."""


class _Nobody:
    """Who has gone."""

    direct = False

    def write(self, data: bytes) -> None:
        """Nothing is sent."""

    def settle(self) -> None:
        """Nothing changes."""

    def disconnect(self) -> None:
        """He is."""


_NOBODY: Final = _Nobody()


class Work:
    """What ``client`` has asked for and has not been answered.

    ``writable`` is False while the client reads more slowly than it asks: what is ready waits here then.

    ``share`` is whose turn it must be for commands to be executed; None where clients are not told apart.

    ``sole`` is all that is under way, where the client was direct before it and nothing has been settled since.
    """

    __slots__ = (
        "_alone", "_client", "_config", "_ended", "_held", "_loop", "_outcomes", "_replies",
        "_session", "_turning", "share", "sole", "writable",
    )  # fmt: skip

    def __init__(self, client: Client, outcomes: Outcomes, session: Session, config: RespConfig) -> None:
        self._client: Client = client
        self._outcomes = outcomes
        self._session = session
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._held: deque[Words] = deque()  # not executed
        self._replies = Replies()
        # The last of those pending: a write, under way or about to be.
        self._alone: tuple[Slot, Alone] | None = None
        self.sole: Slot | None = None
        self.writable = True
        self.share: Share | None = None
        self._turning = self._ended = False

    def __repr__(self) -> str:
        return f"<Work held={len(self._held)} {self._replies!r}>"

    @property
    def waiting(self) -> bool:
        """Whether something has not been executed, answered or written."""
        return bool(self._held or self._replies)

    @property
    def pending(self) -> bool:
        """Whether a reply is awaited."""
        return bool(self._replies.pending)

    @property
    def wants_more(self) -> bool:
        """Whether all has been executed, and more would be."""
        return not self._held and not self._full()

    # -- what the client does ------------------------------------------------------------------------

    def take(self, commands: Iterable[Words]) -> None:
        """Execute ``commands``, behind those held."""
        self._held.extend(commands)
        self.run()

    def run(self, *, in_turn: bool = False) -> None:
        """Execute what is held, in order, until a bound says to wait; something at least, if it is called ``in_turn``."""
        most = _ROUND
        while self._held and most and self._alone is None and not self._full():
            if not in_turn and not self._has_turn():
                break
            self._execute(self._held.popleft())
            most, in_turn = most - 1, False
        self._flush()
        if self._alone is not None:
            self._begin(*self._alone)
        elif self._held and not self._full():
            self._run_soon()
        self._client.settle()

    def wait_for(self, late: Late) -> None:
        """Answer with what ``late`` comes to, and with nothing else meanwhile."""
        slot = self.sole = Slot(self._session.null)
        slot.work = late
        self._replies.pending.append(slot)
        late.begin(partial(self._came, slot))

    def push(self, frame: bytes, *, now: bool) -> None:
        """Send what nobody asked for, behind the replies under way, which may hold what it is about; ``now`` too."""
        if now and self.pending:
            self._client.write(frame)
        self._replies.add(frame)
        self._flush()

    def forget(self) -> None:
        """What has not been executed never will be."""
        self._held.clear()

    def give_up(self) -> None:
        """Answer what is still under way with `NodeStopping`, a write with `WriteUncertain`."""
        for slot in self._replies.pending:
            self._replies.fill(slot, failure(_UNCERTAIN if self._is_under_way(slot) else STOPPING))
            if slot.work is not None:
                slot.work.cancel()
        self._alone = None
        while self._held:
            self._held.popleft()
            self._replies.add(failure(STOPPING))

    def end(self) -> None:
        """Nobody waits any longer for any of it, and the client is not held any longer."""
        self._ended = True
        self._client = _NOBODY
        self._alone = None
        self._held.clear()
        self._replies.drop()

    # -- how a command is executed -------------------------------------------------------------------

    def _run_soon(self) -> None:
        """Once what is at hand for this and other clients has been seen to: replies that come together leave so."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._next_turn) if self.share is None else self.share.wait(self._next_turn)

    def _next_turn(self) -> None:
        self._turning = False
        if not self._ended:
            self.run(in_turn=True)

    def _full(self) -> bool:
        config = self._config
        return (
            len(self._replies.pending) >= config.max_pipeline
            or self._replies.size_bytes > config.write_buffer_bytes
        )

    def _has_turn(self) -> bool:
        return self.share is None or monotonic() < self.share.until_s

    def _execute(self, words: Words) -> None:
        if self._session.ending:
            return
        outcome = self._outcomes.of(words)
        if self.share is not None and self._session.rest_s:
            self.share.rest(self._session.rest_s)
            self._session.rest_s = 0.0
        if isinstance(outcome, bytes):
            self._replies.add(outcome)
            return
        caller = self._session.caller
        slot = Slot(self._session.null, caller.allowance if caller else None)
        self._replies.pending.append(slot)
        if isinstance(outcome, Alone):
            self._alone = slot, outcome
        elif isinstance(outcome, Coroutine):
            self._start(slot, outcome)
        else:
            slot.work = outcome
            outcome.begin(partial(self._came, slot))

    def _is_under_way(self, slot: Slot) -> bool:
        """Whether ``slot`` is of a write that has begun and not ended."""
        return self._alone is not None and slot is self._alone[0] and slot.work is not None

    def _begin(self, slot: Slot, alone: Alone) -> None:
        """Begin a write, unless something before it has not been answered or it has begun."""
        if slot.work is None and slot is self._replies.pending[0]:
            self._start(slot, alone.begin())

    # -- how it is answered --------------------------------------------------------------------------

    def _start(self, slot: Slot, work: Coroutine[Any, Any, bytes]) -> None:
        """Have ``work`` find the frame of ``slot``."""
        if self.share is not None:
            self.share.charge(_LATE_S)
        slot.work = task = self._loop.create_task(work)
        task.add_done_callback(lambda task: self._arrived(slot, task))

    def _arrived(self, slot: Slot, task: asyncio.Task[bytes]) -> None:
        failed = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._ended or slot.frame is not None:
            return
        if self._alone is not None and slot is self._alone[0]:
            self._alone = None
        self._answer(slot, self._outcomes.failed(failed) if failed else task.result())

    def _came(self, slot: Slot, come: Come) -> None:
        """What the `Late` of ``slot`` has come to."""
        assert slot.work is not None, "it waits for what has come"
        come = self._outcomes.came(cast("Late", slot.work), come)
        slot.work = None  # it knows the slot: without this the two would wait for the garbage collector
        if come is None or isinstance(come, bytes):
            self._answer(slot, slot.null if come is None else bulk(come))
        elif isinstance(come, SnapringError):
            self._answer(slot, self._outcomes.failed(come))
        else:
            self._start(slot, _framed(come, slot.null))

    def _answer(self, slot: Slot, frame: bytes) -> None:
        """The frame of ``slot`` is there."""
        replies, client = self._replies, self._client
        if slot is self.sole:
            self.sole = None
            replies.pending.clear()
            client.direct = self.writable  # as it was: whatever else closes the hit path settles
            client.write(frame)
            return
        if replies.last_one and self.writable and not self._held:
            slot.leave()
            replies.pending.clear()
            client.write(frame)
            client.settle()
            return
        piled_up = replies.size_bytes > _PILE * self._config.write_buffer_bytes
        replies.fill(slot, frame)
        if slot is replies.pending[0]:
            self._run_soon() if len(replies.pending) > 1 else self.run()
        elif piled_up:
            client.disconnect()

    def _flush(self) -> None:
        if self.writable and not self._ended and (ready := self._replies.take()):
            self._client.write(ready)


async def _framed(value: Coroutine[Any, Any, Value], null: bytes) -> bytes:
    found = await value
    return null if found is None else bulk(found)
