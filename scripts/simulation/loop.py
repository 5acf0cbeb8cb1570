"""An event loop whose every turn is somebody's choice: no clock, no I/O, no order of its own.

Callbacks that are due wait in ``ready`` until `turn` is told which of them to run. So the order of wakeups,
cancellations and deadlines is part of a schedule, also orders that asyncio's own queue would not choose.
"""

# ruff: noqa: D102, SLF001 - what asyncio calls is documented there; what a loop runs, only a loop may

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, cast


def _when(timer: asyncio.TimerHandle) -> float:
    return timer.when()


class Loop:
    """As much of an event loop as futures, tasks and timeouts need.

    ``complaints`` are what asyncio would have logged, such as a failure that nobody looked at.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timers: list[asyncio.TimerHandle] = []
        self.ready: list[asyncio.Handle] = []
        self.complaints: list[str] = []

    @property
    def whole(self) -> asyncio.AbstractEventLoop:
        """This loop, for those who believe that it can do everything."""
        return cast("asyncio.AbstractEventLoop", self)

    def turn(self, which: int) -> None:
        """Run one of the callbacks that are ready, counted from the oldest."""
        handle = self.ready.pop(which)
        if not handle.cancelled():
            self.within(handle._run)

    def within(self, act: Callable[[], Any]) -> Any:
        """``act()``, to which this is the running loop."""
        asyncio._set_running_loop(self.whole)
        try:
            return act()
        finally:
            asyncio._set_running_loop(None)

    def ring(self) -> None:
        """The timers that are due become ready."""
        if not self._timers:
            return
        now_s = self._clock()
        due = [timer for timer in self._timers if timer.when() <= now_s]
        self._timers = [timer for timer in self._timers if timer.when() > now_s]
        due.sort(key=_when)
        self.ready += due

    def time(self) -> float:
        return self._clock()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self.whole)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self.whole, **options)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.whole, context)
        self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self.whole, context)
        self._timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle in self._timers:
            self._timers.remove(handle)
