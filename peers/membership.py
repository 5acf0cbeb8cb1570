"""Who the cluster is, as this node sees it: a generation of ring and channels, swapped whole.

Views of a discovery and the hellos of peers go in; `peers.generation` says what follows. A ring is computed in
a thread while the old one serves, and whatever has come meanwhile goes into one more, however much it was. A
generation is replaced between two steps of the event loop, so nobody sees half of one.

Two nodes may hold different rings for a while: nothing relies on their being equal. Each message carries its
sender's epoch, and where that is another one this node looks at its peers' hellos at once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final

from peers.channel import Channel
from peers.discovery import Discovery
from peers.discovery.last_good import LastGood
from peers.generation import Heard, Outlook
from peers.members import Address, Member, Members
from peers.ring import Ring
from peers.standing import found, is_stranger, standing
from peers.wire import Hello

_log: Final = logging.getLogger("snapring.peers")

_TOLD: Final = 3
"""How many names a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A ring, and a channel by name to everybody else who has an address."""

    ring: Ring
    channels: Mapping[str, Channel]


class Membership:
    """For one event loop: `run` it; all else returns at once. Making one computes a ring of ``me`` alone.

    ``hello`` makes the hello of an epoch and of whether this node drains. ``open_channel`` makes a channel to
    the member of that name, whose hello is `hello`; it is started and closed here. ``announce`` is called when
    `hello` has changed: tell those who ask this node (`Service.announce`).

    ``handoff_rings`` is how many rings of before are kept in mind: fewer than changes come in that time lose some.
    The bounds, in seconds: ``handoff_s`` is how long each of them is, and the way to who has left it. ``look_least_s`` and ``look_most_s`` are the pauses between looks at what is known: the
    least is also how long news is gathered for one ring, the most how late a peer's hello is heeded.
    ``closing_s`` is how long a channel that is needed no more may finish its calls: less than a call may take
    breaks some off.
    """

    def __init__(
        self,
        *,
        me: Member,
        discovery: Discovery,
        hello: Callable[[bytes, bool], Hello],
        open_channel: Callable[[str, Address], Channel],
        handoff_s: float,
        handoff_rings: int = 4,
        announce: Callable[[], None] = lambda: None,
        look_least_s: float = 0.02,
        look_most_s: float = 0.25,
        closing_s: float = 2.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.me = me
        self.draining = False
        self.generation = Generation(ring=Ring.of([me]), channels={})
        self.changes = self.mismatches = 0
        self._discovery = discovery
        self._make_hello = hello
        self._open_channel = open_channel
        self._announce = announce
        self._handoff_s = handoff_s
        self._look_least_s = look_least_s
        self._look_most_s = look_most_s
        self._closing_s = closing_s
        self._clock = clock
        self._view: Members = {}
        self._heard: dict[str, Heard] = {}
        self._strangers: set[str] = set()
        self._stirred = asyncio.Event()
        self._joined = False
        self._settled = asyncio.Event()
        self._unnamed = False
        self._earlier: deque[tuple[Ring, float]] = deque(maxlen=handoff_rings)
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        state = "draining" if self.draining else "member"
        return f"<Membership {self.me.name}: {state}, {self.ring!r} mismatches={self.mismatches}>"

    @property
    def ring(self) -> Ring:
        """Of this node alone until the first view; without those who drain."""
        return self.generation.ring

    @property
    def previous(self) -> tuple[Ring, ...]:
        """The rings before this one, newest first, each for ``handoff_s`` after it was replaced.

        For a node that joins, the others' ring.
        """
        earlier, now = self._earlier, self._clock()
        while earlier and earlier[-1][1] <= now:
            earlier.pop()
        return tuple(ring for ring, _ in earlier) if earlier else ()

    @property
    def epoch(self) -> bytes:
        """What tells one ring from another."""
        return self.ring.hash

    @property
    def found(self) -> LastGood:
        """How the discovery fares."""
        return self._discovery.last

    @property
    def is_settled(self) -> bool:
        """Whether there is a ring of some view."""
        return self._settled.is_set()

    async def settled(self, within_s: float) -> bool:
        """Wait for the ring of the first view, at most ``within_s``: whether it is there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._settled.wait()
        return self._settled.is_set()

    def hello(self) -> Hello:
        """What this node says of itself now."""
        return self._make_hello(self.epoch, self.draining)

    def channel(self, name: str) -> Channel | None:
        """The way to ``name``; None for this node itself, and for whom nobody knows an address."""
        return self.generation.channels.get(name)

    def drain(self) -> None:
        """This node leaves: say so to everybody, and leave its own ring to the others, if there are any."""
        self.draining = True
        self.announce()
        self._stirred.set()

    def announce(self) -> None:
        """What `hello` says has changed: tell everybody."""
        for channel in self.generation.channels.values():
            channel.announce()
        self._announce()

    def mismatch(self, other: bytes) -> None:
        """A peer's message carried the epoch ``other``: count it if it is another, and look soon."""
        if other != self.epoch:
            self.mismatches += 1
            self._stirred.set()

    async def run(self) -> None:
        """Follow views and hellos until cancelled, then close the channels."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="views of the membership")
                group.create_task(self._keep_up(), name="generations")
        finally:
            channels = self.generation.channels
            self.generation = Generation(ring=self.ring, channels={})
            for channel in channels.values():
                self._close(channel)
            if self._closing:
                await asyncio.wait(self._closing)

    def describe(self) -> Mapping[str, object]:
        """For status: the cluster as this node sees it. ``disagreeing`` are the peers that last named another epoch."""
        self._listen()
        hellos = {name: heard.hello for name, heard in self._heard.items()}
        everybody = {member.name: member for member in (self.me, *self.ring.members, *sorted(self._view))}
        hellos[self.me.name] = self.hello()
        return {
            "node": self.me.name,
            "epoch": self.epoch.hex(),
            "draining": self.draining,
            "previous": [ring.hash.hex() for ring in self.previous],
            "changes": self.changes,
            "mismatches": self.mismatches,
            "disagreeing": sorted(name for name, hello in hellos.items() if hello.ring != self.epoch),
            "discovery": found(self.found),
            "members": [
                standing(
                    member,
                    ring=self.ring,
                    channel=self.channel(name),
                    hello=hellos.get(name),
                    own=hellos[self.me.name],
                )
                for name, member in sorted(everybody.items())
            ],
        }

    async def _follow(self) -> None:
        async for view in self._discovery.views():
            self._view = view
            self._look_for_me()
            self._stirred.set()

    async def _keep_up(self) -> None:
        while True:
            self._stirred.clear()
            await self._renew(self._outlook())
            await asyncio.sleep(self._look_least_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_most_s - self._look_least_s):
                    await self._stirred.wait()

    async def _renew(self, outlook: Outlook) -> None:
        """Bring the generation into line with ``outlook``."""
        members, ring = outlook.members(), self.ring
        joins = bool(outlook.view) and not self._joined
        self._joined = self._joined or joins
        if members != frozenset(ring.members):
            ring = await asyncio.to_thread(Ring.of, members)
            before = await self._before(outlook) if joins else self.ring
            if before is not None:
                self._earlier.appendleft((before, self._clock() + self._handoff_s))
        self._swap(ring, outlook)
        if self._joined:
            self._settled.set()

    async def _before(self, outlook: Outlook) -> Ring | None:
        """Whose the slots were until this node came."""
        others = outlook.others()
        return await asyncio.to_thread(Ring.of, others) if others else None

    def _listen(self) -> None:
        for name, channel in self.generation.channels.items():
            if channel.peer is not None:
                self._heard[name] = Heard(hello=channel.peer, address=channel.address)
            self._know_stranger(name, is_stranger(channel))

    def _know_stranger(self, name: str, stranger: bool) -> None:
        """Say once of each peer that it has another secret: what is asked of it comes from Postgres, tokens fail."""
        if stranger and name not in self._strangers:
            _log.warning(
                "%s has none of this node's secrets and is not asked: make node.secrets the same on every node",
                name,
            )
        (self._strangers.add if stranger else self._strangers.discard)(name)

    def _outlook(self) -> Outlook:
        self._listen()
        return Outlook(me=self.me, draining=self.draining, view=self._view, heard=dict(self._heard))

    def _swap(self, ring: Ring, outlook: Outlook) -> None:
        """The one place where the generation changes. Nothing here waits."""
        channels = self.generation.channels
        before = {name: channel.address for name, channel in channels.items()}
        asked = {member.name for ring in self.previous for member in ring.members}
        addresses = outlook.addresses(before=before, asked=asked)
        staying = {name: channel for name, channel in channels.items() if addresses.get(name) == before[name]}
        opened = {name: self._open(name, where) for name, where in addresses.items() if name not in staying}
        changed = ring is not self.ring
        self.generation = Generation(ring=ring, channels={**staying, **opened})
        for name in channels.keys() - staying.keys():
            self._heard.pop(name, None)
            self._close(channels[name])
        if changed:
            self.changes += 1
            _log.info("%s: the ring is now %r", self.me.name, ring)
            self.announce()

    def reopen(self) -> None:
        """Ask everybody through new channels from now on; the old ones close after use."""
        channels = self.generation.channels
        opened = {name: self._open(name, channel.address) for name, channel in channels.items()}
        self.generation = Generation(ring=self.ring, channels=opened)
        for channel in channels.values():
            self._close(channel)

    def _open(self, name: str, address: Address) -> Channel:
        channel = self._open_channel(name, address)
        channel.start()
        return channel

    def _close(self, channel: Channel) -> None:
        task = asyncio.create_task(channel.close(self._closing_s), name=f"closing {channel.node}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _look_for_me(self) -> None:
        """Whom no view names owns nothing in the others' rings, but all the same in its own: say so once."""
        names = sorted(member.name for member in self._view)
        unnamed = self.me.name not in names
        if unnamed and not self._unnamed:
            told = ", ".join(names[:_TOLD])
            _log.warning(
                "%s names %s%s and not this node, %s: it is not asked before it is named; is node.name what it"
                " should be?",
                *(self.found.source, told, ", …" if len(names) > _TOLD else "", self.me.name),
            )
        self._unnamed = unnamed
