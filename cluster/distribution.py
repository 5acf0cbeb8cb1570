"""How a quantity is spread: counts below bounds that are fixed beforehand, as Prometheus' histograms are. Pure."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import Final

SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
)
QUICK_SECONDS: Final = (0.00001, 0.000025, 0.00005, *SECONDS)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Distribution:
    """Of whatever was `observe`d. ``total`` is its sum."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Distribution of {self.count}, {self.total:g} in all>"

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count ``value``."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, the last one infinite, and how many were not above it."""
        return zip((*self._bounds, inf), accumulate(self._counts), strict=True)
