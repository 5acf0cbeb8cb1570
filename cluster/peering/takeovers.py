"""The reads that this node does itself because other nodes have failed: only so many at once.

What several nodes owned must not fall upon the rest at once; and what the rest own goes on being loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from snapring.errors import Overloaded

RETRY_AFTER_S: Final = 0.1


class Takeovers:
    """At most ``most`` at once. ``refused`` counts those that were one too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.under_way = self.refused = 0

    def __repr__(self) -> str:
        return f"<Takeovers {self.under_way} of {self._most} refused={self.refused}>"

    @contextmanager
    def one(self) -> Iterator[None]:
        """While it lasts, this read is one of them. Raises `Overloaded`."""
        if self.under_way >= self._most:
            self.refused += 1
            raise Overloaded(
                "other nodes have failed, and this one takes over no more at once",
                retry_after_s=RETRY_AFTER_S,
            )
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
