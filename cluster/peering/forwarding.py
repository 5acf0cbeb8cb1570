"""A node as its doors see it, where others own most keys: it asks them.

1. Memory here? Answer: every entry is exact, whoever owns its key.
2. The key is one's own? `Node.read`.
3. Ask the owner; where the hop fails, the backup.
4. Neither has answered? `Node.read`: load here.

Never more than one hop: who is asked answers by itself (`cluster.peering.answering`). A peer's failure is
never turned into an answer; what a peer answers about the request, error or value, is the answer, as long as
it stands up to what was asked (`cluster.peering.acceptance`). What each error means, `cluster.peering.verdicts` says.

A call has all the time that its request has left: a query that takes long is run by its owner, and by nobody else. A
peer that is silent, be it paused, cut off or stuck, is found by its pulse, which loses the connection and every call on
it within a hop's time (`cluster.peering.limits`). Whose connections are lost again and again is asked no more for a
while (`cluster.peering.breakers`).

Only `read` differs from the node's, and `forward`, which is the same for most reads without a task of its own: see
`cluster.peering.hop`. A write, a listing and a ``store`` key at an old snapshot come from the
database alone, which is as near from here as from anywhere.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

from cluster.config import CacheConfig, PeersConfig
from cluster.memory.tallies import Tally
from cluster.node import Node
from cluster.noted import note
from cluster.peering.acceptance import fits, young
from cluster.peering.answering import Answering
from cluster.peering.breakers import Breakers
from cluster.peering.hop import Hop
from cluster.peering.messages import (
    GET,
    PLAIN,
    PLAIN_VERSION,
    Get,
    decode_reply,
    decode_value,
    definitions,
    encode_get,
    encode_plain,
)
from cluster.peering.section import peers_section
from cluster.peering.sharing import Sharing
from cluster.peering.takeovers import Takeovers
from cluster.peering.verdicts import Verdict, blames_peer, clears_peer, verdict
from cluster.requests import BOUNDED, Consistency, Exactly, Reply, Source, State
from cluster.tracing import seam
from peers.channel import Channel
from peers.errors import MessageInvalid
from peers.membership import Membership
from peers.wire import Call
from snapring.errors import DeadlineExceeded, SnapringError
from snapring.keys import Key, cache_of_plain, parse, slot_of


class _UnfitError(Exception):
    """What the peer answered is no answer to what was asked, being too old by now: the next peer's is no better."""


