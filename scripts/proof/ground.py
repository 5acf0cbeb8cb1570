"""What a proof stands on, and all that a fault may touch: PostgreSQL, the proxy before it, the nodes.

The nodes alone reach PostgreSQL through the proxy; writers and whoever keeps records go straight to `Ground.dsn`,
which is always the present primary's. Everything listens on loopback.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final, Self

import psycopg

from cluster.embedded import EmbeddedPostgres
from scripts.demonstration.programs import ProgramFailed, last_words, running
from scripts.proof.clock import WallClock
from scripts.proof.proxy import HOST, Proxy

DATABASE: Final = "postgres"

_NODE_START_S: Final = 30.0
_ANSWER_S: Final = 60.0
_POLL_S: Final = 0.05
_SETTINGS: Final = {
    "max_connections": "60",
    "max_prepared_transactions": "20",
    "max_wal_size": "1GB",
    "shared_buffers": "64MB",
}


class NodeEnded(ProgramFailed):
    """The node ended before its time, which no fault excuses."""


class NodeProcess:
    """A node under proof, a process of its own that answers RESP on ``port``; its context is its life."""

    def __init__(
        self, command: Sequence[str], port: int, log_file: Path, environment: Mapping[str, str]
    ) -> None:
        self.port = port
        self.log_file = log_file
        self._command = command
        self._environment = environment
        self._lives = contextlib.AsyncExitStack()
        self._killed: asyncio.Event | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.resume()  # SIGTERM must reach it
        await self._lives.aclose()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def start(self) -> None:
        """Begin a life, and wait until it answers. Raises `ProgramFailed`."""
        life = running(*self._command, log_file=self.log_file, env=self._environment)
        self._process = await self._lives.enter_async_context(life)
        await _until_it_answers(self, self._process)
        if self._killed is not None:
            self._killed.set()
            self._killed = None

    async def kill(self) -> None:
        """SIGKILL: nothing is finished or said. `start` is to follow."""
        self._killed = asyncio.Event()
        self._process.kill()
        await self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def outlive(self) -> None:
        """Wait for its end, if it was not killed, and raise `NodeEnded`."""
        while True:
            status = await self._process.wait()
            if self._killed is None:
                raise NodeEnded(f"the node ended with status {status}:\n{last_words(self.log_file)}")
            await self._killed.wait()


@dataclass(slots=True, kw_only=True)
class Ground:
    """Who touches it puts it right again: `answers` must come true after every fault.

    ``generation`` counts the primaries there have been, ``witnesses`` are called by `settled`, ``clock`` is
    the time of day of the node and of PostgreSQL if that can be stepped.
    """

    directory: Path
    server: EmbeddedPostgres
    proxy: Proxy
    nodes: Sequence[NodeProcess]
    secret: bytes
    clock: WallClock | None = None
    generation: int = 0
    witnesses: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

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

    ``node_settings`` are sections of its TOML file by name, ``mutation`` is the guard it runs without.
    The server begins as a copy of ``template``, the directory of one at rest, with xids of ``epoch``;
    ``stepping``: under a clock that can be stepped.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-prove-")))
        clock = WallClock(_open_directory(stack)) if stepping else None
        environment = clock.environment if clock else {}
        settings = {**_SETTINGS, **(server_settings or {})}
        server = EmbeddedPostgres(template=template, settings=settings, environment=environment)
        stack.callback(server.close)
        server.initialise()
        if epoch:
            server.run("pg_resetwal", "-e", str(epoch), "-D", str(server.data_directory))
        server.start()
        await prepare(server.dsn(DATABASE, tcp=True))
        proxy = await stack.enter_async_context(Proxy((HOST, server.port)))
        secret, url = secrets.token_hex(32).encode(), _through(proxy, server)
        sections = _cluster(nodes, url, secret, node_settings)
        started = [
            await stack.enter_async_context(_node(directory / f"node-{n}", each, mutation, environment))
            for n, each in enumerate(sections)
        ]
        ground = Ground(
            directory=directory, server=server, proxy=proxy, nodes=started, secret=secret, clock=clock
        )
        try:
            yield ground
        finally:
            ground.server.close()  # after a promotion it is another one


def _open_directory(stack: contextlib.AsyncExitStack) -> Path:
    """A directory that the account which runs PostgreSQL can reach, too."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-clock-")))
    directory.chmod(0o755)
    return directory


def _through(proxy: Proxy, server: EmbeddedPostgres) -> str:
    return server.dsn(DATABASE, tcp=True).replace(f":{server.port}/", f":{proxy.port}/")


def _cluster(
    count: int, url: str, secret: bytes, settings: Mapping[str, str]
) -> Sequence[tuple[int, Mapping[str, str]]]:
    """For each node the port of its door and its TOML file, by section; ``settings`` add to these."""
    doors, peers = [_free_port() for _ in range(count)], [_free_port() for _ in range(count)]
    form = ",".join(f"node-{n}={HOST}:{port}" for n, port in enumerate(peers))
    nodes = []
    for n, (door, peer) in enumerate(zip(doors, peers, strict=True)):
        sections = {
            "node": f'name = "node-{n}"\nsecrets = ["{secret.decode()}"]',
            "postgres": f'url = "{url}"',
            "resp": f'host = "{HOST}"\nport = {door}',
            "grpc": 'port = "none"',
        }
        if count > 1:
            sections["peers"] = f'discovery = "static:///{form}"\nport = {peer}'
        for name, body in settings.items():
            sections[name] = "\n".join(filter(None, (sections.get(name), body)))
        nodes.append((door, sections))
    return nodes


def _node(
    directory: Path,
    configured: tuple[int, Mapping[str, str]],
    mutation: str | None,
    environment: Mapping[str, str],
) -> NodeProcess:
    port, sections = configured
    directory.mkdir()
    file = directory / "snapring.toml"
    file.touch(mode=0o600)
    file.write_text("".join(f"[{name}]\n{body}\n\n" for name, body in sections.items()))
    command = [sys.executable, "-P", "-m", "scripts.proof.node"]
    command += ["--mutate", mutation] if mutation else []
    return NodeProcess([*command, "--config", str(file)], port, directory / "node.log", environment)


async def _until_it_answers(node: NodeProcess, process: asyncio.subprocess.Process) -> None:
    deadline_s = monotonic() + _NODE_START_S
    while process.returncode is None and monotonic() < deadline_s:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, node.port)
            writer.close()
            return
        await asyncio.sleep(_POLL_S)
    raise ProgramFailed(f"the node does not answer:\n{last_words(node.log_file)}")


async def _writable(dsn: str) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S / 10):
            async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
                found = await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone()
    except (psycopg.Error, TimeoutError):
        return False
    return found == (False,)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
