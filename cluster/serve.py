"""Run one node as a process: its doors, its feed, its peers, and an orderly end.

SIGTERM and SIGINT drain: the other nodes leave this one out of their rings, no new connections, what is under way
gets an answer or a typed error, then the process ends. If the feed, a door or the membership dies of a defect,
so does the process: a node that no longer follows the database must not linger.
"""

import asyncio
import gc
import logging
import os
import secrets
import signal
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Final

import psycopg
import uvloop
from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker, CircuitBreakerListener, CircuitBreakerState

from cluster import logs
from cluster.access.guard import Guard
from cluster.asking import show_door
from cluster.config import NodeConfig
from cluster.doors.reads import Reads
from cluster.doors.resp import RespDoor
from cluster.node import Node
from cluster.operations import Operations
from cluster.plans import Plans
from cluster.postgres import connect, translate
from cluster.readiness import Readiness, follows
from snapring.errors import CacheRefused, CatalogChanging, ConfigInvalid, SnapringError

if TYPE_CHECKING:
    from cluster.doors.grpc import GrpcDoor
    from cluster.doors.grpc.reads import Near
    from cluster.peering.place import Among

_log: Final = logging.getLogger("snapring")

_GC_THRESHOLDS: Final = (5_000, 10, 2**31 - 1)
_GC_PERIOD_S: Final = 600.0
"""Python's full collections walk every entry (a third of a second for a million) whenever memory has grown
by a quarter. Entries are in no cycles, so young collections stay automatic and full ones come rarely."""


def run(config: NodeConfig, *, ready: Callable[[int], None] | None = None) -> int:
    """Serve until told to stop; the exit code. ``ready`` is called with the RESP port once it listens.

    Raises `ConfigInvalid` if Postgres answers and a cache's SQL cannot be cached exactly.
    """
    logs.begin(config.log, node=config.name)
    gc.set_threshold(*_GC_THRESHOLDS)
    uvloop.run(_serve(config, ready))
    return 0


async def _serve(config: NodeConfig, ready: Callable[[int], None] | None) -> None:
    guard = Guard(config)
    await check_caches(config)
    node = Node(config, listeners=[ReachabilityLog()])
    answers = asyncio.Event()
    place = _place(node, guard, lambda: _advertised(config, door.port) if answers.is_set() else "")
    door = RespDoor(
        place.reads, config.resp, guard, near=place.near, watching=node.watching, circle=place.circle
    )
    readiness = Readiness({"feed": follows(node.timeline, node.feed), "ring": place.lost})
    grpc_door = _grpc_door(node, place, readiness, guard)
    operations = Operations(
        node,
        guard=guard,
        readiness=readiness,
        resp=door,
        grpc=grpc_door,
        among=None if isinstance(place, Alone) else place,
        describe=place.reads.describe,
    )
    stop = _stop_signal()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, guard.watch.stir)
    doors = [each for each in (door, grpc_door) if each is not None]

    def opened() -> None:
        answers.set()
        place.announce()
        if grpc_door is not None:
            _log.info("node %s answers gRPC on %s:%d", config.name, config.grpc.host, grpc_door.port)
        _log.info("node %s answers RESP on %s:%d", config.name, config.resp.host, door.port)
        if ready is not None:
            ready(door.port)

    opening = asyncio.create_task(_open(operations, place, doors, opened), name="opening")
    running = {
        opening,
        asyncio.create_task(node.run(), name="node"),
        asyncio.create_task(guard.watch.run(), name="watch"),
        asyncio.create_task(place.run(), name="membership"),
        asyncio.create_task(operations.run(), name="operations"),
    }
    collecting = asyncio.create_task(_collect_garbage(), name="garbage collection")
    try:
        await _until_told(stop, running)
        readiness.drain()
        opening.cancel()
        _log.info("node %s drains for at most %g s", config.name, config.drain_timeout_s)
        deadline_s = monotonic() + config.drain_timeout_s
        await asyncio.gather(place.leave(deadline_s), *(each.drain(deadline_s) for each in doors))
        await place.stop(deadline_s)
    finally:
        for task in (*running, collecting):
            task.cancel()
        await asyncio.gather(*running, collecting, return_exceptions=True)
        await operations.stop()


