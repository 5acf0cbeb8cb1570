"""A node as its doors see it, where others own most keys: it asks them.

1. Memory here? Answer: every entry is exact, whoever owns its key.
2. The key is one's own? `Node.read`.
3. Ask the owner; where the hop fails, the backup.
4. Neither has answered? `Node.read`: load here.

Never more than one hop: who is asked answers by itself (`cluster.peering.answering`). A peer's failure is
never turned into an answer; what a peer answers about the request, error or value, is the answer, as long as
it stands up to what was asked (`cluster.peering.acceptance`).

Only `read` differs from the node's. A write, a listing and a ``store`` key at an old snapshot come from the
database alone, which is as near from here as from anywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Final

from cluster.config import CacheConfig, PeersConfig
from cluster.node import Node
from cluster.peering.acceptance import fits
from cluster.peering.messages import GET, Get, decode_reply, definitions, encode_get
from cluster.peering.section import peers_section
from cluster.peering.sharing import Sharing
from cluster.requests import Consistency, Exactly, Reply, Source
from peers.channel import Channel
from peers.errors import MessageTooLarge, PeerError
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
from snapring.keys import Key, slot_of


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
            reply = await self._from_peers(get, slot, self.config.caches[key.cache], deadline_s)
            if self._sharing is not None:
                self._sharing.forwarded(key, slot)
        return reply or await self._node.read(key, consistency, deadline_s)

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

    async def _from_peers(self, get: Get, slot: int, cache: CacheConfig, deadline_s: float) -> Reply | None:
        """What the owner answers, or else the backup; None if this node must find the answer itself."""
        body = encode_get(get)
        self.forwarded += 1
        for channel, source in self._candidates(slot):
            timeout_s = min(self._hop_timeout_s, deadline_s - self._clock())
            if timeout_s <= 0.0:
                break
            try:
                return await self._ask(channel, source, Call(GET, body, timeout_s), cache, get.consistency)
            except _HERE:
                break
            except SnapringError as error:
                if not _is_of_the_hop(error):
                    raise
                self.hops_failed += 1
        self.fallbacks += 1
        return None

    async def _ask(
        self, channel: Channel, source: Source, call: Call, cache: CacheConfig, asked: Consistency
    ) -> Reply:
        sent_s = self._clock()
        answer = await channel.call(call)
        since_s = self._clock() - sent_s
        reply = decode_reply(answer, since_s=since_s, source=source)
        if not fits(reply, asked, cache=cache, since_s=since_s, incarnation=self.timeline.incarnation):
            self.unfit += 1
            raise _UnfitError
        self.answers[source] += 1
        return reply

    def _candidates(self, slot: int) -> Iterator[tuple[Channel, Source]]:
        """Whom to ask, in this order; nobody behind this node itself."""
        membership = self._membership
        ring, me = membership.ring, membership.me.name
        for name, source in ((ring.owner(slot), Source.PEER), (ring.backup(slot), Source.BACKUP)):
            if name is None or name == me:
                return
            channel = membership.channel(name)
            if channel is not None:
                yield channel, source


def _is_of_the_hop(error: SnapringError) -> bool:
    """Whether the request may fare better elsewhere. Errors of no class are a peer's defects, or newer than this."""
    return isinstance(error, _ANOTHER) or type(error) is SnapringError
