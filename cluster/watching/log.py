"""The keys that left a node's memory, in order, within bounds. Pure: no clock, network or disk.

Time is counted in **ticks**, one for each move of the watermark. A key is stamped with the tick in which it left,
so whoever has read up to the beginning of a tick knows all that ended until that watermark.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KEY_BYTES: Final = 64
"""What a key takes here besides its text."""

_COMPACT: Final = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """How far someone has read log ``log``: every key stamped before ``tick``, and perhaps some stamped with it."""

    log: int
    tick: int


class Log:
    """At most ``max_keys`` keys and ``max_bytes`` bytes of them; the oldest go first.

    A key has a position, counted from the log's beginning: ``first`` is that of the oldest kept, ``end`` that of
    the next. ``tick`` is the present one. ``number`` tells this log from every other.
    """

    def __init__(self, number: int, *, max_keys: int, max_bytes: int) -> None:
        self.number = number
        self.tick = self.first = 0
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._keys: list[bytes] = []
        self._ticks: list[int] = []  # ascending, beside _keys
        self._gone = 0  # of those lists, from their beginning
        self._bytes = 0
        self._whole_from = 0  # every key stamped with this tick or a later one is here

    def __repr__(self) -> str:
        return f"<Log {self.number:016x} tick={self.tick} {len(self)} keys, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._keys) - self._gone

    @property
    def end(self) -> int:
        """The position of the next key."""
        return self.first + len(self)

    @property
    def used_bytes(self) -> int:
        """What its keys take."""
        return self._bytes

    @property
    def place(self) -> Place:
        """That of whoever has read everything."""
        return Place(self.number, self.tick)

    def append(self, key: bytes) -> bool:
        """``key`` has left in the present tick. False if an older one had to go for it."""
        self._keys.append(key)
        self._ticks.append(self.tick)
        self._bytes += KEY_BYTES + len(key)
        whole = True
        while len(self) > self._max_keys or self._bytes > self._max_bytes:
            self._drop_oldest()
            whole = False
        return whole

    def turn(self) -> None:
        """The watermark has moved: the next tick begins."""
        self.tick += 1

    def skip(self) -> None:
        """Everything has left: nobody reads on from before."""
        self.first = self.end + 1
        self.tick += 1
        self._whole_from = self.tick
        self._keys, self._ticks = [], []
        self._gone = self._bytes = 0

    def position(self, place: Place) -> int | None:
        """Where whoever has read up to ``place`` reads on; None if what follows it is not known here."""
        if place.log != self.number or not self._whole_from <= place.tick <= self.tick:
            return None
        return self.first + bisect_left(self._ticks, place.tick, self._gone) - self._gone

    def read(self, position: int, most: int) -> tuple[Sequence[bytes], Place]:
        """At most ``most`` keys from ``position`` on, at least ``first``, and the place of whoever has read them."""
        start = self._gone + position - self.first
        keys = self._keys[start : start + most]
        if position + len(keys) == self.end:
            return keys, self.place
        return keys, Place(self.number, self._ticks[start + len(keys) - 1])

    def _drop_oldest(self) -> None:
        self._bytes -= KEY_BYTES + len(self._keys[self._gone])
        self._whole_from = self._ticks[self._gone] + 1
        self._keys[self._gone] = b""
        self.first += 1
        self._gone += 1
        if self._gone > _COMPACT and self._gone > len(self):
            del self._keys[: self._gone], self._ticks[: self._gone]
            self._gone = 0
