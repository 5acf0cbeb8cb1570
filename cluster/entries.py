"""An entry, and the interval of snapshots in which it is true. Pure: no clock, network or disk.

The rules (TxCache's validity intervals, Ports et al., OSDI 2010, section 4, on stock Postgres):

* **admit**: a loaded entry joins the store as open only if no logged change on one of its tags is
  unseen by the entry's snapshot, and the log reaches back to that snapshot.
* **apply**: a change ends every open entry that has one of its tags and whose snapshot does not see
  it; after the whole batch, and only then, the watermark moves.
* **serve**: an open entry is true at every snapshot from its own to the watermark.

Invariants: I1, an open entry equals the database at every snapshot of its interval; I2, the watermark
only moves forward within an incarnation, and a gap ends FRESH replies until `Timeline.restart`.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final, Protocol

from cluster.config import CacheConfig
from cluster.memory.tallies import Tally
from cluster.snapshots import Snapshot

ENTIRE_DATABASE: Final = 0
"""The tag of changes that may touch anything: every entry depends on it, without carrying it."""


@dataclass(frozen=True, slots=True)
class End:
    """Why an entry is no longer open: the changes that ended it, and the last truth known before.

    The entry is true at a snapshot Q from its own on as long as Q sees none of ``xids``. ``as_of`` is
    the newest snapshot at which the node knew it true, current at monotonic time ``as_of_s``.
    """

    xids: tuple[int, ...]
    as_of: Snapshot
    as_of_s: float


class Entry:
    """One value in memory, loaded at ``snapshot`` by a query sent at monotonic time ``loaded_s``.

    ``frame`` is the value as a RESP bulk string, ready to send; None where the query found no row.
    ``until_s`` is the monotonic time to which a hit may be answered without further thought: the ttl's
    end, and minus infinity once the entry has ended. ``cost`` is in bytes, overhead included.
    ``frequency`` and ``place`` belong to the store's eviction policy; ``tally``, which counts the hits of its cache, is
    there from the moment on that the store keeps it.
    """

    __slots__ = (
        "cache", "cost", "end", "frame", "frequency", "key", "loaded_s", "place", "snapshot", "tags", "tally",
        "until_s",
    )  # fmt: skip

    tally: Tally

    def __init__(
        self,
        *,
        key: bytes,
        cache: CacheConfig,
        value: bytes | None,
        snapshot: Snapshot,
        loaded_s: float,
        tags: tuple[int, ...],
        until_s: float = inf,
    ) -> None:
        self.key = key
        self.cache = cache
        # Not by %-formatting, which allocates too much and shrinks: the holes fragment the heap.
        self.frame = None if value is None else b"".join((b"$%d\r\n" % len(value), value, b"\r\n"))
        self.snapshot = snapshot
        self.loaded_s = loaded_s
        self.tags = tags
        self.until_s = until_s
        self.end: End | None = None
        self.cost = 0
        self.frequency = 0
        self.place = 0

    def __repr__(self) -> str:
        state = "open" if self.end is None else f"ended by {self.end.xids}"
        return f"<Entry {self.key!r} at {self.snapshot} {state}>"

    @property
    def version(self) -> int | None:
        """The version of a key of a ``store`` cache; None for any other."""
        return None

    @property
    def value(self) -> bytes | None:
        """The encoded value, without RESP framing."""
        if self.frame is None:
            return None
        return self.frame[self.frame.index(b"\n") + 1 : -2]

    def ended(self, end: End) -> None:
        """Close the entry: from here on no hit is answered from it without looking at ``end``."""
        self.end = end
        self.until_s = -inf


class Versioned(Entry):
    """An entry of a ``store`` cache. ``version`` is what created it, `cluster.writes.ABSENT` if nothing did."""

    __slots__ = ("version",)

    version: int


class Entries(Protocol):
    """What the rules need of the place where entries are kept."""

    def insert(self, entry: Entry) -> bool:
        """Keep ``entry`` in place of any other under its key; False if it is too large to keep."""

    def insert_spare(self, entry: Entry) -> bool:
        """Keep ``entry`` where there is room that nothing else needs; False if there is none."""

    def keeps(self, entry: Entry) -> bool:
        """Whether this very entry is here, where changes find it."""

    def tagged(self, tag: int) -> Collection[Entry]:
        """The open entries that carry ``tag``; every one of them for `ENTIRE_DATABASE`."""

    def retire(self, entry: Entry) -> None:
        """The entry has ended: it no longer answers to its tags, and is the first to be evicted."""

    def clear(self) -> None:
        """Drop every entry."""


@dataclass(frozen=True, slots=True)
class Change:
    """A committed transaction touched what ``tag`` stands for."""

    xid: int
    tag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One poll: every change that ``snapshot`` sees and the watermark before it did not.

    ``sent_s`` is the monotonic time at which the poll was sent, so ``snapshot`` is no older.
    """

    incarnation: int
    snapshot: Snapshot
    sent_s: float
    changes: tuple[Change, ...]


