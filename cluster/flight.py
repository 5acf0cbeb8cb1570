"""Single flight: one load per key, for however many callers want it.

A flight belongs to nobody: a caller's cancellation or deadline ends its own wait and no one else's, and
a flight that everybody has left still lands and fills the store. The flight has its own deadline, kept
by who runs it. A caller that needs more than the flight under way can promise (it began too early, or
its snapshot does not see the caller's token) says so through ``accepts`` and flies again.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from cluster.tracing.seam import note
from snapring.errors import DeadlineExceeded

T = TypeVar("T")
R = TypeVar("R")

_Flight = list[asyncio.Future[T]]
"""Those who wait for a flight. Not one future for all: what one of them does must not reach another."""


class Flights(Generic[T]):
    """The flights under way, by key. ``attempts`` bounds how often one caller flies."""

    def __init__(self, *, clock: Callable[[], float], attempts: int = 3) -> None:
        self._clock = clock
        self._attempts = attempts
        self._under_way: dict[bytes, _Flight[T]] = {}
        self.joined = 0

    def __len__(self) -> int:
        return len(self._under_way)

    async def join(
        self,
        key: bytes,
        depart: Callable[[], asyncio.Future[T]],
        accepts: Callable[[T], R | None],
        deadline_s: float,
    ) -> R | None:
        """What the caller makes of a flight for ``key``, None if none brought what it ``accepts``.

        ``depart`` starts a flight and returns its future. Raises what the flight raised, or
        `DeadlineExceeded` at ``deadline_s`` (monotonic).
        """
        for _ in range(self._attempts):
            flight, own = self._flight(key, depart)
            accepted = accepts(await self._wait(flight, deadline_s))
            if accepted is not None or own:  # one's own began late enough: another would bring no more
                return accepted
        return None

    def _flight(self, key: bytes, depart: Callable[[], asyncio.Future[T]]) -> "tuple[_Flight[T], bool]":
        """The flight for ``key``, and whether this caller started it."""
        known = self._under_way.get(key)
        if known is not None:
            self.joined += 1
            note("snapring.flight_joined")
            return known, False
        flight: _Flight[T] = []
        self._under_way[key] = flight
        try:
            depart().add_done_callback(lambda landed: self._landed(key, landed))
        except BaseException:
            del self._under_way[key]
            raise
        return flight, True

    def _landed(self, key: bytes, landed: asyncio.Future[T]) -> None:
        failure = landed.exception()  # retrieved, although every caller may have left
        for waiter in self._under_way.pop(key):
            if waiter.done():
                continue  # its caller has left
            if failure is not None:
                waiter.set_exception(failure)
            else:
                waiter.set_result(landed.result())

    async def _wait(self, flight: "_Flight[T]", deadline_s: float) -> T:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        flight.append(waiter)
        timer = loop.call_later(max(0.0, deadline_s - self._clock()), _expire, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()


def _expire(waiter: asyncio.Future[T]) -> None:
    if not waiter.done():
        waiter.set_exception(
            DeadlineExceeded("no answer within the request's deadline: retry with a longer one")
        )
