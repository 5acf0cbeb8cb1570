"""Loads that wait until the schedule answers them: what a node has here in place of its loader."""

import asyncio
from collections.abc import Callable
from typing import Any

from cluster.breaker import Breaker
from cluster.loader import Loaded
from scripts.simulation.loop import Loop
from snapring.keys import DEFAULT_TENANT


class PendingLoads:
    """The loads that callers wait for, by key. ``submit`` is the loader's."""

    def __init__(self, loop: Loop, breaker: Breaker) -> None:
        self._loop = loop
        self._breaker = breaker
        self.waiting: dict[str, list[tuple[Callable[[Loaded], Any], asyncio.Future[Any]]]] = {}

    def submit(
        self, cache: str, args: tuple[str, ...], land: Callable[[Loaded], Any], tenant: str
    ) -> asyncio.Future[Any]:
        """Wait for an answer; there is one ``tenant``. Raises `Unavailable` while the breaker is not closed."""
        assert tenant == DEFAULT_TENANT
        self._breaker.guard()
        future = self._loop.create_future()
        self.waiting.setdefault(args[0] if args else cache, []).append((land, future))
        return future

    def pop(self, key: str) -> tuple[Callable[[Loaded], Any], asyncio.Future[Any]]:
        """The oldest load of ``key``: what makes an entry of the answer, and who waits for that."""
        waiting = self.waiting[key]
        if len(waiting) == 1:
            del self.waiting[key]
        return waiting.pop(0)