class Forwarding:
    """``node`` among the nodes of ``membership``. For one event loop.

    What others were to answer, and did, is counted in the node's tallies; ``hops_failed`` counts the calls that
    failed, ``unfit`` the answers that were none to what was asked, and ``fallbacks`` the reads that came back to this
    node, of which ``takeovers`` lets so many in at once. With
    ``sharing``, what moved here is fetched before it is loaded, and what is forwarded often is fetched too. The other
    way, what others ask of this node, is ``answering``'s.
    """

    def __init__(
        self,
        node: Node,
        membership: Membership,
        config: PeersConfig,
        clock: Callable[[], float] = monotonic,
        sharing: Sharing | None = None,
        *,
        answering: Answering | None = None,
    ) -> None:
        self._node = node
        self._answering = answering
        self._sharing = sharing
        self._membership = membership
        self.breakers = Breakers(config, clock=clock)
        self.takeovers = Takeovers(config.fallbacks)
        self._clock = clock
        self._definitions = definitions(node.config.caches.values())
        self._plain_timeout_s = node.config.request_timeout_s
        caches = node.config.caches
        self._cache_of = {meaning: caches[name] for name, meaning in self._definitions.items()}
        tallies = node.store.tallies
        self._plain: Mapping[bytes | None, tuple[CacheConfig, bytes, Tally]] = {
            name.encode(): (caches[name], meaning, tallies[name])
            for name, meaning in self._definitions.items()
        }
        self.config = node.config
        self.store = node.store
        self.timeline = node.timeline
        self.try_read = node.try_read
        self.hit = node.hit
        self.write = node.write
        self.listing = node.listing
        self.peek = node.peek
        self.snapshot = node.snapshot
        self.token = node.token
        self.ticket = node.ticket
        self.written_token = node.written_token
        self.at_least = node.at_least
        self.exactly = node.exactly
        self.hops_failed = self.unfit = self.fallbacks = 0

    def __repr__(self) -> str:
        return f"<Forwarding {self._node!r} forwarded={self.forwarded} fallbacks={self.fallbacks}>"

    @property
    def fresh_until_s(self) -> float:
        """The node's."""
        return self._node.fresh_until_s

    @fresh_until_s.setter
    def fresh_until_s(self, moment_s: float) -> None:
        self._node.fresh_until_s = moment_s

    @property
    def forwarded(self) -> int:
        """The reads that others were to answer."""
        return self.store.tallies.total("forwarded")

    @property
    def owner_answers(self) -> int:
        """Those that the owner did."""
        return self.store.tallies.total("owner_answers")

    @property
    def backup_answers(self) -> int:
        """Those that the backup did."""
        return self.store.tallies.total("backup_answers")

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """The answer, from here or from a peer, by the monotonic time ``deadline_s``. Raises `SnapringError`."""
        canonical = key.canonical
        slot = slot_of(canonical)
        if self._is_own(key, slot, consistency):
            if self._sharing is not None:
                await self._sharing.fetch_moved(key, deadline_s)
            return await self._node.read(key, consistency, deadline_s)
        reply = self.try_read(key, consistency) if canonical in self.store.index else None
        if reply is None:
            get = Get(key=canonical, definition=self._definitions[key.cache], consistency=consistency)
            self.store.tallies[key.cache].forwarded += 1
            reply = await self._from_peers(get, self._candidates(slot), deadline_s)
            if self._sharing is not None:
                self._sharing.forwarded(canonical, slot)
        if reply is not None:
            return reply
        with self._returned(key):
            return await self._node.read(key, consistency, deadline_s)

    def forward(self, key: bytes) -> Hop | None:
        """A read of the text ``key`` as `BOUNDED` by its owner, to be begun; None where it must go through `read`.

        That is where the key is not plain, may be in memory here, is this node's own, or its owner is away or older.
        """
        known = self._plain.get(cache_of_plain(key))
        if known is None or key in self.store.index or self._node.stopping:
            return None
        cache, meaning, tally = known
        slot, generation = slot_of(key), self._membership.generation
        owner = generation.ring.owners[slot]
        channel = generation.channels.get(owner)
        if channel is None or (channel.version or 0) < PLAIN_VERSION or not self.breakers.would_admit(owner):
            return None
        tally.forwarded += 1
        call = Call(PLAIN, encode_plain(key, meaning), self._plain_timeout_s)
        return Hop(
            call=call, channel=channel, key=key, slot=slot, cache=cache, asked_s=self._clock(), judge=self
        )

    def describe(self) -> Mapping[str, Mapping[str, object]]:
        """What the node says about itself and about the others, by section."""
        return {
            **self._node.describe(),
            "forwarding": {
                "forwarded": self.forwarded,
                "owner_answers": self.owner_answers,
                "backup_answers": self.backup_answers,
                "hops_failed": self.hops_failed,
                "answers_unfit": self.unfit,
                "hops_skipped": self.breakers.skipped,
                "fallbacks": self.fallbacks,
                "fallbacks_refused": self.takeovers.refused,
            },
            **({"answering": self._answering.describe()} if self._answering else {}),
            **({"sharing": self._sharing.describe()} if self._sharing else {}),
            "peers": peers_section(self._membership.describe(), self.breakers.states()),
        }

    def _is_own(self, key: Key, slot: int, consistency: Consistency) -> bool:
        """Whether nobody is nearer to the answer than this node."""
        cache = self.config.caches.get(key.cache)
        if cache is None or (cache.kind == "store" and isinstance(consistency, Exactly)):
            return True
        membership = self._membership
        return membership.ring.owner(slot) == membership.me.name

    def answered(self, hop: Hop, body: bytes) -> None:
        """The owner has answered a plain read: the same as in `_ask`, at once."""
        try:
            state, value, age_s = decode_value(body)
        except MessageInvalid as error:
            self.broke(hop, error)
            return
        self.breakers.succeeded(hop.channel.node)
        if not young(state, age_s + self._clock() - hop.asked_s, hop.cache):
            # What took so long was a load, perhaps: with its snapshot the answer may prove to be young enough.
            hop.done(self._instead(hop, (Source.PEER,)))
            return
        self.store.tallies[hop.cache.name].answered(Source.PEER, state)
        hop.state, hop.age_s = state, age_s
        if self._sharing is not None:
            self._sharing.forwarded(hop.key, hop.slot)
        hop.done(value)

    def broke(self, hop: Hop, error: SnapringError) -> None:
        """The owner has not answered a plain read, unless with the error that is the answer."""
        self._heard(hop.channel.node, error, hop.asked_s)
        found = self._verdict(error)
        if found is Verdict.ANSWER:
            hop.done(error)
        else:
            hop.done(self._instead(hop, (Source.BACKUP,) if found is Verdict.NEXT else ()))

    async def _instead(self, hop: Hop, sources: Container[Source]) -> bytes | None:
        """The rest of a plain read: from ``sources``, where they know, else from here."""
        key, _ = parse(hop.key)
        deadline_s = hop.asked_s + self.config.request_timeout_s
        get = Get(key=hop.key, definition=self._definitions[key.cache], consistency=BOUNDED)
        reply = await self._from_peers(get, self._candidates(hop.slot, sources), deadline_s)
        if reply is not None:
            return note(reply).value
        with self._returned(key):
            return note(await self._node.read(key, BOUNDED, deadline_s)).value

    @contextmanager
    def _returned(self, key: Key) -> Iterator[None]:
        """The time that this node takes to answer what no other did. Raises `Overloaded`."""
        with self.takeovers.one():
            self.store.tallies[key.cache].returned += 1
            yield

    async def _from_peers(
        self, get: Get, candidates: Iterable[tuple[Channel, Source]], deadline_s: float
    ) -> Reply | None:
        """What the first of ``candidates`` that can answers; None if this node must find the answer itself."""
        body = encode_get(get)
        for channel, source in candidates:
            left_s = deadline_s - self._clock()
            if left_s <= 0.0:
                break
            try:
                return await self._ask(channel, source, Call(GET, body, left_s), get)
            except _UnfitError:
                break
            except SnapringError as error:
                found = self._verdict(error)
                if found is Verdict.ANSWER:
                    raise
                if found is Verdict.HERE:
                    break
        if self._clock() >= deadline_s:  # a load begun now would be the second one of this key
            raise DeadlineExceeded("no answer within the request's deadline: retry with a longer one")
        self.fallbacks += 1
        seam.note("snapring.fallback")
        return None

    async def _ask(self, channel: Channel, source: Source, call: Call, get: Get) -> Reply:
        sent_s, cache = self._clock(), self._cache_of[get.definition]
        try:
            with seam.hop(channel.node, source.value, cache.name) as trace:
                answer = await channel.call(call._replace(trace=trace) if trace else call)
        except SnapringError as error:
            self._heard(channel.node, error, sent_s)
            raise
        self._heard(channel.node, None, sent_s)
        since_s = self._clock() - sent_s
        incarnation = self.timeline.incarnation
        reply = self._dated(decode_reply(answer, since_s=since_s, source=source), cache)
        if not fits(reply, get.consistency, cache=cache, since_s=since_s, incarnation=incarnation):
            self.unfit += 1
            raise _UnfitError
        self.store.tallies[cache.name].answered(source, reply.state)
        return reply

    def _verdict(self, error: SnapringError) -> Verdict:
        found = verdict(error, reachable=self._node.breaker.closed)
        self.hops_failed += found is Verdict.NEXT
        return found

    def _heard(self, name: str, error: SnapringError | None, since_s: float) -> None:
        """The peer ``name`` has been asked at ``since_s`` and has answered, but for ``error``."""
        if error is None or clears_peer(error):
            self.breakers.succeeded(name)
        elif blames_peer(error):
            self.breakers.failed(name, str(error), since_s=since_s)

    def _dated(self, reply: Reply, cache: CacheConfig) -> Reply:
        """``reply``, of which the time that its load took is no age: this node's own log may know a later one."""
        timeline = self.timeline
        late = reply.state is State.FRESH and reply.age_s > cache.max_staleness_s
        if not late or reply.incarnation != timeline.incarnation:
            return reply
        return replace(reply, age_s=min(reply.age_s, self._clock() - timeline.logged_s(reply.as_of)))

    def _candidates(
        self, slot: int, sources: Container[Source] = (Source.PEER, Source.BACKUP)
    ) -> Iterator[tuple[Channel, Source]]:
        """Whom to ask, in this order; nobody behind this node itself."""
        membership = self._membership
        ring, me = membership.ring, membership.me.name
        for name, source in ((ring.owner(slot), Source.PEER), (ring.backup(slot), Source.BACKUP)):
            if name is None or name == me:
                return
            channel = membership.channel(name)
            if channel is None or source not in sources:
                continue
            if self.breakers.admits(name):
                yield channel, source
            else:
                seam.note("snapring.hop_skipped")