class Admission(Enum):
    """What became of a loaded entry."""

    OPEN = "open"
    CLOSED = "closed"
    TOO_LARGE = "too_large"
    REFUSED = "refused"


class TagLog:
    """The changes of recent batches, for entries whose load began before them.

    ``low_water`` is the snapshot from which on the log is complete, current at ``low_water_s``. Bounded by age (``retention_s``,
    at least the longest load) and by count (``max_changes``); older batches go first.
    """

    def __init__(
        self, low_water: Snapshot, low_water_s: float, *, retention_s: float, max_changes: int
    ) -> None:
        self.low_water = low_water
        self.low_water_s = low_water_s
        self._retention_s = retention_s
        self._max_changes = max_changes
        self._batches: deque[Batch] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, batch: Batch) -> None:
        """Log ``batch``, then forget what is out of bounds."""
        self._batches.append(batch)
        self._count += len(batch.changes)
        while self._batches and self._out_of_bounds(batch.sent_s):
            self._forget_oldest()

    def unseen(self, tags: Iterable[int], snapshot: Snapshot) -> Iterator[int]:
        """The logged changes on ``tags``, or on the entire database, that ``snapshot`` does not see."""
        wanted = {ENTIRE_DATABASE, *tags}
        for batch in reversed(self._batches):
            if batch.snapshot.within(snapshot):
                return  # and so is every older one
            for change in batch.changes:
                if change.tag in wanted and not snapshot.sees(change.xid):
                    yield change.xid

    def current_s(self, snapshot: Snapshot) -> float:
        """When the newest logged watermark that ``snapshot`` includes was polled; -inf if none is."""
        for batch in reversed(self._batches):
            if batch.snapshot.within(snapshot):
                return batch.sent_s
        return self.low_water_s if self.low_water.within(snapshot) else -inf

    def _out_of_bounds(self, now_s: float) -> bool:
        return self._count > self._max_changes or now_s - self._batches[0].sent_s > self._retention_s

    def _forget_oldest(self) -> None:
        oldest = self._batches.popleft()
        self.low_water = oldest.snapshot
        self.low_water_s = oldest.sent_s
        self._count -= len(oldest.changes)


