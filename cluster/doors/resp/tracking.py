"""CLIENT TRACKING: clients that keep values themselves, and the pushes that tell them to let go.

One `Tracking` for a door hears of what leaves the node's memory; a `Tracker` for each connection knows what its
client keeps. What a client may rely on:

T1  A value that it may keep was read out of an open entry, and its key noted here, in one step.
T2  A key that leaves memory from then on (W1 of `cluster.watching`) is pushed, and pushed behind every reply that may
    hold the value of before: a client that kept a reply hears of it after the reply.
T3  The key of a value that is not held here is pushed right behind its reply.
T4  Where anything may have been missed, and while the node's snapshot is too old for plain reads, everything is
    let go of (a null in place of the keys).

A client that does not read hears nothing meanwhile, and what it must hear is bounded by what it keeps.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Final, Protocol

from cluster.config import RespConfig
from cluster.doors.reads import Reads
from cluster.doors.resp.commands import Command, Counts, Session
from cluster.doors.resp.frames import invalidation
from cluster.watching import Hub, News, Subscription
from snapring.errors import NodeStopping

_log: Final = logging.getLogger("snapring.resp")

_MOST_TEXTS: Final = 8
"""How many ways to write one key are noted."""


class Line(Protocol):
    """The way to one client."""

    def push(self, frame: bytes, *, now: bool) -> bool:
        """Send what nobody asked for, behind replies that are not there yet, and ``now`` too; False: it cannot be."""


class Tracker:
    """What the client of ``session`` keeps. ``commands`` take the place of the door's as long as it is tracked.

    ``keys`` are those noted, the oldest first, each with the texts by which the client knows it.
    """

    def __init__(self, tracking: "Tracking", session: Session, line: Line) -> None:
        self.commands: Mapping[str, Command] = {}
        self.keys: dict[bytes, tuple[bytes, ...]] = {}
        self._tracking = tracking
        self._session = session
        self._line = line
        self._due: dict[bytes, None] = {}  # texts to let go of, not told yet
        self._everything = False  # is to be let go of
        self._lost = False  # something due is what the client may have kept already
        self._telling = False

    def __repr__(self) -> str:
        return f"<Tracker {len(self.keys)} keys due={len(self._due)}>"

    def keep(self, key: bytes, text: bytes) -> None:
        """The client may keep what has been read out of the open entry under ``key`` in this step, as ``text``."""
        texts = self.keys.pop(key, ())
        if text not in texts:
            texts += self._said(text)
        if len(texts) > _MOST_TEXTS or not self._tracking.follows:
            self._lost = True
            self._due.update(dict.fromkeys(texts))
            self._tracking.forget(self, key)
            self._tell_soon()
            return
        self.keys[key] = texts
        if self._tracking.note(self, key):
            self.lose(next(iter(self.keys)))
            self._tell_soon()

    def refuse(self, text: bytes) -> None:
        """The client must not keep what it is about to be answered as ``text``."""
        self._due.update(dict.fromkeys(self._said(text)))
        self._tell_soon()

    def wrote(self, keys: Iterable[bytes]) -> None:
        """The client has written ``keys``, or may have: it must not find in its cache what was there before."""
        for key in keys:
            self.lose(key)
            self._due.update(dict.fromkeys(self._said(key)))
        self._lost = True
        self.tell()

    def lose(self, key: bytes) -> None:
        """``key`` is no longer vouched for: `tell` will say so."""
        texts = self.keys.pop(key, ())
        self._lost = self._lost or bool(texts)
        self._due.update(dict.fromkeys(texts))
        self._tracking.forget(self, key)

    def lose_everything(self) -> None:
        """The same of all keys."""
        self._everything = self._everything or bool(self.keys or self._due)
        for key in self.keys:
            self._tracking.forget(self, key)
        self.keys.clear()
        self._due.clear()

    def tell(self) -> None:
        """Say what is due, unless the client has yet to read what it was sent."""
        self._telling = False
        if len(self._due) > self._tracking.max_keys:
            self.lose_everything()
        if not self._everything and not self._due:
            return
        frame = invalidation(None if self._everything else list(self._due))
        if self._line.push(frame, now=self._lost or self._everything):
            self._tracking.told(everything=self._everything)
            self._everything = self._lost = False
            self._due.clear()

    def stop(self) -> None:
        """The client keeps nothing that is vouched for any more."""
        self._tracking.stop(self)
        self.keys.clear()
        self._due.clear()

    def _said(self, text: bytes) -> tuple[bytes, ...]:
        """How the client may have written ``text``, which is what admission made of it."""
        caller = self._session.caller
        return (text,) if caller is None else caller.reach.said(text)

    def _tell_soon(self) -> None:
        """Once the reply under way has its place in the order."""
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self.tell)


class Tracking:
    """The trackers of one door, told by ``hub`` of what leaves the memory of ``node``. For one event loop."""

    def __init__(self, node: Reads, hub: Hub, config: RespConfig, counts: Counts) -> None:
        self.max_keys = config.tracking_keys
        self._max_in_all = config.tracking_total
        self._node = node
        self._hub = hub
        self._counts = counts
        self._trackers: set[Tracker] = set()
        self._keepers: dict[bytes, set[Tracker]] = {}
        self._listening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Tracking {len(self._trackers)} trackers, {self._counts.tracked_keys} keys>"

    @property
    def follows(self) -> bool:
        """Whether what is noted now will be told of: plain reads are answered, and news are heard."""
        return self._listening is not None and monotonic() <= self._node.fresh_until_s

    def start(self, session: Session, line: Line) -> Tracker:
        """A tracker for the client of ``session`` on ``line``; `Tracker.stop` it."""
        tracker = Tracker(self, session, line)
        self._trackers.add(tracker)
        self._counts.tracking = len(self._trackers)
        if self._listening is None:
            listening = self._listen(self._hub.subscribe())
            self._listening = asyncio.create_task(listening, name="tracking")
        return tracker

    def stop(self, tracker: Tracker) -> None:
        """``tracker`` is no more."""
        for key in tracker.keys:
            self.forget(tracker, key)
        self._trackers.discard(tracker)
        self._counts.tracking = len(self._trackers)
        if not self._trackers and self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def note(self, tracker: Tracker, key: bytes) -> bool:
        """``tracker`` keeps ``key``; whether it must let go of one for that."""
        keepers = self._keepers.setdefault(key, set())
        self._counts.tracked_keys += tracker not in keepers
        keepers.add(tracker)
        return len(tracker.keys) > self.max_keys or self._counts.tracked_keys > self._max_in_all

    def forget(self, tracker: Tracker, key: bytes) -> None:
        """``tracker`` does not keep ``key``."""
        keepers = self._keepers.get(key)
        if keepers is None or tracker not in keepers:
            return
        keepers.discard(tracker)
        self._counts.tracked_keys -= 1
        if not keepers:
            del self._keepers[key]

    def told(self, *, everything: bool) -> None:
        """A push has left."""
        self._counts.invalidations += 1
        self._counts.flushes += everything

    async def _listen(self, subscription: Subscription) -> None:
        try:
            while True:
                news = await subscription.next()
                self._heard(news)
                await asyncio.sleep(0)  # there may be many pages
        except NodeStopping:
            pass
        except Exception:  # noqa: BLE001  # a defect here must not leave clients with what they keep
            _log.exception("tracking failed of a defect: clients let go of everything")
        finally:
            subscription.close()
            if self._listening is asyncio.current_task():
                self._listening = None
                self._lose_everything()

    def _heard(self, news: News) -> None:
        if news.skipped or not self.follows:
            self._lose_everything()
            return
        losers = set()
        for key in news.keys:
            for tracker in tuple(self._keepers.get(key, ())):
                tracker.lose(key)
                losers.add(tracker)
        for tracker in losers:
            tracker.tell()

    def _lose_everything(self) -> None:
        for tracker in self._trackers:
            tracker.lose_everything()
            tracker.tell()
