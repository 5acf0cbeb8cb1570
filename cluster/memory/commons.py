"""One budget for many tenants: each is sure of its share, and may use what the others leave. Pure.

A share is the budget divided among the tenants that have entries, by weight. Where room is needed,

* a tenant that would come to be above its share makes it itself, out of its own cold end;
* one that stays below it gets what it lacks from whoever is furthest above theirs.

So nobody falls below his share because of somebody else, by more than the entry that was at its edge. Each tenant has a `Segment` of its own, with a
ghost of its own: neither what others read nor what they evict shows in what he finds.
"""

from collections.abc import Callable
from typing import Final

from cluster.entries import Entry
from cluster.memory.policy import Segment
from snapring.keys import DEFAULT_TENANT

Weigh = Callable[[str], int]
"""The weight of a tenant, at least 1."""


def tenant_of(key: bytes) -> str:
    """Whose the canonical ``key`` is."""
    tenant, slash, _ = key.partition(b"/")
    return tenant.decode() if slash else DEFAULT_TENANT


class Commons:
    """Stands where one `Segment` of ``max_bytes`` would. Never holds more."""

    def __init__(self, max_bytes: int, weigh: Weigh) -> None:
        self.max_bytes: Final = max_bytes
        self._weigh = weigh
        self._segments: dict[str, Segment] = {}
        self._weights: dict[str, int] = {}
        self._total_weight = 0
        self._used = 0

    def __repr__(self) -> str:
        return f"<Commons of {len(self._segments)} tenants, {self._used} of {self.max_bytes} bytes>"

    @property
    def used(self) -> int:
        """What all entries cost."""
        return self._used

    def usage(self) -> dict[str, tuple[int, int]]:
        """How many entries each tenant has, and what they cost."""
        return {tenant: (segment.count, segment.used) for tenant, segment in self._segments.items()}

    def takes(self, entry: Entry) -> bool:
        """Whether there can be room for ``entry``: within the tenant's share, or what nobody else uses."""
        tenant = tenant_of(entry.key)
        return entry.cost <= max(self._share_with(tenant), self._capacity(tenant))

    def insert(self, entry: Entry) -> list[Entry]:
        """Take in a newcomer, which it `takes`. Returns whom it displaced."""
        segment, displaced = self._prepared(entry, entry.cost)
        before = segment.used
        displaced += segment.insert(entry)
        self._used += segment.used - before
        return displaced

    def insert_spare(self, entry: Entry) -> list[Entry]:
        """Take in what nobody has asked for, where no other tenant must give anything up for it.

        Returns whom it displaced: itself, where there is no room.
        """
        tenant = tenant_of(entry.key)
        segment = self._segments.get(tenant) or self._join(tenant)
        before = segment.used
        displaced = [entry]
        if (capacity := self._capacity(tenant)) > 0:
            segment.resize(capacity)
            displaced = segment.insert_spare(entry)
        self._used += segment.used - before
        if not segment.count:
            self._leave(tenant)
        return displaced

    def spares(self) -> tuple[int, int]:
        """How many entries are spare, and what they cost."""
        found = [segment.spares() for segment in self._segments.values()]
        return sum(count for count, _ in found), sum(size for _, size in found)

    def replace(self, old: Entry, entry: Entry) -> list[Entry]:
        """Put ``entry``, which it `takes`, in the place that ``old`` has earned. Returns who else had to leave."""
        segment, displaced = self._prepared(entry, entry.cost - old.cost)
        before = segment.used
        displaced += segment.replace(old, entry)
        self._used += segment.used - before
        return displaced

    def retire(self, entry: Entry) -> None:
        """Let ``entry`` be the next of its tenant's to leave."""
        self._segments[tenant_of(entry.key)].retire(entry)

    def remove(self, entry: Entry) -> None:
        """Take out ``entry``, leaving no trace."""
        tenant = tenant_of(entry.key)
        segment = self._segments[tenant]
        segment.remove(entry)
        self._used -= entry.cost
        if not segment.count:
            self._leave(tenant)

    def clear(self) -> None:
        """Drop every entry, and what was learnt."""
        self._segments.clear()
        self._weights.clear()
        self._total_weight = self._used = 0

    def _share_with(self, tenant: str) -> int:
        """The share of ``tenant``, counted among those that have entries."""
        weight = self._weights.get(tenant)
        if weight is not None:
            return self.max_bytes * weight // self._total_weight
        weight = self._weigh(tenant)
        return self.max_bytes * weight // (self._total_weight + weight)

    def _capacity(self, tenant: str) -> int:
        """What ``tenant`` may hold without displacing anybody."""
        segment = self._segments.get(tenant)
        return self.max_bytes - self._used + (segment.used if segment else 0)

    def _prepared(self, entry: Entry, more: int) -> tuple[Segment, list[Entry]]:
        """The segment for ``entry``, as large as it may be now, and whom others gave up for it."""
        tenant = tenant_of(entry.key)
        segment = self._segments.get(tenant) or self._join(tenant)
        grown = segment.used + more
        wanted = grown if grown <= self._share_with(tenant) else entry.cost
        lacking = wanted - self._capacity(tenant)
        displaced = self._reclaim(lacking) if lacking > 0 else []
        segment.resize(self._capacity(tenant))
        return segment, displaced

    def _reclaim(self, size: int) -> list[Entry]:
        """At least ``size`` bytes from those that are above their shares, the furthest first."""
        displaced: list[Entry] = []
        while size > 0:
            tenant = max(self._segments, key=self._excess)
            excess = self._excess(tenant)
            assert excess > 0, "shares add up to no more than the budget"
            segment = self._segments[tenant]
            before = segment.used
            displaced += segment.shed(min(size, excess))
            size -= before - segment.used
            self._used -= before - segment.used
            if not segment.count:
                self._leave(tenant)
        return displaced

    def _excess(self, tenant: str) -> int:
        return self._segments[tenant].used - self._share_with(tenant)

    def _join(self, tenant: str) -> Segment:
        self._weights[tenant] = weight = self._weigh(tenant)
        self._total_weight += weight
        self._segments[tenant] = segment = Segment(self.max_bytes)
        return segment

    def _leave(self, tenant: str) -> None:
        del self._segments[tenant]
        self._total_weight -= self._weights.pop(tenant)
