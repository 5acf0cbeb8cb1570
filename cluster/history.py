"""What ``store`` caches held before: a key at an old snapshot, and the keys there were at one.

The database keeps the versions that others have followed for as long as ``retention.history`` says. What
is found there answers whoever asked and is not kept in memory.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf

from cluster.config import NodeConfig
from cluster.entries import Timeline
from cluster.feed import Feed
from cluster.flight import Flights
from cluster.loader import Loaded, Loader
from cluster.memory.commons import tenant_of
from cluster.plans import HISTORY, LISTING, MAX_LISTED
from cluster.requests import AtLeast, Consistency, Exactly, Listing, Reply, Source, State, sees
from cluster.snapshots import Snapshot
from cluster.tokens import Position
from cluster.writes import ABSENT
from snapring.errors import ArgumentInvalid, TokenAhead, TokenForeign

_AHEAD = "the database has not reached the token: retry, or check where it is from"


class History:
    """Reads the database's history of one node's ``store`` caches. For one event loop."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        loader: Loader,
        feed: Feed,
        timeline: Timeline,
        clock: Callable[[], float],
    ) -> None:
        self._token_wait_s = config.token_wait_s
        self._loader = loader
        self._feed = feed
        self._timeline = timeline
        self._clock = clock
        self._flights: Flights[Loaded] = Flights(clock=clock)

    def __repr__(self) -> str:
        return f"<History {len(self._flights)} under way>"

    async def read(self, canonical: bytes, asked: Exactly, deadline_s: float) -> Reply:
        """The version of a key that was current at a snapshot.

        Raises `SnapshotExpired` if that is older than the history, `TokenAhead` if it is of the future.
        """
        loaded = await self._load(HISTORY, (canonical.decode(), str(asked.snapshot)), asked, deadline_s)
        (value, version) = loaded.rows[0] if loaded.rows else (None, ABSENT)
        return Reply(
            value=value if isinstance(value, bytes) else None,
            as_of=asked.snapshot,
            incarnation=asked.incarnation,
            age_s=self._age_s(asked.snapshot),
            state=State.FRESH,
            source=Source.LOAD,
            version=int(str(version)),
        )

    async def listing(
        self, prefix: str, after: str, most: int, consistency: Consistency, deadline_s: float
    ) -> Listing:
        """At most ``most`` keys that begin with ``prefix``, the first after ``after``; as `read` raises."""
        if not 1 <= most <= MAX_LISTED:
            raise ArgumentInvalid(f"a listing has 1 to {MAX_LISTED} keys: ask for more with the last one")
        at = consistency.snapshot if isinstance(consistency, Exactly) else None
        loaded = await self._load(LISTING, (prefix, after, str(most), str(at or "")), consistency, deadline_s)
        return Listing(
            keys=tuple((str(key), int(str(version))) for key, version in loaded.rows),
            as_of=at or loaded.snapshot,
            incarnation=loaded.incarnation,
            age_s=self._age_s(at) if at else self._clock() - loaded.sent_s,
        )

    async def _load(
        self, plan: str, arguments: tuple[str, ...], asked: Consistency, deadline_s: float
    ) -> Loaded:
        """One load late enough for what is asked."""
        arrived_s = self._clock()
        position, tenant = _position(asked), tenant_of(arguments[0].encode())

        def depart() -> asyncio.Future[Loaded]:
            return self._loader.submit(plan, arguments, lambda loaded: loaded, tenant)

        def accepts(loaded: Loaded) -> Loaded | None:
            if isinstance(asked, AtLeast | Exactly) and asked.incarnation != loaded.incarnation:
                raise TokenForeign("the database began a new incarnation: read again without the token")
            late_enough = loaded.sent_s >= arrived_s if position is None else sees(loaded.snapshot, position)
            return loaded if late_enough else None

        flight = "\0".join((plan, *arguments)).encode()
        flight_once_reached = flight + b"\0"  # none of these began before somebody saw the position reached
        loaded = None
        with suppress(TokenAhead):  # the database itself may be a moment behind
            loaded = await self._flights.join(flight, depart, accepts, deadline_s)
        if loaded is None and position is not None and await self._reached(position, deadline_s):
            loaded = await self._flights.join(flight_once_reached, depart, accepts, deadline_s)
        if loaded is None:
            raise TokenAhead(_AHEAD)
        return loaded

    async def _reached(self, position: Position, deadline_s: float) -> bool:
        timeline = self._timeline
        until_s = min(deadline_s, self._clock() + self._token_wait_s)
        return await self._feed.until(
            lambda: timeline.watermark is not None and sees(timeline.watermark, position), until_s
        )

    def _age_s(self, snapshot: Snapshot) -> float:
        """How long ago ``snapshot`` was surely current; infinity once the log has forgotten it."""
        since_s = self._timeline.logged_s(snapshot)
        return self._clock() - since_s if since_s > -inf else inf


def _position(asked: Consistency) -> Position | None:
    if isinstance(asked, AtLeast):
        return asked.position
    return asked.snapshot if isinstance(asked, Exactly) else None
