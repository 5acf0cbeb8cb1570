"""What a proof stands on, and all that a fault may touch: PostgreSQL, the proxy before it, the nodes, their DNS.

The nodes alone reach PostgreSQL through the proxy; writers and whoever keeps records go straight to `Ground.dsn`,
which is always the present primary's. Everything listens on loopback; of several nodes each has an address of its
own there, because all pods of a service answer their peers on one port.
"""

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

import psycopg

from cluster.embedded import EmbeddedPostgres
from scripts.proof.clock import WallClock
from scripts.proof.cluster import following
from scripts.proof.making import Making
from scripts.proof.nodes import NodeProcess
from scripts.proof.ports import free_port
from scripts.proof.proxy import HOST, Proxy
from scripts.proof.together import in_all
from scripts.proof.views import Views, views

DATABASE: Final = "postgres"
SPARE: Final = 2
"""How many nodes there may be beyond those that a proof begins with."""

ELSEWHERE: Final = "127.0.1.1"
"""Where no node is: for a proxy that is taken for one."""

_ANSWER_S: Final = 60.0
_POLL_S: Final = 0.05
_READY_S: Final = 15.0
_LEAVE_S: Final = 0.5
"""From when clients are sent elsewhere to when a node is told to end: what Kubernetes calls a preStop hook."""

