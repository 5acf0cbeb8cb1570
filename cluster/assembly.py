"""The parts of a node as a process, wired: the node, its doors, its place among others, and what operators see.

Nothing here decides: each part is given what it needs of the others, and is begun, drained and stopped in order.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Final

from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker, CircuitBreakerListener, CircuitBreakerState

from cluster import logs
from cluster.access.guard import Guard
from cluster.asking import show_door
from cluster.config import NodeConfig
from cluster.doors.lines import Lines
from cluster.doors.reads import Reads
from cluster.doors.resp import RespDoor
from cluster.node import Node
from cluster.operations import Operations
from cluster.readiness import Readiness, follows
from cluster.taken import naming
from cluster.tracing.beginning import begin

if TYPE_CHECKING:
    from cluster.doors.grpc import GrpcDoor
    from cluster.doors.grpc.reads import Near
    from cluster.peering.place import Among
    from cluster.tracing.tracing import Tracing

_log: Final = logging.getLogger("snapring")


class Assembly:
    """A node's process by ``config``. ``ready`` is called with the RESP port once all doors are open."""

    def __init__(self, config: NodeConfig, guard: Guard, ready: Callable[[int], None] | None) -> None:
        self._config = config
        self._guard = guard
        self._ready = ready
        self._node = node = Node(config, listeners=[ReachabilityLog()])
        self._traces = traces = begin(config)
        self._place = place = _place(node, guard, self._advertised, traces.tracing)
        self._lines = lines = Lines(config.log, config.caches, logs.events("snapring.requests"))
        self._resp = RespDoor(
            place.reads,
            config.resp,
            guard,
            near=place.near,
            watching=node.watching,
            circle=place.circle,
            lines=lines,
            tracing=traces.tracing,
        )
        self._readiness = Readiness({"feed": follows(node.timeline, node.feed), "ring": place.lost})
        self._grpc = _grpc_door(node, place, self._readiness, guard, lines=lines, tracing=traces.tracing)
        self._operations = Operations(
            node,
            guard=guard,
            readiness=self._readiness,
            resp=self._resp,
            grpc=self._grpc,
            among=None if isinstance(place, Alone) else place,
            describe=lambda: {**place.reads.describe(), **traces.describe()},
            lines=lines,
        )
        self._doors = [door for door in (self._resp, self._grpc) if door is not None]
        self._answers = False
        self._opening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Assembly {self._config.name} answers={self._answers}>"

    def begin(self) -> set[asyncio.Task[None]]:
        """Open the doors and follow the database: the tasks of it, none of which ends but by a defect."""
        self._opening = asyncio.create_task(self._open(), name="opening")
        return {
            self._opening,
            asyncio.create_task(self._node.run(), name="node"),
            asyncio.create_task(self._guard.watch.run(), name="watch"),
            asyncio.create_task(self._place.run(), name="membership"),
            asyncio.create_task(self._operations.run(), name="operations"),
            asyncio.create_task(self._lines.run(self._doors), name="lines"),
        }

    async def drain(self) -> None:
        """Leave the ring, take no more connections, and answer what is under way, by `drain_timeout`."""
        self._readiness.drain()
        if self._opening is not None:
            self._opening.cancel()
        deadline_s = monotonic() + self._config.drain_timeout_s
        await asyncio.gather(self._place.leave(deadline_s), *(door.drain(deadline_s) for door in self._doors))
        await self._place.stop(deadline_s)

    async def stop(self) -> None:
        """Operators get no more answers either. After the tasks have ended."""
        await self._operations.stop()
        await self._traces.stop()

    async def _open(self) -> None:
        """Begin to answer, operators first, then the other nodes, then clients; until cancelled.

        Clients find a node that knows the database: until the first poll, all that it could say of tokens is no.
        Raises `ConfigInvalid` if another program has the port of a door.
        """
        config = self._config
        with naming("http", config.http.host, config.http.port):
            await self._operations.start()
        await self._place.start()
        await self._node.feed.begun()
        with naming("resp", config.resp.host, config.resp.port):
            await self._resp.start()
        if self._grpc is not None:
            with naming("grpc", config.grpc.host, config.grpc.port):
                await self._grpc.start()
        self._opened()
        await asyncio.get_running_loop().create_future()

    def _opened(self) -> None:
        config = self._config
        self._answers = True
        self._place.announce()
        if self._grpc is not None:
            _log.info("node %s answers gRPC on %s:%d", config.name, config.grpc.host, self._grpc.port)
        _log.info("node %s answers RESP on %s:%d", config.name, config.resp.host, self._resp.port)
        if self._ready is not None:
            self._ready(self._resp.port)

    def _advertised(self) -> str:
        """Where peers say that clients find this node; empty as long as they would not.

        Without a host where it listens on every address.
        """
        if not self._answers:
            return ""
        try:
            anywhere = ip_address(self._config.resp.host).is_unspecified
        except ValueError:
            anywhere = False
        return f":{self._resp.port}" if anywhere else show_door(self._config.resp.host, self._resp.port)


class Alone:
    """The place of a node by itself: nobody to find, ask or answer."""

    def __init__(self, node: Node) -> None:
        self.reads: Reads = node
        self.near: Near = node
        self.circle = None

    async def start(self) -> None:
        """Nothing to listen for."""

    def lost(self) -> str:
        """Never: there is no ring."""
        return ""

    def announce(self) -> None:
        """Nobody to tell."""

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.get_running_loop().create_future()

    async def leave(self, deadline_s: float) -> None:
        """Nobody to tell."""

    async def stop(self, deadline_s: float) -> None:
        """Nobody to answer."""


def _grpc_door(
    node: Node,
    place: "Among | Alone",
    readiness: Readiness,
    guard: Guard,
    *,
    lines: Lines,
    tracing: "Tracing | None",
) -> "GrpcDoor | None":
    if node.config.grpc.port is None:
        return None
    _quiet_grpc()
    from cluster.doors.grpc import GrpcDoor  # noqa: PLC0415 -- a node without the door needs no gRPC

    return GrpcDoor(
        place.reads,
        place.near,
        node.watching,
        node.config.grpc,
        readiness,
        guard=guard,
        lines=lines,
        tracing=tracing,
    )


def _quiet_grpc() -> None:
    """gRPC reads it when it is imported; its own complaints repeat what we log of a peer that is away."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _place(node: Node, guard: Guard, door: Callable[[], str], tracing: "Tracing | None") -> "Among | Alone":
    if not node.config.peers.discovery:
        return Alone(node)
    _quiet_grpc()
    from cluster.peering.place import Among  # noqa: PLC0415 -- a node by itself needs no gRPC

    return Among(node, instance=secrets.token_hex(8), door=door, watch=guard.watch, tracing=tracing)


class ReachabilityLog(CircuitBreakerListener):
    """One line in the log each time Postgres is lost or found."""

    def state_change(self, cb: CircuitBreaker, old_state: object, new_state: CircuitBreakerState) -> None:  # noqa: ARG002
        """Called by pybreaker; the half-open moments between are not news."""
        if new_state.name == STATE_OPEN and getattr(old_state, "name", "") == STATE_CLOSED:
            _log.warning("Postgres is out of reach; the breaker is open")
        elif new_state.name == STATE_CLOSED:
            _log.info("Postgres is in reach; the breaker is closed")
