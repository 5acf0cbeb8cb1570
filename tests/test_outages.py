"""Outages from their beginning to their end: what lives on, what is void, and a node that starts in one."""

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

import psycopg
import pytest

from cluster.config import NodeConfig
from cluster.node import Node
from cluster.requests import STRONG, Source, State
from nodes import CACHES, captured, caught_up, config, loads, read, running, until, value_of
from servers import Server
from snapring.errors import TokenForeign, Unavailable


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that this test may stop, kill and pause."""
    with Server() as server:
        yield server


@pytest.fixture
async def url(own: Server) -> str:
    """A database with captured tables on the test's own server; no connection is held to it."""
    url = own.dsn()
    async with captured(url):
        pass
    return url


def patient(url: str, **changes: object) -> NodeConfig:
    """Caches whose entries may be served stale for an hour."""
    caches = tuple(replace(cache, max_staleness_s=0.2, stale_if_error_s=3600.0) for cache in CACHES)
    return config(url, caches, **changes)


async def write(url: str, sql: str) -> None:
    """One statement of a foreign writer, in a connection of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
        await writer.execute(sql.encode())


async def test_a_stale_answer_is_the_old_value_with_its_true_age(own: Server, url: str) -> None:
    """Labelled, from memory, and as old as it says."""
    async with running(patient(url)) as node:
        known = await read(node, "user:7")
        await caught_up(node)
        own.stop()
        await until(lambda: monotonic() > node.fresh_until_s)
        stale = await read(node, "user:7")
        assert (stale.state, stale.source, value_of(stale)) == (State.STALE, Source.LOCAL, value_of(known))
        assert stale.age_s > 0.2
        assert known.as_of.within(stale.as_of)


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_back_it_serves_again_by_itself(own: Server, url: str, how: str) -> None:
    """After a clean restart entries live on; after a crash a new incarnation has voided them."""
    async with running(patient(url)) as node:
        known = await read(node, "user:7")
        token = node.at_least(node.token(known.as_of, known.incarnation))
        await caught_up(node)
        before = node.timeline.incarnation, node.feed.failures
        getattr(own, how)()
        await write(url, "UPDATE users SET name = 'after' WHERE id = 8")
        await until(lambda: node.feed.failures > before[1])
        await until(lambda: node.breaker.closed)
        await caught_up(node)
        assert (node.timeline.incarnation == before[0]) == (how == "restart")
        already = loads(node)
        assert value_of(await read(node, "user:7")) == value_of(known)
        assert value_of(await read(node, "user:8"))["name"] == "after"  # type: ignore[index]
        if how == "restart":
            assert loads(node) == already + 1
            assert (await read(node, "user:7", token)).state is State.FRESH
        else:
            assert loads(node) == already + 2
            with pytest.raises(TokenForeign):
                await read(node, "user:7", token)


async def test_an_acknowledged_commit_lost_in_a_crash_is_forgotten_here_too(own: Server, url: str) -> None:
    """With synchronous_commit=off what was seen may never have been: the crash voids it."""
    own.restart(synchronous_commit="off", wal_writer_delay="10s", fsync="on")
    async with running(patient(url)) as node:
        assert value_of(await read(node, "user:7"))["name"] == "user 7"  # type: ignore[index]
        await write(url, "UPDATE users SET name = 'lost' WHERE id = 7")
        assert value_of(await read(node, "user:7", STRONG))["name"] == "lost"  # type: ignore[index]
        incarnation = node.timeline.incarnation
        own.crash()
        await until(lambda: node.timeline.incarnation != incarnation)
        async with await psycopg.AsyncConnection.connect(url) as witness:
            cursor = await witness.execute("SELECT name FROM users WHERE id = 7")
            (truth,) = await cursor.fetchone() or ("",)
        assert value_of(await read(node, "user:7", STRONG))["name"] == truth  # type: ignore[index]


async def test_a_node_starts_without_postgres_and_serves_when_it_comes(own: Server, url: str) -> None:
    """Unreachable at start is an error per request with the reason, not the end of the node."""
    own.stop()
    node = Node(patient(url))
    task = asyncio.create_task(node.run())
    await until(lambda: node.breaker.state == "open")
    with pytest.raises(Unavailable, match="connection"):
        await read(node, "user:7")
    with pytest.raises(Unavailable, match="not been reached"):
        node.ticket(5)
    own.start()
    await until(lambda: node.breaker.closed)
    assert value_of(await read(node, "user:7")) is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_wrong_credentials_say_so(own: Server, url: str) -> None:
    """The reason that Postgres gave reaches the caller."""
    node = Node(config(own.dsn(user="nobody_of_that_name")))
    task = asyncio.create_task(node.run())
    await until(lambda: node.breaker.state == "open")
    with pytest.raises(Unavailable, match="nobody_of_that_name"):
        await read(node, "user:7")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_database_without_the_schema_says_what_to_run(own: Server) -> None:
    """Forgetting `snapring init` is the likeliest mistake of all."""
    node = Node(config(own.dsn()))
    task = asyncio.create_task(node.run())
    await until(lambda: node.breaker.state == "open")
    with pytest.raises(Unavailable, match="snapring init"):
        await read(node, "user:7")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_killed_backend_is_a_crash_of_the_server(own: Server, url: str) -> None:
    """kill -9 of one backend makes the postmaster start over: a new incarnation."""
    async with running(patient(url)) as node:
        await read(node, "user:7")
        incarnation = node.timeline.incarnation
        async with await psycopg.AsyncConnection.connect(url) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            await until(lambda: node.timeline.incarnation != incarnation)
        assert (await read(node, "user:7", STRONG)).source is Source.LOAD
