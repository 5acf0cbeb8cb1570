"""The connection that a command works through."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cluster.commands.run import Run
from cluster.config import NodeConfig, PostgresConfig
from cluster.settings import dsn
from snapring.errors import Unavailable

Connection = AsyncConnection[TupleRow]


def with_database(run: Run, work: Callable[[Connection, NodeConfig], Awaitable[int]]) -> int:
    """Do ``work`` through a connection to the configured database; its exit code."""
    config = run.settings().config

    async def working() -> int:
        async with connected(config.postgres) as connection:
            return await work(connection, config)

    return asyncio.run(working())


@asynccontextmanager
async def connected(config: PostgresConfig) -> AsyncIterator[Connection]:
    """A connection in autocommit, closed afterwards. Raises `Unavailable`, saying where and why not."""
    try:
        async with asyncio.timeout(config.connect_timeout_s):
            connection = await AsyncConnection.connect(
                config.url, autocommit=True, application_name="snapring command"
            )
    except TimeoutError as error:
        raise _unreachable(config, f"no answer within {config.connect_timeout_s:g} s") from error
    except psycopg.Error as error:
        raise _unreachable(config, " ".join(str(error).split())) from error
    async with connection:
        yield connection


def _unreachable(config: PostgresConfig, why: str) -> Unavailable:
    return Unavailable(f"cannot connect to {dsn.redact(config.url)}: {why}")
