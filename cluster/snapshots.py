"""A Postgres snapshot: which transactions it sees, and how two snapshots are ordered. Pure.

Transaction ids are 64-bit (``xid8``) everywhere. ``sees`` is the visibility rule of
``pg_visible_in_snapshot``: a transaction is visible if it had ended when the snapshot was taken.
Snapshots of one primary and incarnation form a chain; the comparison nevertheless answers all four
cases of a partial order, and there is no ``__lt__`` to hide the fourth.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_XID: Final = 2**64 - 1
_TEXT: Final = re.compile(r"(\d{1,20}):(\d{1,20}):((?:\d{1,20}(?:,\d{1,20})*)?)")


class Order(Enum):
    """How one snapshot stands to another."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``xmin:xmax:xip``. Invariant: 1 <= xmin <= every xip < xmax, xip ascending without repeats.

    Every transaction below ``xmin`` had ended; none at or above ``xmax`` had; those in ``xip`` were
    running.
    """

    xmin: int
    xmax: int
    xip: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.xmin <= self.xmax <= MAX_XID:
            raise ValueError(f"not a snapshot: xmin {self.xmin}, xmax {self.xmax}")
        previous = self.xmin - 1
        for xid in self.xip:
            if not previous < xid < self.xmax:
                raise ValueError(f"not a snapshot: xip {xid} out of place")
            previous = xid

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        """The snapshot that ``pg_current_snapshot()::text`` wrote. Raises `ValueError`."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a snapshot: {text!r}")
        running = tuple(map(int, match[3].split(","))) if match[3] else ()
        return cls(int(match[1]), int(match[2]), running)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.xip))}"

    def sees(self, xid: int) -> bool:
        """Whether ``xid`` had ended when this snapshot was taken."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.xip)

    def within(self, other: "Snapshot") -> bool:
        """Whether ``other`` sees every transaction that this snapshot sees."""
        if self.xmax <= other.xmin:
            return True  # what nearly always holds is quickly seen
        unseen_above = sum(xid >= other.xmax for xid in self.xip)
        return self.xmax - other.xmax <= unseen_above and all(
            xid in self.xip for xid in other.xip if xid < self.xmax
        )

    def compare(self, other: "Snapshot") -> Order:
        """How this snapshot stands to ``other``, by what each of them sees."""
        forward, backward = self.within(other), other.within(self)
        if forward and backward:
            return Order.EQUAL
        if forward:
            return Order.BEFORE
        return Order.AFTER if backward else Order.CONCURRENT
