"""Nodes in one process that are told who else is there: a real service and real channels each."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from discoveries import Clock
from peer_process import FAR_S, LOOPBACK, STEADY, answer, hello
from peers.channel import Channel
from peers.discovery import Discovery
from peers.discovery.last_good import LastGood
from peers.inbox import Asker
from peers.members import Address, Member, Members
from peers.membership import Membership
from peers.service import Service
from peers.wire import Call, Hello

HANDOFF_S = 30.0


class Views:
    """A discovery by hand: what is `put` is the next view. ``closed``: nobody follows it any more."""

    def __init__(self) -> None:
        self.last = LastGood("the test", clock=lambda: 0.0)
        self.closed = False
        self._queue: asyncio.Queue[Members] = asyncio.Queue()

    def put(self, view: Members) -> None:
        """It has changed."""
        self.last.take(view)
        self._queue.put_nowait(view)

    async def views(self) -> AsyncGenerator[Members, None]:
        """As they are put."""
        try:
            while True:
                yield await self._queue.get()
        finally:
            self.closed = True


class Attendant:
    """One node: its membership and its service. What it hears of another epoch it tells its membership."""

    def __init__(
        self,
        name: str,
        *,
        discovery: Discovery | None = None,
        host: str = LOOPBACK,
        port: int = 0,
        **bounds: Any,
    ) -> None:
        self.views = Views()
        self.clock = Clock()
        self.instance = "1"
        self.opened: list[Channel] = []
        self.membership = Membership(
            me=Member(name=name),
            discovery=discovery or self.views,
            hello=self._hello,
            open_channel=self._channel,
            announce=self._announce,
            clock=self.clock,
            **{"handoff_s": HANDOFF_S, "look_least_s": 0.005, "look_most_s": 0.01, **bounds},
        )
        self.service = Service(
            Address(host=host, port=port), handler=self._answer, hello=self.membership.hello, bounds=STEADY
        )

    @property
    def name(self) -> str:
        return self.membership.me.name

    @property
    def address(self) -> Address:
        return Address(host=self.service.address.host, port=self.service.port)

    @property
    def names(self) -> str:
        """Who makes up its ring."""
        return " ".join(member.name for member in self.membership.ring.members)

    async def ask(self, name: str, kind: int = 0, body: bytes = b"") -> bytes:
        """One call to the member of that name."""
        channel = self.membership.channel(name)
        assert channel is not None
        return await channel.call(Call(kind, body, FAR_S))

    def _hello(self, epoch: bytes, draining: bool) -> Hello:
        return hello(self.name, ring=epoch, draining=draining)

    def _channel(self, name: str, address: Address) -> Channel:
        self.opened.append(Channel(address, node=name, hello=self.membership.hello, bounds=STEADY))
        return self.opened[-1]

    def _announce(self) -> None:
        self.service.announce()

    def _answer(self, call: Call, asker: Asker) -> bytes | Coroutine[Any, Any, bytes]:
        self.membership.mismatch(asker.epoch)
        return answer(call, asker)


@asynccontextmanager
async def attending(name: str, **others: Any) -> AsyncIterator[Attendant]:
    """A node that listens and follows its membership."""
    node = Attendant(name, **others)
    await node.service.start()
    task = asyncio.create_task(node.membership.run())
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=FAR_S)
        await node.service.stop(0.0)
        if task.done() and not task.cancelled():
            task.result()


@asynccontextmanager
async def gathering(*names: str, **others: Any) -> AsyncIterator[list[Attendant]]:
    """Nodes, none of which knows of another."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(attending(name, **others)) for name in names]


def view(*nodes: Attendant) -> Members:
    """The view in which these are there."""
    return {Member(name=node.name): node.address for node in nodes}


def tell(nodes: list[Attendant], view: Members) -> None:
    """Everyone has the same view."""
    for node in nodes:
        node.views.put(view)


def agree(*nodes: Attendant) -> bool:
    """Whether they have one ring, and know it of each other."""
    epochs = {node.membership.epoch for node in nodes}
    described = [node.membership.describe()["disagreeing"] for node in nodes]
    return len(epochs) == 1 and not any(described)
