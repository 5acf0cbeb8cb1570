"""Sets the stage: a database that pgbench filled, its tables under capture, nodes that follow it."""

import asyncio
import contextlib
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from cluster import local_nodes
from cluster.embedded import EmbeddedPostgres, embedded_bin_dir
from cluster.local_nodes import Running
from scripts.demonstration.history import PREPARE
from scripts.demonstration.programs import SNAPRING, ProgramFailed, last_words, run, running
from scripts.demonstration.resp import Resp
from scripts.demonstration.workload import CACHES, TRACKED
from snapring.errors import SnapringError

HOST: Final = "127.0.0.1"

_TABLES: Final = ("pgbench_accounts", "pgbench_branches", "pgbench_history", "pgbench_tellers")
_SETTINGS: Final = {"track_commit_timestamp": "on", "shared_buffers": "128MB", "max_wal_size": "1GB"}
_NODE_START_S: Final = 20.0
_DRAIN_S: Final = 5.0
_POLL_S: Final = 0.05


class StageTaken(RuntimeError):
    """The database given holds tables of pgbench that the demonstration would have to drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is ready: the database's URL, pgbench's path, the nodes' secret and, for a node by itself, its port."""

    url: str
    pgbench: Path
    directory: Path
    port: int
    secret: str

    @property
    def config_file(self) -> Path:
        """The node's configuration."""
        return self.directory / "snapring.toml"

    @property
    def writers_log(self) -> Path:
        """pgbench's messages."""
        return self.directory / "pgbench.log"

    @property
    def node_log(self) -> Path:
        """The nodes' messages."""
        return self.directory / "node.log"


@contextlib.asynccontextmanager
async def stage(database: str | None, *, scale: int) -> AsyncIterator[Stage]:
    """A filled database under capture: an embedded one, or ``database``, which is left as it was found."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-demo-")))
        if database is None:
            # Starting blocks this loop, on which nothing else runs yet.
            server = stack.enter_context(EmbeddedPostgres(settings=_SETTINGS))
            database = server.dsn()
        ready = Stage(
            url=database,
            pgbench=embedded_bin_dir() / "pgbench",
            directory=directory,
            port=_free_port(),
            secret=secrets.token_hex(32),
        )
        await _refuse_to_overwrite(ready.url)
        try:
            await _fill(ready, scale)
            yield ready
        finally:
            await _clear(ready)


@contextlib.asynccontextmanager
async def node(ready: Stage) -> AsyncIterator[asyncio.subprocess.Process]:
    """A node on the stage, once it answers."""
    _configure(ready)
    command = (*SNAPRING, "node", "--config", str(ready.config_file))
    async with running(*command, log_file=ready.node_log) as process:
        await _until_it_answers(ready, process)
        yield process


@contextlib.asynccontextmanager
async def cluster(ready: Stage, count: int) -> AsyncIterator[Sequence[Running]]:
    """``count`` nodes on the stage, once they have one ring. Raises `ProgramFailed`."""
    _configure(ready)
    with ready.node_log.open("a") as log:

        def tell(line: str) -> None:
            print(line, file=log, flush=True)

        try:
            async with local_nodes.running(
                local_nodes.plan(count, first_port=0),
                words=["--config", str(ready.config_file)],
                environment={},
                drain_timeout_s=_DRAIN_S,
                log=tell,
            ) as nodes:
                yield nodes
        except SnapringError as error:
            raise ProgramFailed(f"{error}\n{last_words(ready.node_log)}") from error


def configuration(ready: Stage) -> str:
    """The node's TOML file: nothing that a user would not write as well."""
    caches = (
        f"[caches.{cache.name}]\nsql = '''{cache.sql}'''\nsingle = {str(cache.single).lower()}\n"
        for cache in CACHES
    )
    head = f"""\
[node]
secrets = ["{ready.secret}"]

[postgres]
url = "{ready.url}"

[resp]
host = "{HOST}"
port = {ready.port}

[grpc]
port = "none"

[http]
port = "none"
"""
    return "\n".join((head, *caches))


def _configure(ready: Stage) -> None:
    ready.config_file.touch(mode=0o600)
    ready.config_file.write_text(configuration(ready))


async def _refuse_to_overwrite(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute(
            "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND pg_table_is_visible(oid)",
            [list(_TABLES)],
        )
        names = sorted(row[0] for row in await found.fetchall())
    if names:
        raise StageTaken(
            f"the database already has {', '.join(names)}: name one without them, or drop them "
            "(a demonstration that was killed leaves them behind)"
        )


async def _fill(ready: Stage, scale: int) -> None:
    await run(str(ready.pgbench), "--initialize", "--quiet", f"--scale={scale}", ready.url)
    async with await psycopg.AsyncConnection.connect(ready.url, autocommit=True) as connection:
        for statement in PREPARE:
            await connection.execute(statement.encode())
    database = ("--postgres.url", ready.url)
    await run(*SNAPRING, "init", *database)
    for table, columns in TRACKED.items():
        await run(*SNAPRING, "track", table, "--columns", ",".join(columns), *database)


async def _clear(ready: Stage) -> None:
    with contextlib.suppress(psycopg.OperationalError):  # the database is gone: nothing is left in it
        async with await psycopg.AsyncConnection.connect(ready.url, autocommit=True) as connection:
            await connection.execute(f"DROP TABLE IF EXISTS {', '.join(_TABLES)}".encode())


async def _until_it_answers(ready: Stage, process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_NODE_START_S):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    await (await Resp.open(HOST, ready.port)).close()
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise ProgramFailed(f"the node does not answer:\n{last_words(ready.node_log)}") from None
    raise ProgramFailed(f"the node ended at once:\n{last_words(ready.node_log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
