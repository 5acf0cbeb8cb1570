"""Single flight: one load per key, for however many callers want it.

A flight belongs to nobody: a caller's cancellation or deadline ends its own wait and no one else's, and
a flight that everybody has left still lands and fills the store. The flight has its own deadline, kept
by who runs it. A caller that needs more than the flight under way can promise (it began too early, or
its snapshot does not see the caller's token) says so through ``accepts`` and flies again.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from snapring.errors import DeadlineExceeded

T = TypeVar("T")


class Flights(Generic[T]):
    """The flights under way, by key. ``attempts`` bounds how often one caller flies."""

    def __init__(self, *, clock: Callable[[], float], attempts: int = 3) -> None:
        self._clock = clock
        self._attempts = attempts
        self._under_way: dict[bytes, asyncio.Future[T]] = {}
        self.joined = 0

    def __len__(self) -> int:
        return len(self._under_way)

    async def join(
        self,
        key: bytes,
        depart: Callable[[], asyncio.Future[T]],
        accepts: Callable[[T], bool],
        deadline_s: float,
    ) -> T:
        """What a flight for ``key`` brought that the caller ``accepts``, else the last one brought.

        ``depart`` starts a flight and returns its future. Raises what the flight raised, or
        `DeadlineExceeded` at ``deadline_s`` (monotonic).
        """
        for _ in range(self._attempts):
            landed = await self._wait(self._flight(key, depart), deadline_s)
            if accepts(landed):
                break
        return landed

    def _flight(self, key: bytes, depart: Callable[[], asyncio.Future[T]]) -> asyncio.Future[T]:
        flight = self._under_way.get(key)
        if flight is not None and not flight.done():
            self.joined += 1
            return flight
        flight = self._under_way[key] = depart()
        flight.add_done_callback(lambda landed: self._landed(key, landed))
        return flight

    def _landed(self, key: bytes, flight: asyncio.Future[T]) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]
        if not flight.cancelled():
            flight.exception()  # retrieved, although every caller may have left

    async def _wait(self, flight: asyncio.Future[T], deadline_s: float) -> T:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock())):
                return await asyncio.shield(flight)
        except TimeoutError as error:
            raise DeadlineExceeded("no answer within the request's deadline: retry with a longer one") from error
