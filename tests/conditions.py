"""The conditions that a database can be in, brought about on a real server; a node reaches it through a proxy."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Final

import psycopg

from cluster.config import FeedConfig, LoadConfig, NodeConfig, PostgresConfig
from cluster.processes import live_processes
from nodes import CACHES, SCHEMA, WITHIN_S, captured, config
from scripts.benchmarks.turnstile import Turnstile
from scripts.proof.proxy import HOST
from servers import Server

SLOTS: Final = 8
"""How many connections the server has."""
LOADERS: Final = 2
"""How many connections the node's loads may hold."""
KEYS: Final = 1000
DELAY_S: Final = 0.11
BOUND_S: Final = 0.2
"""What an impatient cache allows, and more than a round trip of a delayed connection takes."""
FAR_S: Final = 3600.0

LASTING: Final = replace(CACHES[0], name="lasting", max_staleness_s=FAR_S)
STRICT: Final = replace(CACHES[0], name="strict", max_staleness_s=BOUND_S)
PATIENT: Final = replace(STRICT, name="patient", stale_if_error_s=FAR_S)
ELSEWHERE: Final = replace(
    LASTING, name="elsewhere", sql="SELECT id, name FROM teams WHERE id = $1"
)  # a table that nobody locks


_CACHES: Final = (LASTING, STRICT, PATIENT, ELSEWHERE)


class Line(Turnstile):
    """The node's way to Postgres."""

    def forget(self) -> None:
        """What a firewall does that lost its state: connections stay open, and nothing comes through any more."""
        for link in self._links:
            for pipe in link._pipes.values():
                pipe.lossy = True

    @property
    def loaders(self) -> int:
        """How many connections are open that load."""
        return self.names.count("snapring loader")


@dataclass(frozen=True, slots=True)
class Ground:
    """A server that a test may mistreat, and the proxy through which the node, and it alone, reaches it."""

    server: Server
    line: Line

    @property
    def url(self) -> str:
        """Straight to the server."""
        return self.server.dsn()

    @property
    def nodes_url(self) -> str:
        """Through the proxy."""
        return self.server.dsn(tcp=True).replace(f":{self.server.port}/", f":{self.line.port}/")

    def config(self, **changes: object) -> NodeConfig:
        """A node with caches of each kind of patience, and little patience of its own with Postgres."""
        postgres = PostgresConfig(
            url=self.nodes_url, connections=LOADERS, connect_timeout_s=0.3, statement_timeout_s=0.3
        )
        hasty = {
            "feed": FeedConfig(poll_period_s=0.01, poll_timeout_s=0.4),
            "load": LoadConfig(timeout_s=1.0),
            "token_wait_s": 0.1,
        }
        return config(self.nodes_url, _CACHES, postgres=postgres, **{**hasty, **changes})

    def patient(self) -> NodeConfig:
        """A node that waits for Postgres as long as it takes."""
        return config(
            self.nodes_url,
            _CACHES,
            postgres=PostgresConfig(
                url=self.nodes_url, connections=LOADERS, connect_timeout_s=FAR_S, statement_timeout_s=FAR_S
            ),
            feed=FeedConfig(poll_period_s=0.01, poll_timeout_s=FAR_S),
            load=LoadConfig(timeout_s=FAR_S),
        )


_ATTEMPTS: Final = 10
_MUCH_TO_REPLAY: Final = """
SELECT pg_logical_emit_message(false, '', repeat('-', 1000)) FROM generate_series(1, 40000)
"""