async def _open(
    operations: Operations,
    place: "Among | Alone",
    doors: "Sequence[RespDoor | GrpcDoor]",
    opened: Callable[[], None],
) -> None:
    """Begin to answer, operators first, then the other nodes, then clients; until cancelled."""
    await operations.start()
    await place.start()
    for door in doors:
        await door.start()
    opened()
    await asyncio.get_running_loop().create_future()


async def _until_told(stop: asyncio.Event, running: set[asyncio.Task[None]]) -> None:
    """Until ``stop``, or the end of anything that should be ``running``, whose error is raised."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done:
        task.result()


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


def _grpc_door(node: Node, place: "Among | Alone", readiness: Readiness, guard: Guard) -> "GrpcDoor | None":
    if node.config.grpc.port is None:
        return None
    _quiet_grpc()
    from cluster.doors.grpc import GrpcDoor  # noqa: PLC0415 -- a node without the door needs no gRPC

    return GrpcDoor(place.reads, place.near, node.watching, node.config.grpc, readiness, guard=guard)


def _quiet_grpc() -> None:
    """gRPC reads it when it is imported; its own complaints repeat what we log of a peer that is away."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _place(node: Node, guard: Guard, door: Callable[[], str]) -> "Among | Alone":
    if not node.config.peers.discovery:
        return Alone(node)
    _quiet_grpc()
    from cluster.peering.place import Among  # noqa: PLC0415 -- a node by itself needs no gRPC

    return Among(node, instance=secrets.token_hex(8), door=door, watch=guard.watch)


def _advertised(config: NodeConfig, port: int) -> str:
    """Where peers say that clients find this node; without a host where it listens on every address."""
    try:
        anywhere = ip_address(config.resp.host).is_unspecified
    except ValueError:
        anywhere = False
    return f":{port}" if anywhere else show_door(config.resp.host, port)


async def check_caches(config: NodeConfig) -> None:
    """Refuse to start with caches that cannot be exact; every one of them named.

    Where Postgres cannot be reached the node starts all the same, and tries until it can.
    """
    plans = Plans(config.caches)
    try:
        connection = await connect(config.postgres, application_name="snapring start")
    except SnapringError as error:
        _log.warning("%s; the node starts and keeps trying", error)
        return
    async with connection:
        refused = []
        for name in config.caches:
            try:
                async with asyncio.timeout(config.load.timeout_s):
                    await plans.get(name, connection)
            except CacheRefused as refusal:
                refused.append(str(refusal))
            except TimeoutError:
                _log.warning("Postgres does not answer in time; the node starts and keeps trying")
                break
            except CatalogChanging as error:
                _log.warning("%s: the node starts and keeps trying", error)
                break
            except psycopg.Error as error:
                if not translate(error).retryable:
                    raise
                _log.warning("%s; the node starts and keeps trying", translate(error))
                break
    if refused:
        raise ConfigInvalid(refused)


async def _collect_garbage() -> None:
    while True:
        await asyncio.sleep(_GC_PERIOD_S)
        gc.collect()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


class ReachabilityLog(CircuitBreakerListener):
    """One line in the log each time Postgres is lost or found."""

    def state_change(self, cb: CircuitBreaker, old_state: object, new_state: CircuitBreakerState) -> None:  # noqa: ARG002
        """Called by pybreaker; the half-open moments between are not news."""
        if new_state.name == STATE_OPEN and getattr(old_state, "name", "") == STATE_CLOSED:
            _log.warning("Postgres is out of reach; the breaker is open")
        elif new_state.name == STATE_CLOSED:
            _log.info("Postgres is in reach; the breaker is closed")
