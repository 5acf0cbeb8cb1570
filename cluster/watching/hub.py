"""Subscribers to what leaves a node's memory. Invariants: see `cluster.watching`.

Nothing is recorded before somebody subscribes; and once nobody does, only until the log is full, so that who comes
back soon can read on. There is no queue for each subscriber: all read the one log, each from its own place, and who
falls behind its bounds has skipped something.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final, Protocol

from cluster.config import WatchConfig
from cluster.entries import Timeline
from cluster.snapshots import Snapshot
from cluster.store import Watcher
from cluster.watching.log import Log, Place
from snapring.errors import NodeStopping

_POLLS: Final = 2
"""A snapshot taken by now is within the watermark after so many moves: one poll may be under way already."""


class Watched(Protocol):
    """A store, as far as the hub needs it."""

    watcher: Watcher | None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a subscriber hears: ``keys`` that the node no longer vouches for, since the news before.

    ``skipped``: something was missed before ``keys``, so that nothing may be kept. ``watermark``, of
    ``incarnation`` and current at monotonic ``watermark_s``, is None if more keys follow at once, or while the node
    vouches for nothing. ``place`` is where to read on.
    """

    keys: Sequence[bytes]
    skipped: bool
    place: Place
    watermark: Snapshot | None
    incarnation: int | None
    watermark_s: float


class Hub:
    """What one node tells its subscribers. For one event loop: no method but `Subscription.next` waits."""

    def __init__(self, config: WatchConfig, store: Watched, random: Random) -> None:
        self.config = config
        self._store = store
        self._random = random
        self._log: Log | None = None
        self._subscriptions: set[Subscription] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._stopping = False
        self.watermark: Snapshot | None = None
        self.watermark_s = -inf
        self.incarnation: int | None = None

    def __repr__(self) -> str:
        return f"<Hub {len(self._subscriptions)} subscriptions {self._log!r}>"

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return len(self._subscriptions)

    @property
    def recording(self) -> bool:
        """Whether what leaves is remembered."""
        return self._log is not None

    def describe(self) -> dict[str, object]:
        """Who reads, and what is remembered for them."""
        log = self._log
        return {
            "subscriptions": self.subscriptions,
            "recording": int(self.recording),
            "log_keys": 0 if log is None else len(log),
            "log_bytes": self.log_bytes,
        }

    @property
    def log_bytes(self) -> int:
        """What is remembered takes."""
        return 0 if self._log is None else self._log.used_bytes

    def subscribe(self, prefixes: Sequence[bytes] = (), after: Place | None = None) -> "Subscription":
        """News from now on, or from ``after`` on, of keys that begin with one of ``prefixes``, of all without any.

        `Subscription.close` it.
        """
        if self._log is None:
            self._log = Log(
                self._random.getrandbits(64),
                max_keys=self.config.log_keys,
                max_bytes=self.config.log_size_bytes,
            )
            self._store.watcher = self
        subscription = Subscription(self, self._log, tuple(prefixes), after)
        self._subscriptions.add(subscription)
        return subscription

    def since(self, as_of: Snapshot, incarnation: int) -> Place | None:
        """From where on news vouch for a value true at ``as_of`` and held in an open entry at this moment.

        None if none do: nobody watches, or the node has not followed that incarnation yet.
        """
        if self._log is None or self.watermark is None or incarnation != self.incarnation:
            return None
        ahead = 0 if as_of.within(self.watermark) else _POLLS
        return Place(self._log.number, self._log.tick + ahead)

    def stop(self) -> None:
        """End every subscription with `NodeStopping`."""
        self._stopping = True
        self._wake()

    # -- what the node tells -------------------------------------------------------------------------

    def left(self, key: bytes) -> None:
        """The open entry under ``key`` has ended, been replaced or gone."""
        assert self._log is not None, "the store tells only who records"
        if not self._log.append(key) and not self._subscriptions:
            self._forget()
        self._wake()

    def cleared(self) -> None:
        """All entries have gone."""
        assert self._log is not None, "the store tells only who records"
        self._log.skip()
        self._wake()

    def moved(self, timeline: Timeline) -> None:
        """The feed has polled: the watermark may have moved, and every key that it ended has `left`."""
        if timeline.watermark_s == self.watermark_s:
            return
        self.watermark, self.watermark_s = timeline.watermark, timeline.watermark_s
        self.incarnation = timeline.incarnation
        if self._log is not None:
            self._log.turn()

    # -- what subscriptions use ----------------------------------------------------------------------

    async def stirred(self, within_s: float) -> None:
        """Return when something leaves or the hub stops, at the latest after ``within_s``."""
        if self._stopping:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=within_s)
        finally:
            self._waiters.discard(waiter)

    def check(self) -> None:
        """Raise `NodeStopping` once the hub has stopped."""
        if self._stopping:
            raise NodeStopping("the node is stopping: watch another, and let go of what this one vouched for")

    def closed(self, subscription: "Subscription") -> None:
        """``subscription`` is no more."""
        self._subscriptions.discard(subscription)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self) -> None:
        self._log = None
        self._store.watcher = None


class Subscription:
    """One reader of a hub's log."""

    def __init__(self, hub: Hub, log: Log, prefixes: tuple[bytes, ...], after: Place | None) -> None:
        self._hub = hub
        self._log = log
        self._prefixes = prefixes
        position = log.end if after is None else log.position(after)
        self._skipped = position is None
        self._at = log.end if position is None else position
        self._due = True  # something is to be said without waiting

    def __repr__(self) -> str:
        return f"<Subscription at {self._at} of {self._log!r}>"

    def close(self) -> None:
        """Read no more."""
        self._hub.closed(self)

    async def next(self) -> News:
        """The next news: at once if there are any, and the first; else within ``watch.heartbeat``.

        Raises `NodeStopping`.
        """
        config = self._hub.config
        while True:
            if not self._due and not self._behind:
                await self._hub.stirred(config.heartbeat_s)
                if self._behind:
                    await asyncio.sleep(config.gather_s)
            self._hub.check()
            news = self.take()
            if news.keys or news.skipped or not self._due:
                return news
            await asyncio.sleep(0)  # a page of which nothing was asked for

    def take(self) -> News:
        """What there is to say now."""
        hub, log = self._hub, self._log
        if self._at < log.first:
            self._skipped, self._at = True, log.end
        read, place = log.read(self._at, hub.config.event_keys)
        self._at += len(read)
        whole = self._at == log.end
        news = News(
            keys=list(dict.fromkeys(key for key in read if key.startswith(self._prefixes or b""))),
            skipped=self._skipped,
            place=place,
            watermark=hub.watermark if whole else None,
            incarnation=hub.incarnation,
            watermark_s=hub.watermark_s,
        )
        self._skipped, self._due = False, not whole
        return news

    @property
    def _behind(self) -> bool:
        return self._at != self._log.end
