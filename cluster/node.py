"""The read path of one node, from a key to an answer.

1. Parse the key and the consistency asked (the door has).
2. An entry here that satisfies it? Answer from memory.
3. An open entry that only lags behind? Let the feed catch up, and answer.
4. Join the load under way for this key, or start one.
5. Admit what was loaded, and answer.
6. Postgres out of reach? An old entry, labelled STALE, if the cache allows it; else the error.

Every answer says as of which snapshot it is true. No failure is ever turned into an answer.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from random import Random
from time import monotonic
from typing import Final, TypeVar

from pybreaker import CircuitBreakerListener

from cluster import writes
from cluster.access.quotas import part
from cluster.access.tenancy import closed_to
from cluster.breaker import Breaker
from cluster.config import CacheConfig, NodeConfig
from cluster.entries import Admission, Entry, Timeline
from cluster.feed import Feed
from cluster.flight import Flights
from cluster.history import History
from cluster.landing import Landing
from cluster.loader import Loaded, Loader
from cluster.memory.policy import MAX_FREQUENCY
from cluster.memory.tallies import Tally
from cluster.plans import Plans
from cluster.postgres import Connections, Sessions
from cluster.requests import (
    AtLeast,
    Bounded,
    Consistency,
    Exactly,
    Listing,
    Reply,
    Source,
    State,
    Strong,
    sees,
)
from cluster.retention import Retention
from cluster.snapshots import Snapshot
from cluster.status import Section, describe
from cluster.store import Store
from cluster.tokens import Position, Ticket, TokenCodec
from cluster.tracing.seam import note
from cluster.watching import Hub
from cluster.writer import Writer, session
from cluster.writes import Deed, Written, stored_text
from snapring.errors import (
    ArgumentInvalid,
    CacheUnknown,
    NodeStopping,
    SnapringError,
    SnapshotUnavailable,
    TokenAhead,
    TokenForeign,
    TokenInvalid,
    Unavailable,
)
from snapring.keys import Key

_STOPPING: Final = "the node is stopping: ask another"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A load that has been judged: its entry, kept or not, true in ``incarnation``."""

    entry: Entry
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    tenant: str
    arguments: tuple[str, ...]
    canonical: bytes
    cache: CacheConfig
    tally: Tally
    consistency: Consistency
    arrived_s: float
    deadline_s: float