_SETTINGS: Final = {
    "max_connections": "100",
    "max_prepared_transactions": "20",
    "max_wal_size": "1GB",
    "shared_buffers": "64MB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """For how long, by the monotonic clock, a fault had ``node`` in its hands."""

    node: str
    began_s: float
    ended_s: float


@dataclass(slots=True, kw_only=True)
class Ground:
    """Who touches it puts it right again: `answers` must come true after every fault.

    ``places`` are all nodes that there may be, ``nodes`` those in service. ``generation`` counts the primaries
    there have been, ``witnesses`` are called by `settled`, ``watchers`` when ``nodes`` has changed; ``spells``
    tell what was done to single nodes. ``clock`` is the time of day of the nodes and of PostgreSQL if that can be
    stepped, ``views`` whom each node sees where there are several.
    """

    directory: Path
    server: EmbeddedPostgres
    proxy: Proxy
    places: Sequence[NodeProcess]
    secret: bytes
    views: Views | None = None
    clock: WallClock | None = None
    generation: int = 0
    nodes: list[NodeProcess] = field(default_factory=list)
    witnesses: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    watchers: list[Callable[[], None]] = field(default_factory=list)
    spells: list[Spell] = field(default_factory=list)

    @property
    def node(self) -> NodeProcess:
        """The first of the nodes."""
        return self.nodes[0]

    def dsn(self) -> str:
        """The present primary's URL, as superuser, without the proxy."""
        return self.server.dsn(DATABASE, tcp=True)

    def promoted(self, server: EmbeddedPostgres) -> None:
        """``server`` is the primary from now on; whoever calls has stopped the one before it."""
        self.server = server
        self.generation += 1
        self.proxy.retarget(HOST, server.port)

    def close(self) -> None:
        """Stop the present primary."""
        self.server.close()

    async def answers(self, within_s: float = _ANSWER_S) -> None:
        """Wait until the primary accepts writes. Raises `TimeoutError`."""
        deadline_s = monotonic() + within_s
        while not await _writable(self.dsn()):
            if monotonic() > deadline_s:
                raise TimeoutError(f"PostgreSQL took no writes within {within_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def settled(self) -> None:
        """Wait until the primary answers, and until every witness has noted its incarnation.

        A fault that makes several incarnations calls this between them: of one that nobody noted, no
        reply can be judged.
        """
        await self.answers()
        for witness in self.witnesses:
            await witness()

    @contextlib.asynccontextmanager
    async def struck(self, rng: Random) -> AsyncIterator[NodeProcess]:
        """Some node in service that no other fault has in its hands; it is in this one's for the context."""
        while True:
            node = rng.choice([node for node in self.nodes if not node.turn.locked()] or self.nodes)
            async with node.turn:
                if node not in self.nodes:
                    continue  # it was drained meanwhile
                began_s = monotonic()
                try:
                    yield node
                finally:
                    self.spells.append(Spell(node=node.name, began_s=began_s, ended_s=monotonic()))
                return

    def name(self, node: NodeProcess) -> None:
        """DNS has ``node`` from now on."""
        if self.views is not None:
            self.views.admit(node.name)

    async def enlist(self, node: NodeProcess) -> None:
        """Start ``node``, name it to the others, and send it clients. Raises `ProgramFailed`.

        Clients come when it follows the database, or has tried for a while.
        """
        await node.start()
        self.name(node)
        await following(node, _READY_S)
        self.nodes[:] = [place for place in self.places if place in (*self.nodes, node)]
        self._tell()

    async def dismiss(self, node: NodeProcess) -> None:
        """Send the clients of ``node`` elsewhere, drain it, and name it no more. Raises `NodeEnded`."""
        async with node.turn:
            self.nodes.remove(node)
            self._tell()
            await asyncio.sleep(_LEAVE_S)
            await node.drain()
        if self.views is not None:
            self.views.dismiss(node.name)

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher()


@contextlib.asynccontextmanager
async def standing(
    *,
    prepare: Callable[[str], Awaitable[None]],
    node_settings: Mapping[str, str],
    server_settings: Mapping[str, str] | None = None,
    template: Path | None = None,
    epoch: int = 0,
    stepping: bool = False,
    mutation: str | None = None,
    nodes: int = 1,
) -> AsyncIterator[Ground]:
    """Ground: a server that ``prepare`` has filled, given its URL; a proxy; ``nodes`` behind it that answer.

    ``node_settings`` are sections of their TOML file by name, ``mutation`` is the guard they run without.
    The server begins as a copy of ``template``, the directory of one at rest, with xids of ``epoch``;
    ``stepping``: under a clock that can be stepped. Raises `ProgramFailed`, `EmbeddedUnavailable`.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-prove-")))
        clock = WallClock(_open_directory(stack)) if stepping else None
        environment = clock.environment if clock else {}
        settings = {**_SETTINGS, **(server_settings or {})}
        server = EmbeddedPostgres(template=template, settings=settings, environment=environment)
        stack.callback(server.close)
        _start(server, epoch)
        await prepare(server.dsn(DATABASE, tcp=True))
        proxy = await stack.enter_async_context(Proxy((HOST, server.port), port=free_port(HOST)))
        secret, seen = secrets.token_hex(32).encode(), await _views(stack, nodes)
        making = Making(
            directory=directory,
            url=_through(proxy, server),
            secret=secret.decode(),
            views=seen,
            settings=node_settings,
            mutation=mutation,
            environment=environment,
        )
        names = seen.addresses if seen else ("node-0",)
        ground = Ground(
            directory=directory,
            server=server,
            proxy=proxy,
            places=[await stack.enter_async_context(making.node(name)) for name in names],
            secret=secret,
            views=seen,
            clock=clock,
        )
        stack.callback(ground.close)
        await _serve(ground, nodes)
        yield ground


def _start(server: EmbeddedPostgres, epoch: int) -> None:
    """Start ``server`` for the first time, its xids of ``epoch``."""
    server.initialise()
    if epoch:
        server.run("pg_resetwal", "-e", str(epoch), "-D", str(server.data_directory))
    server.start()


async def _views(stack: contextlib.AsyncExitStack, nodes: int) -> Views | None:
    """What each of ``nodes`` and of those that may join sees of the others; None for one by itself."""
    if nodes == 1:
        return None
    addresses = {f"node-{n}": f"127.0.0.{n + 1}" for n in range(nodes + SPARE)}
    return await stack.enter_async_context(views(addresses, free_port(*addresses.values(), ELSEWHERE)))


async def _serve(ground: Ground, nodes: int) -> None:
    """Put the first ``nodes`` into service, all at once."""
    places = ground.places[:nodes]
    for place in places:
        ground.name(place)  # before they start: each waits until it knows of others
    await in_all(ground.enlist(place) for place in places)


def _open_directory(stack: contextlib.AsyncExitStack) -> Path:
    """A directory that the account which runs PostgreSQL can reach, too."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-clock-")))
    directory.chmod(0o755)
    return directory


def _through(proxy: Proxy, server: EmbeddedPostgres) -> str:
    return server.dsn(DATABASE, tcp=True).replace(f":{server.port}/", f":{proxy.port}/")


async def _writable(dsn: str) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S / 10):
            async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
                found = await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone()
    except (psycopg.Error, TimeoutError):
        return False
    return found == (False,)
