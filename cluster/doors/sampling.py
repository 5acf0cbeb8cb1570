"""How long the doors take, by sample: now and then the next request of each is timed. The others cost nothing."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from cluster.distribution import QUICK_SECONDS, Distribution


class Sampled(Protocol):
    """A door, as far as it is timed."""

    def sample(self, took: Callable[[float], None]) -> None:
        """Tell ``took`` how many seconds the next request takes."""


class Sampling:
    """The ``doors`` by name. ``took`` are the seconds that their requests took."""

    def __init__(self, doors: Mapping[str, Sampled], period_s: float) -> None:
        self._doors = doors
        self._period_s = period_s
        self.took = {name: Distribution(QUICK_SECONDS) for name in doors}

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            for name, door in self._doors.items():
                door.sample(self.took[name].observe)
            await asyncio.sleep(self._period_s)
