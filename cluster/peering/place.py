"""A node's place among the others: what it says of itself, whom it asks, and whom it answers.

`run` keeps its ring and channels up. It is found, greeted and asked from `start` on, which waits for the first view of
the others: who answered before it would load what they have. `leave` has the others leave it out, so that a node
which then stops is missed by nobody.
"""

import asyncio
import logging
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from cluster.access.watching import Watch
from cluster.node import Node
from cluster.peering.answering import Answering
from cluster.peering.circle import Circle, Door, door_of
from cluster.peering.forwarding import Forwarding
from cluster.peering.limits import bounds_of
from cluster.peering.nearby import Nearby
from cluster.peering.sharing import Sharing
from cluster.peering.traced_answering import TracedAnswering
from cluster.peering.trusting import followed, trust_of
from peers.bounds import Bounds
from peers.channel import Channel
from peers.discovery import DiscoveryConfig, discovery
from peers.kinship import fingerprints
from peers.members import Address, Member
from peers.membership import Membership
from peers.pems import Pems
from peers.service import Service
from peers.wire import NEWEST, OLDEST, Hello

if TYPE_CHECKING:
    from cluster.tracing.tracing import Tracing

FAREWELL_S: Final = 1.0
"""How long a node that leaves waits for the others' rings to say so: a few of their looks at hellos."""

_LOOK_S: Final = 0.02

_log: Final = logging.getLogger("snapring")


