"""What the eviction policy remembers of entries that left memory: 16 bytes each. Pure."""

from array import array
from typing import Final

_ROW: Final = 16


class Ghost:
    """Traces, positive 63-bit numbers, of keys that left, found by the keys' hashes.

    One array in rows of eight pairs (hash, trace), the youngest first; a new one pushes the oldest of its
    row out. Keys of equal hash share a trace: that misleads the policy about one entry and harms nobody.
    The table doubles by repeating itself, after which each trace is where its hash points to, and once
    where no such hash points. With `fit` it takes at most `BYTES_PER_ENTRY` for each entry in memory,
    twice that only until the next halving.
    """

    BYTES_PER_ENTRY: Final = 64

    __slots__ = ("_mask", "_pairs")

    def __init__(self) -> None:
        self._pairs = array("q", bytes(8 * _ROW))
        self._mask = 0

    def __len__(self) -> int:
        """How many traces there is room for."""
        return len(self._pairs) // 2

    def recall(self, key: bytes) -> int:
        """The trace of ``key``, which is thereby forgotten; 0 where there is none."""
        hashed = hash(key)
        start = (hashed & self._mask) * _ROW
        row = self._pairs[start : start + _ROW]
        if hashed not in row:
            return 0
        at = row.index(hashed) & ~1
        self._pairs[start + at] = 0
        return row[at + 1]

    def remember(self, key: bytes, trace: int) -> int:
        """Keep ``trace``. Returns the one pushed out for it; 0 where there was room."""
        hashed = hash(key)
        pairs = self._pairs
        start = (hashed & self._mask) * _ROW
        end = start + _ROW
        pushed = pairs[end - 2]
        lost = pairs[end - 1] if pushed and (pushed ^ hashed) & self._mask == 0 else 0
        pairs[start + 2 : end] = pairs[start : end - 2]
        pairs[start] = hashed
        pairs[start + 1] = trace
        return lost

    def fit(self, entries: int) -> None:
        """Double while that leaves no more than four traces for each of ``entries``; halve above eight."""
        cells = len(self._pairs)
        if cells <= 4 * entries:
            self._pairs += self._pairs
        elif cells > 16 * entries and cells > _ROW:
            del self._pairs[cells // 2 :]
        else:
            return
        self._mask = len(self._pairs) // _ROW - 1
