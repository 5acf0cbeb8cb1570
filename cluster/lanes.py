"""The loads that wait, and whose turn it is: a lane for each cache and, where they are told apart, tenant. Pure.

Lanes take turns, so that whoever waits behind nobody of his own waits for one batch of each other at most. Of a
fixed number of workers the last free one is for a lane that has none: one query behind a lock does not hold up
all others. Where tenants are told apart, one more is kept for a tenant that has none.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from snapring.errors import Overloaded

T = TypeVar("T")

Lane = tuple[str, str]
"""A cache and a tenant, which is empty where tenants are not told apart."""


class Lanes(Generic[T]):
    """What waits for one of ``workers``. ``fills`` says how many of a queue of so many places are a tenant's at most.

    Without ``fills`` tenants are not told apart.
    """

    def __init__(self, workers: int, fills: Callable[[str, int], int] | None = None) -> None:
        self._workers = workers
        self._fills = fills
        self._waiting: dict[Lane, deque[T]] = {}
        self._under_way: Counter[Lane] = Counter()
        self._of_tenant: Counter[str] = Counter()  # waiting
        self.queued = 0

    def __repr__(self) -> str:
        return f"<Lanes {len(self._waiting)} queued={self.queued}>"

    def lane(self, cache: str, tenant: str) -> Lane:
        """Where a load for ``tenant`` out of ``cache`` waits."""
        return cache, tenant if self._fills is not None else ""

    def check(self, lane: Lane, places: int, retry_after_s: float) -> None:
        """Raise `Overloaded` if of a queue of ``places`` none is left for ``lane``."""
        if self.queued >= places:
            raise Overloaded(f"{self.queued} loads are waiting", retry_after_s=retry_after_s)
        _, tenant = lane
        if self._fills is not None and self._of_tenant[tenant] >= self._fills(tenant, places):
            raise Overloaded(
                f"{self._of_tenant[tenant]} loads of the tenant are waiting", retry_after_s=retry_after_s
            )

    def add(self, lane: Lane, item: T) -> None:
        """``item`` waits from now on."""
        self._waiting.setdefault(lane, deque()).append(item)
        self._of_tenant[lane[1]] += 1
        self.queued += 1

    def take(self, most: int) -> tuple[Lane, list[T]] | None:
        """At most ``most`` of the lane that has waited longest since its last turn, and may have a worker."""
        for lane in filter(self.may_go, list(self._waiting)):
            waiting = self._waiting.pop(lane)
            taken = [waiting.popleft() for _ in range(min(len(waiting), most))]
            if waiting:
                self._waiting[lane] = waiting  # to the back
            self._gone(lane, len(taken))
            return lane, taken
        return None

    def may_go(self, lane: Lane) -> bool:
        """Whether one more worker may be for ``lane``."""
        free = self._workers - self._under_way.total()
        if self._fills is None:
            return not self._under_way[lane] or free > 1
        if not any(count for (_, tenant), count in self._under_way.items() if tenant == lane[1]):
            return True
        return free > 1 if not self._under_way[lane] else free > 2

    def began(self, lane: Lane) -> None:
        """A worker is for ``lane`` now."""
        self._under_way[lane] += 1

    def ended(self, lane: Lane) -> None:
        """One that was is free."""
        self._under_way[lane] -= 1
        if not self._under_way[lane]:
            del self._under_way[lane]

    def clear(self) -> Iterable[list[T]]:
        """Everything that waits, which waits no longer."""
        waiting, self._waiting = self._waiting, {}
        self._of_tenant.clear()
        self.queued = 0
        return [list(items) for items in waiting.values()]

    def _gone(self, lane: Lane, count: int) -> None:
        self.queued -= count
        self._of_tenant[lane[1]] -= count
        if not self._of_tenant[lane[1]]:
            del self._of_tenant[lane[1]]