class Timeline:
    """How far this node has followed the database, and what that says about each entry.

    ``watermark`` is the newest snapshot of which every change has been applied, None while there is
    none to vouch for; ``watermark_s`` the monotonic time at which it was surely current.
    No method awaits, so each is one step for everything else on the loop.
    """

    def __init__(self, entries: Entries, *, log_retention_s: float, log_max_changes: int) -> None:
        self._entries = entries
        self._log_retention_s = log_retention_s
        self._log_max_changes = log_max_changes
        self._log: TagLog | None = None
        self.watermark: Snapshot | None = None
        self.watermark_s = -inf
        self.incarnation: int | None = None

    def __repr__(self) -> str:
        return f"<Timeline incarnation={self.incarnation} watermark={self.watermark}>"

    def restart(self, incarnation: int, snapshot: Snapshot, sent_s: float) -> None:
        """Void every entry and follow from ``snapshot``, of which nothing has been applied yet."""
        self._entries.clear()
        self._log = TagLog(
            snapshot, sent_s, retention_s=self._log_retention_s, max_changes=self._log_max_changes
        )
        self.incarnation = incarnation
        self.watermark = snapshot
        self.watermark_s = sent_s

    def suspend(self) -> None:
        """The feed has a gap: vouch for nothing until `restart`."""
        self.watermark = None
        self.watermark_s = -inf
        self._log = None

    def apply(self, batch: Batch) -> int:
        """End what ``batch`` changed, then move the watermark. Returns how many entries ended.

        Raises `ValueError` if the batch does not follow the watermark: the caller must restart.
        """
        before = self.watermark
        if before is None or self._log is None or batch.incarnation != self.incarnation:
            raise ValueError("the batch does not belong to this timeline")
        if not before.within(batch.snapshot):
            raise ValueError(f"the feed went back: {before} to {batch.snapshot}")
        ending = self._touched(batch.changes)
        for entry, xids in ending.items():
            as_of, as_of_s = self.as_of(entry)
            entry.ended(End(tuple(xids), as_of, as_of_s))
            self._entries.retire(entry)
        self._log.append(batch)
        self.watermark = batch.snapshot
        self.watermark_s = batch.sent_s
        return len(ending)

    def admit(self, entry: Entry, incarnation: int, *, spare: bool = False) -> Admission:
        """Decide whether a just loaded ``entry`` may join the store, and join it; a ``spare`` one, if there is room.

        CLOSED: true at its own snapshot, and may answer the request that loaded it, but a later change
        is already known. REFUSED: nothing is known of what followed its snapshot.
        """
        if incarnation != self.incarnation or self._log is None or self.watermark is None:
            return Admission.REFUSED
        if not self._log.low_water.within(entry.snapshot):
            return Admission.REFUSED
        unseen = tuple(self._log.unseen(entry.tags, entry.snapshot))
        if unseen:
            entry.ended(End(unseen, entry.snapshot, entry.loaded_s))
            return Admission.CLOSED
        insert = self._entries.insert_spare if spare else self._entries.insert
        return Admission.OPEN if insert(entry) else Admission.TOO_LARGE

    def as_of(self, entry: Entry) -> tuple[Snapshot, float]:
        """The newest snapshot at which ``entry`` is known true, and when that was surely current.

        That is the watermark only for an entry that is kept: one that was refused, was too large or has
        been evicted is not told of changes.
        """
        if entry.end is not None:
            return entry.end.as_of, entry.end.as_of_s
        if (
            self.watermark is not None
            and entry.snapshot.within(self.watermark)
            and self._entries.keeps(entry)
        ):
            return self.watermark, max(self.watermark_s, entry.loaded_s)
        return entry.snapshot, entry.loaded_s

    def holds(self, entry: Entry, snapshot: Snapshot) -> bool:
        """Whether ``entry`` is known true at exactly ``snapshot``."""
        if not entry.snapshot.within(snapshot):
            return self._reaches_back(entry, snapshot)
        if entry.end is None:
            return snapshot.within(self.as_of(entry)[0])
        known = self.watermark is not None and snapshot.within(self.watermark)
        return known and not any(map(snapshot.sees, entry.end.xids))

    def current_s(self, entry: Entry, snapshot: Snapshot) -> float:
        """A monotonic time at which ``snapshot``, at which ``entry`` is known true, was surely current."""
        logged_s = self.logged_s(snapshot)
        return max(logged_s, entry.loaded_s) if entry.snapshot.within(snapshot) else logged_s

    def logged_s(self, snapshot: Snapshot) -> float:
        """A monotonic time at which ``snapshot`` was surely current, as far as the log knows; else -inf."""
        return self._log.current_s(snapshot) if self._log is not None else -inf

    def _reaches_back(self, entry: Entry, snapshot: Snapshot) -> bool:
        """Whether ``entry`` was already true at ``snapshot``, before the one it was loaded at.

        The log is complete from its low water to the watermark. If both snapshots lie between, and no
        change on the entry's tags is unseen by the earlier one, nothing changed from there to here.
        """
        return (
            self._log is not None
            and self.watermark is not None
            and self._log.low_water.within(snapshot)
            and snapshot.within(entry.snapshot)
            and entry.snapshot.within(self.watermark)
            and not any(True for _ in self._log.unseen(entry.tags, snapshot))
        )

    def _touched(self, changes: Iterable[Change]) -> dict[Entry, list[int]]:
        touched: dict[Entry, list[int]] = {}
        for change in changes:
            for entry in self._entries.tagged(change.tag):
                if not entry.snapshot.sees(change.xid):
                    touched.setdefault(entry, []).append(change.xid)
        return touched
