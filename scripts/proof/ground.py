"""What a proof stands on, and all that a fault may touch: PostgreSQL, the proxy before it, the node.

The node alone reaches PostgreSQL through the proxy; writers and whoever keeps records go straight to `Ground.dsn`,
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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

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
    """The node under proof, a process of its own that answers RESP on ``port``."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log_file: Path) -> None:
        self._process = process
        self.port = port
        self.log_file = log_file

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def outlive(self) -> None:
        """Wait for its end, and raise `NodeEnded`."""
        status = await self._process.wait()
        raise NodeEnded(f"the node ended with status {status}:\n{last_words(self.log_file)}")


@dataclass(slots=True, kw_only=True)
class Ground:
    """Who touches it puts it right again: `answers` must come true after every fault.

    ``generation`` counts the primaries there have been, ``witnesses`` are called by `settled`, ``clock`` is
    the time of day of the node and of PostgreSQL if that can be stepped.
    """

    directory: Path
    server: EmbeddedPostgres
    proxy: Proxy
    node: NodeProcess
    secret: bytes
    clock: WallClock | None = None
    generation: int = 0
    witnesses: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

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
) -> AsyncIterator[Ground]:
    """Ground: a server that ``prepare`` has filled, given its URL; a proxy; a node behind it that answers.

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
        secret, port = secrets.token_hex(32).encode(), _free_port()
        file = _configure(directory, _through(proxy, server), secret, port, node_settings)
        node = await stack.enter_async_context(_node(file, port, mutation, environment))
        ground = Ground(
            directory=directory, server=server, proxy=proxy, node=node, secret=secret, clock=clock
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


def _configure(directory: Path, url: str, secret: bytes, port: int, settings: Mapping[str, str]) -> Path:
    """The node's TOML file; each of ``settings`` is the body of a section."""
    sections = {
        "node": f'secrets = ["{secret.decode()}"]',
        "postgres": f'url = "{url}"',
        "resp": f'host = "{HOST}"\nport = {port}',
    }
    for name, body in settings.items():
        sections[name] = "\n".join(filter(None, (sections.get(name), body)))
    file = directory / "snapring.toml"
    file.touch(mode=0o600)
    file.write_text("".join(f"[{name}]\n{body}\n\n" for name, body in sections.items()))
    return file


@contextlib.asynccontextmanager
async def _node(
    file: Path, port: int, mutation: str | None, environment: Mapping[str, str]
) -> AsyncIterator[NodeProcess]:
    log_file = file.with_name("node.log")
    command = [sys.executable, "-P", "-m", "scripts.proof.node"]
    command += ["--mutate", mutation] if mutation else []
    command += ["--config", str(file)]
    async with running(*command, log_file=log_file, env=environment) as process:
        node = NodeProcess(process, port, log_file)
        await _until_it_answers(node, process)
        try:
            yield node
        finally:
            with contextlib.suppress(ProcessLookupError):
                node.resume()  # SIGTERM must reach it


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
