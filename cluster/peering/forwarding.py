"""A node as its doors see it, where others own most keys: it asks them.

1. Memory here? Answer: every entry is exact, whoever owns its key.
2. The key is one's own? `Node.read`.
3. Ask the owner; where the hop fails, the backup.
4. Neither has answered? `Node.read`: load here.

Never more than one hop: who is asked answers by itself (`cluster.peering.answering`). A peer's failure is
never turned into an answer; what a peer answers about the request, error or value, is the answer, as long as
it stands up to what was asked (`cluster.peering.acceptance`).

Only `read` differs from the node's, and `forward`, which is the same for most reads without a task of its own: see
`cluster.peering.hop`. A write, a listing and a ``store`` key at an old snapshot come from the
database alone, which is as near from here as from anywhere.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from time import monotonic
from typing import Final

from cluster.config import CacheConfig, PeersConfig
from cluster.node import Node
from cluster.peering.acceptance import fits, young
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
from cluster.requests import BOUNDED, Consistency, Exactly, Reply, Source
from peers.channel import Channel
from peers.errors import MessageInvalid, MessageTooLarge, PeerError
from peers.membership import Membership
from peers.wire import Call
from snapring.errors import (
    CacheUnknown,
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    SnapringError,
    TokenForeign,
)
from snapring.keys import Key, cache_of_plain, parse, slot_of


class _UnfitError(Exception):
    """What the peer answered is no answer to what was asked."""


_HERE: Final = (CacheUnknown, TokenForeign, MessageTooLarge, _UnfitError)
"""The peer is configured differently, follows another incarnation, has what is too large to travel or answers what
is too old by now: the next peer is no better."""

_ANOTHER: Final = (PeerError, DeadlineExceeded, NodeStopping, Overloaded)
"""The hop or the peer has failed, not the request."""


class Forwarding:
    """``node`` among the nodes of ``membership``. For one event loop.

    ``forwarded`` counts the reads that others were to answer, ``answers`` those that one did, by who it was,
    ``hops_failed`` the calls that failed, ``unfit`` the answers that were none to what was asked, and
    ``fallbacks`` the reads that came back to this node. With ``sharing``, what moved here is fetched before it is
    loaded, and what is forwarded often is fetched too.
    """

    def __init__(
        self,
        node: Node,
        membership: Membership,
        config: PeersConfig,
        clock: Callable[[], float] = monotonic,
        sharing: Sharing | None = None,
    ) -> None:
        self._node = node
        self._sharing = sharing
        self._membership = membership
        self._hop_timeout_s = config.hop_timeout_s
        self._clock = clock
        self._definitions = definitions(node.config.caches.values())
        self._plain_timeout_s = min(config.hop_timeout_s, node.config.request_timeout_s)
        caches = node.config.caches
        self._cache_of = {meaning: caches[name] for name, meaning in self._definitions.items()}
        self._plain: Mapping[bytes | None, tuple[CacheConfig, bytes]] = {
            name.encode(): (caches[name], meaning) for name, meaning in self._definitions.items()
        }
        self.config = node.config
        self.store = node.store
        self.timeline = node.timeline
        self.try_read = node.try_read
        self.write = node.write
        self.listing = node.listing
        self.peek = node.peek
        self.snapshot = node.snapshot
        self.token = node.token
        self.ticket = node.ticket
        self.written_token = node.written_token
        self.at_least = node.at_least
        self.exactly = node.exactly
        self.answers = {Source.PEER: 0, Source.BACKUP: 0}
        self.forwarded = self.hops_failed = self.unfit = self.fallbacks = 0

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
    def hits(self) -> int:
        """The node's."""
        return self._node.hits

    @hits.setter
    def hits(self, count: int) -> None:
        self._node.hits = count

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
            self.forwarded += 1
            reply = await self._from_peers(get, self._candidates(slot), deadline_s)
            if self._sharing is not None:
                self._sharing.forwarded(canonical, slot)
        return reply or await self._node.read(key, consistency, deadline_s)

    def forward(self, key: bytes) -> Hop | None:
        """A read of the text ``key`` as `BOUNDED` by its owner, to be begun; None where it must go through `read`.

        That is where the key is not plain, may be in memory here, is this node's own, or its owner is away or older.
        """
        known = self._plain.get(cache_of_plain(key))
        if known is None or key in self.store.index or self._node.stopping:
            return None
        cache, meaning = known
        slot, generation = slot_of(key), self._membership.generation
        channel = generation.channels.get(generation.ring.owner(slot))
        if channel is None or (channel.version or 0) < PLAIN_VERSION:
            return None
        self.forwarded += 1
        return Hop(
            call=Call(PLAIN, encode_plain(key, meaning), self._plain_timeout_s),
            channel=channel,
            key=key,
            slot=slot,
            cache=cache,
            asked_s=self._clock(),
            on_answer=self._answered,
            on_failure=self._broke,
        )

    def describe(self) -> Mapping[str, Mapping[str, object]]:
        """What the node says about itself and about the others, by section."""
        return {
            **self._node.describe(),
            "forwarding": {
                "forwarded": self.forwarded,
                "owner_answers": self.answers[Source.PEER],
                "backup_answers": self.answers[Source.BACKUP],
                "hops_failed": self.hops_failed,
                "answers_unfit": self.unfit,
                "fallbacks": self.fallbacks,
            },
            **({"sharing": self._sharing.describe()} if self._sharing else {}),
            "peers": peers_section(self._membership.describe()),
        }

    def _is_own(self, key: Key, slot: int, consistency: Consistency) -> bool:
        """Whether nobody is nearer to the answer than this node."""
        cache = self.config.caches.get(key.cache)
        if cache is None or (cache.kind == "store" and isinstance(consistency, Exactly)):
            return True
        membership = self._membership
        return membership.ring.owner(slot) == membership.me.name

    def _answered(self, hop: Hop, body: bytes) -> None:
        """The owner has answered a plain read: the same as in `_ask`, at once."""
        try:
            state, value, age_s = decode_value(body)
        except MessageInvalid as error:
            self._broke(hop, error)
            return
        if not young(state, age_s + self._clock() - hop.asked_s, hop.cache):
            self.unfit += 1
            self._broke(hop, _UnfitError())
            return
        self.answers[Source.PEER] += 1
        if self._sharing is not None:
            self._sharing.forwarded(hop.key, hop.slot)
        hop.done(value)

    def _broke(self, hop: Hop, error: Exception) -> None:
        """The owner has not answered a plain read, unless with the error that is the answer."""
        if isinstance(error, SnapringError) and _is_verdict(error):
            hop.done(error)
        else:
            hop.done(self._without_owner(hop, elsewhere=self._is_elsewhere(error)))

    async def _without_owner(self, hop: Hop, *, elsewhere: bool) -> bytes | None:
        """The rest of a plain read, the backup first if it may know more."""
        key, _ = parse(hop.key)
        deadline_s = hop.asked_s + self.config.request_timeout_s
        get = Get(key=hop.key, definition=self._definitions[key.cache], consistency=BOUNDED)
        backup = self._candidates(hop.slot, (Source.BACKUP,)) if elsewhere else ()
        reply = await self._from_peers(get, backup, deadline_s)
        return (reply or await self._node.read(key, BOUNDED, deadline_s)).value

    async def _from_peers(
        self, get: Get, candidates: Iterable[tuple[Channel, Source]], deadline_s: float
    ) -> Reply | None:
        """What the first of ``candidates`` that can answers; None if this node must find the answer itself."""
        body = encode_get(get)
        for channel, source in candidates:
            timeout_s = min(self._hop_timeout_s, deadline_s - self._clock())
            if timeout_s <= 0.0:
                break
            try:
                return await self._ask(channel, source, Call(GET, body, timeout_s), get)
            except (SnapringError, _UnfitError) as error:
                if isinstance(error, SnapringError) and _is_verdict(error):
                    raise
                if not self._is_elsewhere(error):
                    break
        self.fallbacks += 1
        return None

    def _is_elsewhere(self, error: Exception) -> bool:
        """Whether another peer may know better than the one that failed with ``error``."""
        if isinstance(error, _HERE):
            return False
        self.hops_failed += 1
        return True

    async def _ask(self, channel: Channel, source: Source, call: Call, get: Get) -> Reply:
        sent_s = self._clock()
        answer = await channel.call(call)
        since_s = self._clock() - sent_s
        reply = decode_reply(answer, since_s=since_s, source=source)
        cache, incarnation = self._cache_of[get.definition], self.timeline.incarnation
        if not fits(reply, get.consistency, cache=cache, since_s=since_s, incarnation=incarnation):
            self.unfit += 1
            raise _UnfitError
        self.answers[source] += 1
        return reply

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
            if channel is not None and source in sources:
                yield channel, source


def _is_verdict(error: SnapringError) -> bool:
    """Whether it is about the request: then it is the answer. Errors of no class are a peer's defects, or newer than this."""
    return not isinstance(error, _HERE + _ANOTHER) and type(error) is not SnapringError
