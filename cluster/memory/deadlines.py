"""When entries with a time to live leave. Pure: the time is an argument."""

from collections.abc import Iterator
from math import ceil, floor
from typing import Final

RESOLUTION_S: Final = 0.5


class Deadlines:
    """Keys by the time at which they are due, in steps of `RESOLUTION_S`: never early, a step late at most.

    A key has one deadline, and one that is dropped leaves nothing behind, so this never holds more than
    there are entries. To set, to drop and to take out one key take constant time.
    """

    __slots__ = ("_keys", "_next", "_step_of")

    def __init__(self) -> None:
        self._keys: dict[int, set[bytes]] = {}
        self._step_of: dict[bytes, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._step_of)

    def set(self, key: bytes, due_s: float) -> None:
        """Let ``key`` be due at monotonic time ``due_s`` and at no other."""
        self.drop(key)
        step = ceil(due_s / RESOLUTION_S)
        self._next = min(self._next, step) if self._keys else step
        self._keys.setdefault(step, set()).add(key)
        self._step_of[key] = step

    def drop(self, key: bytes) -> None:
        """Let ``key`` never be due."""
        step = self._step_of.pop(key, None)
        if step is not None:
            keys = self._keys[step]
            keys.remove(key)
            if not keys:
                del self._keys[step]

    def due(self, now_s: float, most: int) -> Iterator[bytes]:
        """Take out at most ``most`` keys that are due at ``now_s``, the earliest first."""
        for step in self._due_steps(floor(now_s / RESOLUTION_S)):
            self._next = step
            while most and step in self._keys:
                most -= 1
                key = next(iter(self._keys[step]))
                self.drop(key)
                yield key
            if not most:
                return
            self._next = step + 1

    def _due_steps(self, last: int) -> range | list[int]:
        if last - self._next < len(self._keys):
            return range(self._next, last + 1)
        return sorted(step for step in self._keys if step <= last)
