"""Entries in byte-bounded memory: by key, by tag, by deadline. Pure: no clock, network or disk.

A hit is meant to go past this module: ``store.index.get(key)``, a look at the entry's ``until_s``, and
``entry.frequency += 1`` while that is below `cluster.memory.policy.MAX_FREQUENCY`; it counts in ``entry.tally``.
Nothing else need happen.

Guarantees after every call: the costs of a segment's entries sum up to no more than its share of the
budget; exactly the entries in ``index`` are counted, queued for eviction and, while open, found by their
tags; an ended entry leaves before any open one of its segment, and then a spare one that nobody used.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from typing import Final, Protocol

from cluster.entries import ENTIRE_DATABASE, Entry
from cluster.memory.commons import Commons, Weigh
from cluster.memory.deadlines import Deadlines
from cluster.memory.ghost import Ghost
from cluster.memory.policy import Segment
from cluster.memory.tag_index import TagIndex
from cluster.memory.tallies import Tallies

EXPIRED_AT_ONCE: Final = 2_000
"""How many entries one `Store.expire` may drop, so that it does not hold up the loop."""

# Bytes of memory on 64-bit CPython 3.11; scripts/benchmarks/memory.py measures whether they add up.
_SLOT: Final = 100  # in a dict or set: 60 to 120 as it grows, the table only
_NUMBER: Final = 32  # an int or a float
_SNAPSHOT: Final = 64  # shared by what was loaded together, but one survivor of a batch keeps it
_QUEUED: Final = 8 + _SLOT + _NUMBER
_ENTRY: Final = 128 + 2 * _NUMBER + _SLOT + _QUEUED + _SNAPSHOT + Ghost.BYTES_PER_ENTRY
_TAG: Final = 8 + 48 + _SLOT
_DEADLINE: Final = _NUMBER + _SLOT + 216  # a set, in the worst case for this entry alone
_VERSION: Final = 8 + _NUMBER
_BYTES_OBJECT: Final = 33
_TUPLE: Final = 48


class Left(StrEnum):
    """Why an entry is no longer kept, or no longer open, or never was."""

    EVICTED = "evicted"
    REPLACED = "replaced"
    ENDED = "ended"
    EXPIRED = "expired"
    TOO_LARGE = "too_large"
    NO_ROOM = "no_room"
    CLEARED = "cleared"
    DELETED = "deleted"


@dataclass(slots=True)
class Usage:
    """What one cache has in memory."""

    entries: int = 0
    bytes: int = 0


class Watcher(Protocol):
    """Whoever keeps what it read here, and must hear when that is no longer vouched for."""

    def left(self, key: bytes) -> None:
        """The open entry under ``key`` has ended, been replaced or gone."""

    def cleared(self) -> None:
        """All entries have gone."""


def cost_of(entry: Entry) -> int:
    """The bytes of memory that keeping ``entry`` takes, all that is kept because of it included."""
    frame = 0 if entry.frame is None else _allocated(_BYTES_OBJECT + len(entry.frame))
    deadline = _DEADLINE if isfinite(entry.until_s) else 0
    tags = _TUPLE + _TAG * len(entry.tags)
    version = 0 if entry.version is None else _VERSION
    return _ENTRY + _allocated(_BYTES_OBJECT + len(entry.key)) + frame + tags + deadline + version


def _allocated(size: int) -> int:
    """What the allocator takes for an object of ``size`` bytes: multiples of 16, and a header if large."""
    return (size + 15 if size <= 512 else size + 31) & ~15


def _memory(max_bytes: int, weigh: Weigh | None) -> Segment | Commons:
    return Segment(max_bytes) if weigh is None else Commons(max_bytes, weigh)


class Store:
    """The entries of one node, within ``max_bytes``.

    Each cache named in ``reserved`` has so many bytes of them to itself and no others; the rest is for
    all other caches together. With ``weigh``, tenants share each of these by weight, see `Commons`. Raises
    `ValueError` if nothing is left for them. ``watcher``, where there is one, hears of every entry that is open no
    longer. ``tallies`` are the caches'; nothing that leaves takes its count along.
    """

    def __init__(
        self, max_bytes: int, reserved: Mapping[str, int] | None = None, *, weigh: Weigh | None = None
    ) -> None:
        reserved = reserved or {}
        shared = max_bytes - sum(reserved.values())
        if shared <= 0 or any(share <= 0 for share in reserved.values()):
            raise ValueError(f"{max_bytes} bytes cannot be shared out as {dict(reserved)} and a rest")
        self.max_bytes = max_bytes
        self.index: dict[bytes, Entry] = {}
        self.watcher: Watcher | None = None
        self.removed: Counter[str] = Counter(dict.fromkeys(Left, 0))
        self.tallies = Tallies()
        self._usage: dict[str, Usage] = {}
        self._shared = _memory(shared, weigh)
        self._reserved = {cache: _memory(share, weigh) for cache, share in reserved.items()}
        self._tags = TagIndex()
        self._deadlines = Deadlines()

    def __repr__(self) -> str:
        counts = " ".join(f"{left}={count}" for left, count in self.removed.items() if count)
        return f"<Store {len(self)} entries, {self.bytes} of {self.max_bytes} bytes; {counts or 'nothing left yet'}>"

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[bytes]:
        """The keys in memory, of ended entries too, in no order that means anything."""
        return iter(self.index)

    def get(self, key: bytes) -> Entry | None:
        """The entry under ``key``, which may have ended; not counted as a use."""
        return self.index.get(key)

    def insert(self, entry: Entry) -> bool:
        """Keep the open ``entry`` in place of any other under its key, with what that has earned.

        False if it is larger than its share of the budget; what was under the key then stays.
        """
        segment = self._segment(entry)
        entry.cost = cost_of(entry)
        if not segment.takes(entry):
            self.removed[Left.TOO_LARGE] += 1
            return False
        old = self.index.get(entry.key)
        if old is None:
            displaced = segment.insert(entry)
        else:
            self._forget(old, Left.REPLACED)
            displaced = segment.replace(old, entry)
        for loser in displaced:
            self._forget(loser, Left.EVICTED)
        self._know(entry)
        return True

    def insert_spare(self, entry: Entry) -> bool:
        """Keep the open ``entry``, which nobody has asked for here, where there is room that nothing else needs.

        It takes the place of any other under its key, and is the first to leave. False if there is no room for it.
        """
        segment = self._segment(entry)
        entry.cost = cost_of(entry)
        self.remove(entry.key, Left.REPLACED)
        losers = segment.insert_spare(entry)
        for loser in losers:
            if loser is not entry:
                self._forget(loser, Left.EVICTED)
        if entry in losers:
            self.removed[Left.NO_ROOM] += 1
            return False
        self._know(entry)
        return True

    def keeps(self, entry: Entry) -> bool:
        """Whether this very entry is here, where changes find it."""
        return self.index.get(entry.key) is entry

    def retire(self, entry: Entry) -> None:
        """``entry`` has ended: it no longer answers to its tags, and is among the first to be evicted.

        Nothing happens if it is not in the store.
        """
        if self.index.get(entry.key) is entry:
            self.removed[Left.ENDED] += 1
            if self.watcher is not None:
                self.watcher.left(entry.key)
            self._tags.discard(entry)
            self._segment(entry).retire(entry)

    def tagged(self, tag: int) -> tuple[Entry, ...]:
        """The open entries that carry ``tag``; every one of them for `ENTIRE_DATABASE`."""
        if tag == ENTIRE_DATABASE:
            return tuple(entry for entry in self.index.values() if entry.end is None)
        return self._tags.entries(tag)

    def remove(self, key: bytes, reason: Left = Left.DELETED) -> bool:
        """Drop what is under ``key``; False if nothing is."""
        entry = self.index.get(key)
        if entry is None:
            return False
        self._segment(entry).remove(entry)
        self._forget(entry, reason)
        return True

    def expire(self, now_s: float) -> int:
        """Drop what is due at monotonic time ``now_s``; returns how many.

        Up to `EXPIRED_AT_ONCE`: what is left over goes with the next calls.
        """
        return sum(self.remove(key, Left.EXPIRED) for key in self._deadlines.due(now_s, EXPIRED_AT_ONCE))

    def cache_usage(self, cache: str) -> tuple[int, int]:
        """How many entries the cache has in memory, and what they cost in bytes."""
        usage = self._usage.get(cache, Usage())
        return usage.entries, usage.bytes

    def spare_usage(self) -> tuple[int, int]:
        """How many entries are spare, and what they cost in bytes."""
        found = [memory.spares() for memory in (self._shared, *self._reserved.values())]
        return sum(count for count, _ in found), sum(size for _, size in found)

    def clear(self) -> None:
        """Drop every entry, and what was learnt of their use."""
        self.removed[Left.CLEARED] += len(self.index)
        self.index.clear()
        self._usage.clear()
        self._tags = TagIndex()
        self._deadlines = Deadlines()
        for segment in (self._shared, *self._reserved.values()):
            segment.clear()
        if self.watcher is not None:
            self.watcher.cleared()

    def tenant_usage(self) -> dict[str, tuple[int, int]]:
        """How many entries each tenant has, and what they cost in bytes; empty where tenants are not told apart."""
        found: dict[str, tuple[int, int]] = {}
        for memory in (self._shared, *self._reserved.values()):
            for tenant, (entries, size) in memory.usage().items() if isinstance(memory, Commons) else ():
                known = found.get(tenant, (0, 0))
                found[tenant] = known[0] + entries, known[1] + size
        return found

    def _segment(self, entry: Entry) -> Segment | Commons:
        return self._reserved.get(entry.cache.name, self._shared)

    def _know(self, entry: Entry) -> None:
        entry.tally = self.tallies[entry.cache.name]
        self.index[entry.key] = entry
        self._tags.add(entry)
        usage = self._usage.get(entry.cache.name)
        if usage is None:
            usage = self._usage[entry.cache.name] = Usage()
        usage.entries += 1
        usage.bytes += entry.cost
        if entry.until_s != inf:
            self._deadlines.set(entry.key, entry.until_s)

    def _forget(self, entry: Entry, left: Left) -> None:
        del self.index[entry.key]
        self._tags.discard(entry)
        usage = self._usage[entry.cache.name]
        usage.entries -= 1
        usage.bytes -= entry.cost
        self._deadlines.drop(entry.key)
        self.removed[left] += 1
        if self.watcher is not None and entry.end is None:
            self.watcher.left(entry.key)

    # Last in the class, whose annotations mean Python's bytes by this name.
    @property
    def bytes(self) -> int:
        """The cost of all entries, in bytes."""
        return self._shared.used + sum(segment.used for segment in self._reserved.values())