class Node:
    """One node: memory, the feed that keeps it true, and the way to Postgres. For one event loop.

    ``store.index`` and ``fresh_until_s`` are open to the doors' hit path: until that monotonic moment every open
    entry satisfies its cache's ``max_staleness``. What becomes of reads is counted in ``store.tallies``, of every
    cache. ``on_admitted`` is called with each entry that was loaded and is kept.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
        listeners: Iterable[CircuitBreakerListener] = (),
    ) -> None:
        self.config = config
        self._clock = clock
        self._random = random or Random()
        self._landing = Landing(config.caches, self._random)
        self.store = _store(config)
        self.timeline = Timeline(
            self.store,
            log_retention_s=config.feed.log_retention_s,
            log_max_changes=config.feed.log_max_changes,
        )
        self.breaker = Breaker(config.breaker, clock=clock, listeners=listeners)
        self.watching = Hub(config.watch, self.store, self._random)
        self.plans = Plans(config.caches)
        self._reach(Sessions(config.postgres))
        self.flights: Flights[Landed] = Flights(clock=clock)
        self.history = History(
            config, loader=self.loader, feed=self.feed, timeline=self.timeline, clock=clock
        )
        self._codec = TokenCodec(config.secrets)
        self._decoded = lru_cache(maxsize=4096)(self._codec.decode)
        self._encoded = lru_cache(maxsize=64)(self._codec.encode)
        self._shortest_staleness_s = min(
            (cache.max_staleness_s for cache in config.caches.values()), default=0.0
        )
        self._planned_for = self.feed.catalog_version
        self._stopping = False
        self.fresh_until_s = -inf
        self.started_s = clock()
        self.errors = 0
        self.admissions = dict.fromkeys(Admission, 0)
        self.on_admitted: Callable[[Entry], None] = lambda _: None

    def _reach(self, sessions: Sessions) -> None:
        """The parts that go to Postgres."""
        config, clock = self.config, self._clock
        fills = (lambda tenant, places: part(config.quota(tenant), places)) if config.apart else None
        self.feed = Feed(
            sessions=sessions,
            config=config.feed,
            breaker_config=config.breaker,
            timeline=self.timeline,
            breaker=self.breaker,
            on_poll=self._polled,
            clock=clock,
            random=self._random,
        )
        self.loader = Loader(
            config=config.load,
            workers=config.postgres.connections,
            connections=Connections(sessions),
            plans=self.plans,
            breaker=self.breaker,
            clock=clock,
            fills=fills,
        )
        self.writer = Writer(
            config=config.write,
            connections=Connections(sessions, "snapring writer", session(config.write)),
            breaker=self.breaker,
            clock=clock,
            fills=fills,
        )
        self.retention = Retention(
            sessions=sessions, config=config.retention, breaker=self.breaker, clock=clock, random=self._random
        )

    def __repr__(self) -> str:
        return f"<Node {self.config.name} hits={self.hits} {self.breaker!r} {self.store!r}>"

    async def run(self) -> None:
        """Follow the database until cancelled, then fail what is under way and let go of Postgres."""
        tasks = [asyncio.create_task(self.feed.run()), asyncio.create_task(self.retention.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            self._stopping = True
            self.fresh_until_s = -inf
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.writer.stop()
            await self.loader.stop()

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """The answer to one read, by the monotonic time ``deadline_s``. Raises `SnapringError`."""
        request = self._request(key, consistency, deadline_s)
        if reply := self._from_memory(request):
            return reply
        try:
            if reply := await self._late_hit(request):
                return reply
            return await self._from_load(request)
        except SnapringError as error:
            if not self.breaker.closed:
                note("snapring.breaker_open")
            if (reply := self._stale(request)) and error.retryable and not self._stopping:
                return reply
            self.errors += 1
            raise

    def try_read(self, key: Key, consistency: Consistency) -> Reply | None:
        """The answer if memory has it now, else None. Raises `SnapringError`."""
        return self._from_memory(self._request(key, consistency, inf))

    def forward(self, key: bytes) -> None:
        """Nobody else is asked: see `cluster.peering.forwarding`."""

    @property
    def hits(self) -> int:
        """The reads that memory answered as they were asked, at once or after catching up with the feed."""
        return self.store.tallies.total("hits")

    @property
    def misses(self) -> int:
        """The reads that memory had no answer to and this node did itself."""
        return self.store.tallies.total("misses")

    @property
    def stale(self) -> int:
        """The reads that memory answered labelled STALE."""
        return self.store.tallies.total("stale")

    @property
    def stopping(self) -> bool:
        """Whether reads are refused."""
        return self._stopping

    def hit(self, key: bytes, now_s: float | None = None) -> Entry | None:
        """The entry under ``key``, a canonical text, if a plain read may be answered without further thought.

        ``now_s`` is given by who asks for many keys at once.
        """
        entry, now_s = self.store.index.get(key), self._clock() if now_s is None else now_s
        if entry is None or entry.until_s <= now_s or now_s > self.fresh_until_s:
            return None
        if entry.frequency < MAX_FREQUENCY:
            entry.frequency += 1
        entry.tally.node_hits += 1
        return entry

    def peek(self, key: Key) -> Entry | None:
        """The open entry under ``key``, untouched; None if there is none."""
        self._cache(key)
        entry = self.store.index.get(key.canonical)
        return entry if entry is not None and entry.until_s > self._clock() else None

    def token(self, snapshot: Snapshot, incarnation: int) -> str:
        """The token of a reply's ``as_of``."""
        return self._encoded(snapshot, incarnation)

    def ticket(self, xid: int) -> str:
        """The token that demands to see transaction ``xid`` of the present incarnation."""
        return self._encoded(Ticket(xid), self._incarnation())

    def at_least(self, token: str) -> AtLeast:
        """The consistency that ``token`` asks for. Raises `TokenInvalid`, `TokenForeign`."""
        incarnation = self._incarnation()
        return AtLeast(self._decoded(token, incarnation), incarnation)

    def exactly(self, token: str) -> Exactly:
        """The same for an exact read, which needs a snapshot. Raises `TokenInvalid`, `TokenForeign`."""
        incarnation = self._incarnation()
        position: Position = self._decoded(token, incarnation)
        if not isinstance(position, Snapshot):
            raise TokenInvalid("a ticket names no snapshot: use it as ATLEAST")
        return Exactly(position, incarnation)

    def written_token(self, written: Written) -> str:
        """The ticket of whoever must see a write."""
        return self._encoded(Ticket(written.xid), written.incarnation)

    async def write(self, deeds: Sequence[Deed], deadline_s: float) -> Written:
        """Put and delete keys of ``store`` caches, all or none. Raises `SnapringError`.

        `WriteUncertain`: it may have happened. Any other error: it has not.
        """
        if self._stopping:
            raise NodeStopping(_STOPPING)
        writes.check(deeds, [self._cache(deed.key) for deed in deeds], self.config.write)
        return await self.writer.write(deeds, deadline_s)

    async def listing(
        self, prefix: Key, after: str, most: int, consistency: Consistency, deadline_s: float
    ) -> Listing:
        """At most ``most`` keys of a ``store`` cache that begin with ``prefix``, the first after ``after``."""
        if self._stopping:
            raise NodeStopping(_STOPPING)
        if self._cache(prefix).kind != "store":
            raise ArgumentInvalid(f"{prefix.cache!r} is a cache of rows: only store caches list their keys")
        return await self.history.listing(stored_text(prefix), after, most, consistency, deadline_s)

    async def snapshot(self, deadline_s: float, *, strong: bool) -> tuple[Snapshot, int]:
        """The watermark and its incarnation; with ``strong`` one taken after this call began."""
        now = self._clock()
        since_s = now if strong else now - self._shortest_staleness_s
        if not await self.feed.until(lambda: self.timeline.watermark_s >= since_s, deadline_s):
            raise Unavailable(f"no snapshot from Postgres in time: {self.feed.last_error or 'retry'}")
        assert self.timeline.watermark is not None, "watermark_s is minus infinity without a watermark"
        return self.timeline.watermark, self._incarnation()

    def describe(self) -> dict[str, Section]:
        """What this node says about itself, by section."""
        return describe(self, self._clock())

    # -- the steps of the read path ----------------------------------------------------------------

    def _request(self, key: Key, consistency: Consistency, deadline_s: float) -> _Request:
        if self._stopping:
            raise NodeStopping(_STOPPING)
        cache = self._cache(key)
        arguments = _arguments(key, cache)
        plan = self.plans.known(cache.name)
        if plan is not None:
            plan.check(arguments)
        return _Request(
            tenant=key.tenant,
            arguments=arguments,
            canonical=key.canonical,
            cache=cache,
            tally=self.store.tallies[cache.name],
            consistency=consistency,
            arrived_s=self._clock(),
            deadline_s=deadline_s,
        )

    def _from_memory(self, request: _Request) -> Reply | None:
        reply = self._remembered(request)
        if reply is not None:
            request.tally.node_hits += 1
        return reply

    def _remembered(self, request: _Request) -> Reply | None:
        entry = self.store.get(request.canonical)
        if entry is None:
            return None
        return self._answer(request, entry, self.timeline.incarnation, Source.LOCAL)

    async def _late_hit(self, request: _Request) -> Reply | None:
        """What memory answers after catching up with the feed; if it does not, this is a miss, however it ends."""
        reply = None
        try:
            reply = await self._after_catching_up(request)
            return reply
        finally:
            request.tally.misses += reply is None

    async def _after_catching_up(self, request: _Request) -> Reply | None:
        """Where only the watermark is behind what is asked of an open entry, the feed can mend it."""
        entry = self.store.index.get(request.canonical)
        if entry is None or entry.until_s <= self._clock():
            return None
        if not await self._caught_up(request):
            return None
        return self._from_memory(request)

    async def _caught_up(self, request: _Request, position: Position | None = None) -> bool:
        """Wait, bounded by ``token_wait``, for a watermark at ``position``, else as the request asks."""
        note("snapring.feed_awaited")
        timeline, asked = self.timeline, request.consistency
        deadline_s = min(request.deadline_s, self._clock() + self.config.token_wait_s)
        if position is None and isinstance(asked, AtLeast | Exactly):
            position = asked.position if isinstance(asked, AtLeast) else asked.snapshot
        if position is not None:
            return await self.feed.until(
                lambda: timeline.watermark is not None and sees(timeline.watermark, position), deadline_s
            )
        if isinstance(asked, Bounded):
            allowed_s = request.cache.max_staleness_s
            return await self.feed.until(
                lambda: self._clock() - timeline.watermark_s <= allowed_s, deadline_s
            )
        return await self.feed.until(lambda: timeline.watermark_s >= request.arrived_s, deadline_s)

    async def _from_load(self, request: _Request) -> Reply:
        if isinstance(request.consistency, Exactly):
            if request.cache.kind == "store":
                return await self.history.read(request.canonical, request.consistency, request.deadline_s)
            return await self._exactly_from_load(request, request.consistency)
        reply = await self._load(request)
        if reply is None and isinstance(request.consistency, AtLeast) and await self._caught_up(request):
            reply = self._remembered(request) or await self._load(request)
        if reply is not None:
            return reply
        if isinstance(request.consistency, AtLeast):
            raise TokenAhead("the database has not reached the token: retry, or check where it is from")
        raise Unavailable("the answer loaded is older than asked for: retry")

    async def _exactly_from_load(self, request: _Request, asked: Exactly) -> Reply:
        """A load reaches back to an older snapshot once the feed has reached the load's own."""
        landed = await self._flight(request, lambda landed: landed)
        assert landed is not None, "whatever lands is accepted"
        newest = asked.snapshot if landed.entry.snapshot.within(asked.snapshot) else landed.entry.snapshot
        await self._caught_up(request, newest)
        reply = self._answer(request, landed.entry, landed.incarnation, Source.LOAD)
        if reply is None:
            raise SnapshotUnavailable("no entry is known to be true at this snapshot: read a newer one")
        return reply

    async def _load(self, request: _Request) -> Reply | None:
        return await self._flight(
            request, lambda landed: self._answer(request, landed.entry, landed.incarnation, Source.LOAD)
        )

    async def _flight(self, request: _Request, accepts: Callable[[Landed], T | None]) -> T | None:
        def depart() -> asyncio.Future[Landed]:
            return self.loader.submit(
                request.cache.name,
                request.arguments,
                lambda loaded: self._land(request.canonical, loaded),
                request.tenant,
            )

        return await self.flights.join(request.canonical, depart, accepts, request.deadline_s)

    def _land(self, canonical: bytes, loaded: Loaded) -> Landed:
        """A load has arrived: make its entry and admit it. One step, whoever waits for it."""
        entry = self._landing.entry(canonical, loaded)
        admission = self.timeline.admit(entry, loaded.incarnation)
        self.admissions[admission] += 1
        if admission is Admission.OPEN:
            self.on_admitted(entry)
        return Landed(entry=entry, incarnation=loaded.incarnation)

    def _answer(
        self, request: _Request, entry: Entry, incarnation: int | None, source: Source
    ) -> Reply | None:
        """``entry`` as the FRESH answer to ``request``, None where it does not satisfy it."""
        asked, now = request.consistency, self._clock()
        if incarnation is None:
            return None
        if isinstance(asked, AtLeast | Exactly) and asked.incarnation != incarnation:
            raise TokenForeign("the database began a new incarnation: read again without the token")
        if isinstance(asked, Exactly):
            if incarnation != self.timeline.incarnation or not self.timeline.holds(entry, asked.snapshot):
                return None
            as_of, as_of_s = asked.snapshot, self.timeline.current_s(entry, asked.snapshot)
        else:
            if source is Source.LOCAL and entry.until_s <= now:
                return None
            as_of, as_of_s = self._as_of(entry, incarnation)
            if not _satisfies(asked, as_of, as_of_s, request, now):
                return None
            if isinstance(asked, Bounded) and not asked.allows(as_of, incarnation):
                return None
        return Reply(
            value=entry.value,
            as_of=as_of,
            incarnation=incarnation,
            age_s=now - as_of_s,
            state=State.FRESH,
            source=source,
            version=entry.version,
        )

    def _stale(self, request: _Request) -> Reply | None:
        """What memory still has while Postgres is out of reach, as the cache allows."""
        entry, allowed_s = self.store.index.get(request.canonical), request.cache.stale_if_error_s
        if entry is None or self.timeline.incarnation is None or not isinstance(request.consistency, Bounded):
            return None
        now = self._clock()
        as_of, as_of_s = self.timeline.as_of(entry)
        if not request.consistency.allows(as_of, self.timeline.incarnation):
            return None
        age_s = now - as_of_s
        fresh = age_s <= request.cache.max_staleness_s
        if not fresh and (allowed_s is None or age_s > allowed_s):
            return None
        request.tally.stale += not fresh
        return Reply(
            value=entry.value,
            as_of=as_of,
            incarnation=self.timeline.incarnation,
            age_s=age_s,
            state=State.FRESH if fresh else State.STALE,
            source=Source.LOCAL,
            version=entry.version,
        )

    def _as_of(self, entry: Entry, incarnation: int) -> tuple[Snapshot, float]:
        if incarnation == self.timeline.incarnation:
            return self.timeline.as_of(entry)
        return entry.snapshot, entry.loaded_s  # the feed has not seen this incarnation yet

    # -- odds of one line ----------------------------------------------------------------------------

    def _polled(self) -> None:
        """After each poll: what the hit path may rely on, and what the clock alone ends."""
        if self.feed.catalog_version != self._planned_for:
            self._planned_for = self.feed.catalog_version
            self.plans.forget()
        self.fresh_until_s = self.timeline.watermark_s + self._shortest_staleness_s
        self.watching.moved(self.timeline)
        self.store.expire(self._clock())

    def _cache(self, key: Key) -> CacheConfig:
        cache = self.config.caches.get(key.cache)
        if cache is None:
            closed = closed_to(key.tenant, {name: each.tenants for name, each in self.config.caches.items()})
            known = ", ".join(sorted(self.config.caches.keys() - closed)) or "none"
            raise CacheUnknown(f"no cache named {key.cache!r}; configured: {known}")
        return cache

    def _incarnation(self) -> int:
        if self.timeline.incarnation is None:
            raise Unavailable(f"Postgres has not been reached yet: {self.feed.last_error or 'retry'}")
        return self.timeline.incarnation


def _store(config: NodeConfig) -> Store:
    """Empty, with what is reserved for single caches, and with tenants' shares where they are told apart."""
    reserved = {cache.name: cache.max_bytes for cache in config.caches.values() if cache.max_bytes}
    weigh = (lambda tenant: config.quota(tenant).memory_weight) if config.apart else None
    store = Store(config.memory_bytes, reserved, weigh=weigh)
    for cache in config.caches:
        store.tallies[cache] = Tally()
    return store


def _arguments(key: Key, cache: CacheConfig) -> tuple[str, ...]:
    if cache.kind == "store":
        return (stored_text(key),)
    return (key.tenant, *key.args) if cache.tenant_argument else key.args


def _satisfies(
    asked: Bounded | Strong | AtLeast, as_of: Snapshot, as_of_s: float, request: _Request, now: float
) -> bool:
    match asked:
        case Bounded():
            return now - as_of_s <= request.cache.max_staleness_s
        case Strong():
            return as_of_s >= request.arrived_s
        case AtLeast(position=position):
            return sees(as_of, position)
