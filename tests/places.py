"""Nodes that act as one, in this process and on one database: real services and channels over loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from cluster.config import NodeConfig, PeersConfig
from cluster.node import Node
from cluster.peering.answering import Answering
from cluster.peering.forwarding import Forwarding
from cluster.requests import BOUNDED, Consistency, Reply
from nodes import WITHIN_S, config, loads, running
from peer_process import LOOPBACK, QUICK, STEADY, hello, until
from peers.bounds import Bounds
from peers.channel import Channel
from peers.discovery.static import StaticDiscovery
from peers.inbox import Asker, Handler
from peers.members import Address, Member
from peers.membership import Membership
from peers.service import Service
from peers.wire import Call
from snapring.keys import parse

FAR = PeersConfig(hop_timeout_s=WITHIN_S)
Answer = bytes | Coroutine[Any, Any, bytes]


@dataclass(slots=True, kw_only=True)
class Place:
    """One node among others."""

    name: str
    node: Node
    service: Service
    membership: Membership
    reads: Forwarding
    answers: Answering

    async def read(
        self, key: str, consistency: Consistency = BOUNDED, *, within_s: float = WITHIN_S
    ) -> Reply:
        """A read by a client of this node."""
        return await self.reads.read(parse(key.encode())[0], consistency, monotonic() + within_s)

    @property
    def loads(self) -> int:
        """How many queries this node has run."""
        return loads(self.node)

    def owner(self, key: str) -> str:
        """Who owns ``key``, as this node sees it."""
        return self.membership.ring.owner(parse(key.encode())[0].slot)


def named(number: int) -> str:
    """The name of a node."""
    return f"node-{number}"


def owned(place: Place, owner: str, backup: str | None = None, *, cache: str = "user", first: int = 1) -> str:
    """A key that ``owner`` owns, and ``backup`` backs up, as ``place`` sees it."""
    ring = place.membership.ring
    for number in range(first, first + 1000):
        key = f"{cache}:{number}"
        slot = parse(key.encode())[0].slot
        if ring.owner(slot) == owner and (backup is None or ring.backup(slot) == backup):
            return key
    raise LookupError(f"no key of {owner}, {backup}")


def configs(url: str, count: int, **changes: Any) -> list[NodeConfig]:
    """The configurations of ``count`` nodes on one database."""
    return [config(url, name=named(number), **changes) for number in range(count)]


@asynccontextmanager
async def answering(name: str, handler: Handler, bounds: Bounds = STEADY) -> AsyncIterator[Service]:
    """Something that answers in the name of ``name``, on a free port."""
    made = Service(Address(host=LOOPBACK, port=0), handler=handler, hello=lambda: hello(name), bounds=bounds)
    await made.start()
    try:
        yield made
    finally:
        await made.stop(0.0)


@asynccontextmanager
async def members(
    configs: Sequence[NodeConfig],
    *,
    others: Mapping[str, Address] | None = None,
    peers: PeersConfig = FAR,
    bounds: Bounds = STEADY,
    clock: Callable[[], float] = monotonic,
    hasty: Collection[str] = (),
    before: Callable[[str, Handler], Handler] = lambda _, handler: handler,
) -> AsyncIterator[list[Place]]:
    """Nodes that know and have reached each other, and ``others``, which are elsewhere.

    ``clock`` is that of their forwarding alone; nobody waits long for those that ``hasty`` names. ``before`` stands
    before what a node answers.
    """
    addresses = {Member(name=name): address for name, address in (others or {}).items()}
    late: dict[str, Handler] = {}
    async with AsyncExitStack() as stack:
        services = {}
        for each in configs:
            handler = partial(_handed, late, each.name)
            made = services[each.name] = await stack.enter_async_context(
                answering(each.name, handler, bounds)
            )
            addresses[Member(name=each.name)] = Address(host=LOOPBACK, port=made.port)
        places = []
        for each in configs:
            node = await stack.enter_async_context(running(each))
            membership = joined(each.name, addresses, bounds, hasty)
            await stack.enter_async_context(_background(membership))
            answers = Answering(node, membership)
            late[each.name] = before(each.name, answers)
            places.append(
                Place(
                    name=each.name,
                    node=node,
                    service=services[each.name],
                    membership=membership,
                    reads=Forwarding(node, membership, peers, clock),
                    answers=answers,
                )
            )
        for place in places:
            await until(partial(_reached, place.membership, len(addresses) - 1))
        yield places


def joined(
    name: str, addresses: Mapping[Member, Address], bounds: Bounds = STEADY, hasty: Collection[str] = ()
) -> Membership:
    """A membership of those at ``addresses``, as ``name`` sees it; not running."""
    made: list[Membership] = []
    membership = Membership(
        me=Member(name=name),
        discovery=StaticDiscovery(addresses),
        hello=lambda epoch, draining: hello(name, ring=epoch, draining=draining),
        open_channel=lambda peer, address: Channel(
            address, node=peer, hello=made[0].hello, bounds=QUICK if peer in hasty else bounds
        ),
        handoff_s=0.0,
        closing_s=0.0,
    )
    made.append(membership)
    return membership


def _handed(late: Mapping[str, Handler], name: str, call: Call, asker: Asker) -> Answer:
    """The answer of a node that is made later than its service."""
    return late[name](call, asker)


@asynccontextmanager
async def _background(membership: Membership) -> AsyncIterator[None]:
    task = asyncio.create_task(membership.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _reached(membership: Membership, count: int) -> bool:
    """Whether the ring is that of all, and there is a connection to each of ``count`` others."""
    channels = membership.generation.channels.values()
    return (
        len(membership.ring.members) == count + 1 and sum(one.peer is not None for one in channels) == count
    )