class Among:
    """``node`` among the others that ``peers.discovery`` finds. For one event loop.

    ``instance`` tells this life of the node from its others. ``door`` is where clients find it, see `Hello`.
    ``watch`` is told of the certificate's files, to follow them. With ``tracing`` the others' traced questions are told of.
    """

    def __init__(
        self,
        node: Node,
        *,
        instance: str,
        door: Callable[[], str],
        watch: Watch | None = None,
        bounds: Bounds | None = None,
        tracing: "Tracing | None" = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._node = node
        self._config = config = node.config.peers
        self._instance = instance
        self._fingerprints = fingerprints(node.config.secrets)
        self._door = door
        self._bounds = bounds or bounds_of(config)
        self._trust = trust_of(node.config)
        self._clock = clock
        self.membership = Membership(
            me=Member(name=node.config.name),
            discovery=discovery(DiscoveryConfig(form=config.discovery)),
            hello=self._hello,
            open_channel=self._channel,
            handoff_s=config.handoff_s,
            handoff_rings=config.handoff_rings,
            announce=self._tell_askers,
            closing_s=node.config.request_timeout_s,
            clock=clock,
        )
        self.sharing = Sharing(node, self.membership, config, clock)
        self.answering = Answering(node, self.membership, clock, self.sharing)
        self.reads = Forwarding(node, self.membership, config, clock, self.sharing, answering=self.answering)
        self.near = Nearby(node, self.sharing)
        self.service = Service(
            Address(host=config.host, port=config.port),
            handler=TracedAnswering(self.answering, tracing) if tracing else self.answering,
            hello=self.membership.hello,
            bounds=self._bounds,
            trust=self._trust,
        )
        if self._trust is not None and watch is not None:
            watch.follow(followed(config, self._renew))

    def __repr__(self) -> str:
        return f"<Among {self.membership!r} {self.service!r}>"

    async def start(self) -> None:
        """Wait for the first view, while `run` does its work, or ``discovery_wait``; then listen for the others.

        Raises `OSError` if the address cannot be had.
        """
        await self._look_round()
        try:
            await self.service.start()
        except RuntimeError as error:
            address = self.service.address
            raise OSError(
                f"cannot listen for peers on {address.host} port {address.port}: {error}"
            ) from error
        _log.info(
            "node %s answers its peers on %s:%d", self._node.config.name, self._config.host, self.service.port
        )

    async def run(self) -> None:
        """Follow the membership, and give the others what they keep of this node's, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.membership.run(), name="membership")
            group.create_task(self.sharing.run(), name="sharing")

    def circle(self) -> Circle:
        """Whom clients may ask for what, as this node sees it now."""
        generation, me = self.membership.generation, self._node.config.name
        doors = {me: door_of(self._door(), "") or Door(host="", port=self._node.config.resp.port)}
        for name, channel in generation.channels.items():
            hello = channel.peer
            door = door_of(hello.door, channel.address.host) if hello and not hello.draining else None
            if door is not None:
                doors[name] = door
        return Circle(me=me, ring=generation.ring, doors=doors)

    def lost(self) -> str:
        """Why this node does not know the ring; empty if it does."""
        if self.membership.is_settled:
            return ""
        last = self.membership.found
        return f"no view of the other nodes yet: {last.last_error or f'{last.source} has not answered'}"

    def announce(self) -> None:
        """What ``door`` says has changed: tell the others."""
        self.membership.announce()

    async def leave(self, deadline_s: float) -> None:
        """Tell the others, wait by monotonic ``deadline_s`` and `FAREWELL_S` until they ask this node no more, and
        hand over to them what is used most.
        """
        self.membership.drain()
        farewell_s = min(deadline_s, self._clock() + FAREWELL_S)
        while not self._left() and self._clock() < farewell_s:  # noqa: ASYNC110 -- a peer's hello sets no event
            await asyncio.sleep(_LOOK_S)
        await self.sharing.hand_over(deadline_s)

    async def stop(self, deadline_s: float) -> None:
        """Answer what is under way by ``deadline_s``, and the others no more."""
        await self.service.stop(max(0.0, deadline_s - self._clock()))

    async def _look_round(self) -> None:
        within_s, name = self._config.discovery_wait_s, self._node.config.name
        if await self.membership.settled(within_s):
            _log.info("node %s is one of %d", name, len(self.membership.ring.members))
        else:
            last = self.membership.found
            _log.warning(
                "node %s knows of no other node after %g s and answers by itself until it does: %s",
                *(name, within_s, last.last_error or f"{last.source} does not answer"),
            )

    def _tell_askers(self) -> None:
        self.service.announce()

    def _left(self) -> bool:
        """Whether everybody who hears this node and stays has the ring without it."""
        generation = self.membership.generation
        peers = [channel.peer for channel in generation.channels.values()]
        staying = [peer for peer in peers if peer is not None and not peer.draining]
        out = all(member.name != self._node.config.name for member in generation.ring.members)
        return all(out and peer.ring == generation.ring.hash for peer in staying)

    def _channel(self, name: str, address: Address) -> Channel:
        trust = self._trust
        return Channel(
            address,
            node=name,
            hello=self.membership.hello,
            bounds=self._bounds,
            credentials=trust.for_asking() if trust else None,
            server_name=trust.name_of(name) if trust else None,
            clock=self._clock,
        )

    def _renew(self, pems: Pems) -> None:
        """New connections for new certificates. Where an authority is trusted no more, nobody keeps his old one."""
        assert self._trust is not None, "who has no certificate follows none"
        older = self._trust.pems
        self._trust.renew(pems)
        self.membership.reopen()
        if not pems.trusts_all_of(older):
            self.service.expel()

    def _hello(self, epoch: bytes, draining: bool) -> Hello:
        return Hello(
            oldest=OLDEST,
            newest=NEWEST,
            node=self._node.config.name,
            instance=self._instance,
            ring=epoch,
            watermark=self._followed(),
            draining=draining,
            door=self._door(),
            secrets=self._fingerprints,
        )

    def _followed(self) -> bytes | None:
        """Incarnation and the ends of the watermark: short, however many transactions run."""
        timeline = self._node.timeline
        if timeline.watermark is None or timeline.incarnation is None:
            return None
        return struct.pack("!QQQ", timeline.incarnation, timeline.watermark.xmin, timeline.watermark.xmax)
