"""The calls of one asker while they are carried out.

Each call that is not left ends in exactly one outcome, by its deadline: what the handler returned, the error
that it raised, or the reason why it was not begun.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from peers.bounds import Bounds
from peers.errors import MessageInvalid
from peers.wire import Call, Hello
from snapring.errors import DeadlineExceeded, NodeStopping, Overloaded, SnapringError

_log: Final = logging.getLogger("snapring.peers")


@dataclass(slots=True, kw_only=True)
class Asker:
    """Who calls: its last hello, the ``epoch`` of its last message, the protocol's version between us."""

    hello: Hello
    epoch: bytes
    version: int


Handler = Callable[[Call, Asker], bytes | Coroutine[Any, Any, bytes]]
"""Answers a call: at once, or by a coroutine, which is cancelled at the call's deadline. Raises `SnapringError`."""

Settle = Callable[[int, bytes | SnapringError], None]
"""Gets the outcome of the call of that number."""


@dataclass(slots=True)
class _Work:
    task: asyncio.Task[bytes]
    timer: asyncio.TimerHandle


class Inbox:
    """Hands calls to ``handler`` and outcomes to ``settle``. ``stopping`` says whether calls are refused."""

    def __init__(
        self, *, handler: Handler, settle: Settle, bounds: Bounds, stopping: Callable[[], bool]
    ) -> None:
        self._handler = handler
        self._settle = settle
        self._bounds = bounds
        self._stopping = stopping
        self._awaited: dict[int, _Work] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()

    def __len__(self) -> int:
        """Calls whose handlers have not ended."""
        return len(self._tasks)

    def begin(self, number: int, call: Call, asker: Asker) -> None:
        """Carry ``call`` out. Raises `MessageInvalid` if one of that number is under way."""
        if number in self._awaited:
            raise MessageInvalid(f"call {number} is under way already")
        try:
            self._guard(call)
            outcome = self._handler(call, asker)
        except SnapringError as error:
            self._settle(number, error)
        except Exception as defect:  # noqa: BLE001 - a defect in one call must not reach the others
            self._settle(number, _reported(defect))
        else:
            if isinstance(outcome, bytes):
                self._settle(number, outcome)
            else:
                self._start(number, outcome, call.timeout_s)

    def leave(self, number: int) -> None:
        """Nobody waits for this call: cancel it, if it is under way."""
        work = self._awaited.pop(number, None)
        if work is not None:
            work.timer.cancel()
            work.task.cancel()

    async def empty(self) -> None:
        """Return when no handler is at work."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def leave_all(self) -> None:
        """Nobody waits for any call."""
        for number in tuple(self._awaited):
            self.leave(number)

    def _guard(self, call: Call) -> None:
        if self._stopping():
            raise NodeStopping("the node is stopping: ask another")
        if call.timeout_s <= 0:
            raise DeadlineExceeded("no time was left for the call when it came")
        # A call that was left may take its time to end: its place is free, as long as not too many do.
        most = self._bounds.max_under_way
        if len(self._awaited) >= most or len(self._tasks) >= 2 * most:
            raise Overloaded("too many calls are under way here", retry_after_s=self._bounds.retry_after_s)

    def _start(self, number: int, work: Coroutine[Any, Any, bytes], timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self._tasks.add(task)
        self._awaited[number] = _Work(task, loop.call_later(timeout_s, self._expire, number))
        task.add_done_callback(partial(self._done, number))

    def _expire(self, number: int) -> None:
        self.leave(number)
        self._settle(number, DeadlineExceeded("the call's deadline passed where it was carried out"))

    def _done(self, number: int, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()  # retrieved, although nobody may wait
        work = self._awaited.get(number)
        if work is None or work.task is not task:
            return
        del self._awaited[number]
        work.timer.cancel()
        if task.cancelled():
            self._settle(number, SnapringError("the call was cancelled where it was carried out"))
        elif failure is None:
            self._settle(number, task.result())
        else:
            self._settle(number, failure if isinstance(failure, SnapringError) else _reported(failure))


def _reported(defect: BaseException) -> SnapringError:
    """What the asker hears of a defect; the log has the rest."""
    _log.error("a call of a peer has met a defect", exc_info=defect)
    return SnapringError(f"a defect in the peer: {type(defect).__name__}")
