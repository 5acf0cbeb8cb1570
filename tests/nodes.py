"""A node under test on a real database: tables under capture, the feed running."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from time import monotonic
from typing import Any

import msgpack
import psycopg

from cluster import capture
from cluster.config import (
    BreakerConfig,
    CacheConfig,
    FeedConfig,
    LoadConfig,
    NodeConfig,
    PostgresConfig,
)
from cluster.node import Node
from cluster.requests import BOUNDED, Consistency, Reply
from snapring.keys import parse

SECRET = b"a secret for tests only"
WITHIN_S = 60.0

SCHEMA = """
CREATE TABLE teams (id int PRIMARY KEY, name text);
CREATE TABLE users (id int PRIMARY KEY, name text, team_id int REFERENCES teams);
INSERT INTO teams SELECT n, 'team ' || n FROM generate_series(1, 3) n;
INSERT INTO users SELECT n, 'user ' || n, 1 + n % 3 FROM generate_series(1, 30) n;
"""


def patient(name: str, sql: str, *, single: bool = False) -> CacheConfig:
    """A cache for which no answer is too old because the machine is busy."""
    return CacheConfig(name=name, sql=sql, single=single, max_staleness_s=WITHIN_S)


CACHES = (
    patient("user", "SELECT id, name, team_id FROM users WHERE id = $1", single=True),
    patient("members", "SELECT id, name FROM users WHERE team_id = $1 ORDER BY id"),
    patient(
        "roster",
        "SELECT u.name, t.name AS team FROM users u JOIN teams t ON t.id = u.team_id WHERE t.id = $1 ORDER BY 1",
    ),
    patient("headcount", "SELECT count(*) AS n FROM users", single=True),
)


def config(url: str, caches: tuple[CacheConfig, ...] = CACHES, **changes: object) -> NodeConfig:
    """A node's configuration with short waits; ``changes`` replace top-level fields."""
    base = NodeConfig(
        name="node-0",
        secrets=(SECRET,),
        postgres=PostgresConfig(url=url, connections=2, statement_timeout_s=WITHIN_S),
        feed=FeedConfig(poll_period_s=0.01),
        load=LoadConfig(timeout_s=WITHIN_S),
        breaker=BreakerConfig(failures=3, reset_s=0.05),
        caches={cache.name: cache for cache in caches},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def captured(url: str, schema: str = SCHEMA) -> AsyncIterator[psycopg.AsyncConnection]:
    """A writer's connection to a database with ``schema``, every table of it under capture."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
        await writer.execute(schema.encode())
        await capture.install(writer)
        tables = await writer.execute(
            "SELECT oid::regclass::text FROM pg_class"
            " WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in await tables.fetchall():
            await capture.track(writer, table)
        yield writer


@contextlib.asynccontextmanager
async def running(config: NodeConfig) -> AsyncIterator[Node]:
    """A node that follows its database; it has seen the present at least once."""
    node = Node(config, random=Random(1))
    task = asyncio.create_task(node.run())
    try:
        await node.feed.until(lambda: node.timeline.watermark is not None, monotonic() + WITHIN_S)
        yield node
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read(node: Node, key: str, consistency: Consistency = BOUNDED) -> Reply:
    """One read with plenty of time."""
    return await node.read(parse(key.encode())[0], consistency, monotonic() + WITHIN_S)


def value_of(reply: Reply) -> object:
    """The value as a client decodes it."""
    return None if reply.value is None else msgpack.unpackb(reply.value)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until ``condition()``."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0)


async def blocked(observer: psycopg.AsyncConnection[Any]) -> None:
    """Return once somebody waits for a lock."""
    async with asyncio.timeout(WITHIN_S):
        while (await (await observer.execute(_WAITING)).fetchone()) == (0,):
            await asyncio.sleep(0)


_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def caught_up(node: Node) -> None:
    """Wait until the node has applied everything committed before this call."""
    assert await node.snapshot(monotonic() + WITHIN_S, strong=True)


def loads(node: Node) -> int:
    """How many queries the node has run for its caches."""
    return node.loader.loads
