"""Whether the memory of a process that was fuzzed grows without end. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_RISE_MIB: Final = 16.0
MAX_RISE: Final = 0.05
"""What may come on top in the second half of a run: so many MiB, or this part of what there was."""

MIN_JUDGED_S: Final = 60.0
"""A shorter run is still warming up at its end."""

Sample = tuple[float, float]
"""Seconds since the start, and MiB of resident memory then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Resident memory in MiB: first seen, halfway, last seen; and per minute, fitted to the second half."""

    start: float
    halfway: float
    end: float
    per_minute: float
    judged_s: float

    @property
    def rise(self) -> float:
        """What the second half has added, by the fitted line."""
        return self.per_minute * self.judged_s / 60

    @property
    def bounded(self) -> bool:
        """Whether it stays within what a warm process may still take."""
        return self.judged_s * 2 < MIN_JUDGED_S or self.rise <= max(MAX_RISE_MIB, MAX_RISE * self.halfway)


def growth(samples: Sequence[Sample]) -> Growth:
    """What ``samples``, in their order, at least one, show."""
    first_s, last_s = samples[0][0], samples[-1][0]
    late = [sample for sample in samples if sample[0] >= (first_s + last_s) / 2]
    return Growth(
        start=samples[0][1],
        halfway=late[0][1],
        end=samples[-1][1],
        per_minute=60 * _slope(late),
        judged_s=last_s - late[0][0],
    )


def _slope(samples: Sequence[Sample]) -> float:
    """Of the line with the least squares."""
    mean_s = sum(when for when, _ in samples) / len(samples)
    mean = sum(size for _, size in samples) / len(samples)
    spread = sum((when - mean_s) ** 2 for when, _ in samples)
    return sum((when - mean_s) * (size - mean) for when, size in samples) / spread if spread else 0.0