Condition = Callable[[Ground], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def ground(server: Server) -> AsyncIterator[Ground]:
    """Captured tables with `KEYS` users on ``server``, whose connections are counted."""
    more = f"INSERT INTO users SELECT n, 'user ' || n FROM generate_series(31, {KEYS}) n;"
    async with captured(server.dsn(), SCHEMA + more):
        pass
    async with Line((HOST, server.port)) as line:
        yield Ground(server, line)


@asynccontextmanager
async def in_reach(_: Ground) -> AsyncIterator[None]:
    """Nothing is the matter."""
    yield


@asynccontextmanager
async def down(ground: Ground) -> AsyncIterator[None]:
    """The server is stopped, its port closed."""
    ground.server.stop()
    yield
    ground.server.start()


@asynccontextmanager
async def recovering(ground: Ground) -> AsyncIterator[None]:
    """The server crashed and is back, but its crash recovery takes its time: SQLSTATE 57P03 for everyone."""
    server = ground.server
    for _ in range(_ATTEMPTS):  # until one is stopped in the middle
        server.execute(_MUCH_TO_REPLAY)
        server.kill9()
        server._server = server._launch()
        startup = _startup_process(server.pid)
        os.kill(startup, signal.SIGSTOP)
        try:
            if await _sqlstate(ground.url) == "57P03":
                yield
                break
        finally:
            os.kill(startup, signal.SIGCONT)
    else:
        raise AssertionError("every recovery was over before it could be held")
    assert server._wait_until_ready(), server.log


@asynccontextmanager
async def standby(ground: Ground) -> AsyncIterator[None]:
    """The server answers queries, but it is a standby now, whose snapshots tell nothing."""
    ground.server.stop()
    mark = ground.server.data / "standby.signal"
    mark.touch()
    mark.chmod(0o644)
    ground.server.start()
    yield
    ground.server.stop()
    mark.unlink()
    ground.server.start()


@asynccontextmanager
async def refused_by_hba(ground: Ground) -> AsyncIterator[None]:
    """pg_hba.conf turns everyone away who comes over TCP."""
    file = ground.server.data / "pg_hba.conf"
    rules = file.read_text()
    file.write_text(f"host all all 127.0.0.1/32 reject\n{rules}")
    await run(ground.url, "SELECT pg_reload_conf()")
    await _until_sqlstate(ground.server.dsn(tcp=True), "28000")
    ground.line.cut()
    yield
    file.write_text(rules)
    await run(ground.url, "SELECT pg_reload_conf()")


@asynccontextmanager
async def refused_by_the_database(ground: Ground) -> AsyncIterator[None]:
    """ALLOW_CONNECTIONS is false."""
    other = ground.server.dsn("template1")
    await run(other, "ALTER DATABASE postgres ALLOW_CONNECTIONS false")
    ground.line.cut()
    yield
    await run(other, "ALTER DATABASE postgres ALLOW_CONNECTIONS true")


@asynccontextmanager
async def exhausted(ground: Ground) -> AsyncIterator[None]:
    """Others hold every connection that the server has."""
    ground.line.refuse()
    hogs: list[psycopg.AsyncConnection] = []
    try:
        while len(hogs) < SLOTS:
            with suppress(psycopg.OperationalError):  # the node's backends take a moment to go
                hogs.append(await psycopg.AsyncConnection.connect(ground.url))
        await ground.line.flow()
        yield
    finally:
        for hog in hogs:
            await hog.close()


@asynccontextmanager
async def silent(ground: Ground) -> AsyncIterator[None]:
    """Connections stay open, new ones are accepted, and nothing answers."""
    ground.line.black_hole()
    yield
    await ground.line.flow()


@asynccontextmanager
async def locked(ground: Ground) -> AsyncIterator[None]:
    """Someone holds a lock on a table that shuts every reader out."""
    async with await psycopg.AsyncConnection.connect(ground.url) as owner:
        await owner.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        yield
        await owner.rollback()


@asynccontextmanager
async def slow(ground: Ground) -> AsyncIterator[None]:
    """A round trip takes longer than the impatient caches allow an answer to be old."""
    ground.line.delay(DELAY_S)
    yield
    await ground.line.flow()


def _startup_process(postmaster: int) -> int:
    """The process that recovers, as soon as there is one."""
    give_up_s = monotonic() + WITHIN_S
    while monotonic() < give_up_s:
        for pid, parent in live_processes():
            if parent == postmaster and b"startup" in _title(pid):
                return pid
    raise AssertionError("the server does not recover")


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


async def run(url: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement.encode())


async def _sqlstate(url: str) -> str | None:
    """What a new connection is refused with; None where it is welcome."""
    try:
        await (await psycopg.AsyncConnection.connect(url)).close()
    except psycopg.OperationalError as error:
        return error.sqlstate or _said(str(error))
    return None


def _said(message: str) -> str:
    """libpq reports no SQLSTATE of a refused connection."""
    for words, state in _REFUSALS.items():
        if words in message:
            return state
    return message


_REFUSALS: Final = {
    "starting up": "57P03",
    "not yet accepting": "57P03",
    "in recovery mode": "57P03",
    "pg_hba.conf rejects": "28000",
}


async def _until_sqlstate(url: str, state: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await _sqlstate(url) != state:
            await asyncio.sleep(0.01)
