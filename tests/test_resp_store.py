"""Redis clients on the store caches of a real node: what they wrote they read, in order, exactly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import psycopg
import pytest
import redis.asyncio

from cluster.config import CacheConfig, FeedConfig
from cluster.doors.resp import RespDoor
from cluster.node import Node
from doors import resp_config
from nodes import CACHES, WITHIN_S, captured, config, running, until
from servers import Server

SETTINGS = CacheConfig(name="settings", kind="store", max_staleness_s=10.0)
SLOW = FeedConfig(poll_period_s=2.0)
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'snapring%'"
VERSIONS = """
SELECT convert_from(value, 'UTF8')::int
  FROM (SELECT number, value FROM snapring.history UNION ALL SELECT 2^62, value FROM snapring.heads) AS v
 ORDER BY number
"""
Database = psycopg.AsyncConnection
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3])


@asynccontextmanager
async def serving(url: str, feed: FeedConfig | None = None) -> AsyncIterator[tuple[Node, RespDoor]]:
    """A node with a store cache behind a door."""
    settings = config(url, (*CACHES, SETTINGS))
    async with captured(url), running(replace(settings, feed=feed or settings.feed)) as node:
        door = RespDoor(node, resp_config())
        await door.start()
        yield node, door
        await door.drain(0.0)


@asynccontextmanager
async def connected(door: RespDoor, **options: object) -> AsyncIterator[redis.asyncio.Redis]:
    """A Redis client with one connection."""
    settings: dict[str, Any] = {"port": door.port, "single_connection_client": True, **options}
    async with redis.asyncio.Redis(**settings) as client:
        yield client


@PROTOCOLS
async def test_redis_py_writes_and_reads(database: str, protocol: int) -> None:
    """The everyday commands mean what they mean in Redis."""
    async with serving(database) as (_, door), connected(door, protocol=protocol) as client:
        assert await client.set("settings:a", b"\x00\xff") is True
        assert await client.get("settings:a") == b"\x00\xff"
        assert await client.set("settings:a", "other", nx=True) is None
        assert await client.setnx("settings:b", "b")
        assert await client.mset({"settings:c": "c", "acme/settings:a": "acme"})
        assert await client.mget("settings:b", "settings:c", "settings:d") == [b"b", b"c", None]
        assert await client.delete("settings:a", "settings:b", "settings:d") == 2
        assert await client.get("settings:a") is None
        assert await client.get("acme/settings:a") == b"acme"
        with pytest.raises(redis.ResponseError, match="SET has no option 'EX'"):
            await client.set("settings:a", "x", ex=5)
        with pytest.raises(redis.ResponseError, match="READ_ONLY"):
            await client.delete("user:1")


@pytest.mark.parametrize("feed", [None, SLOW], ids=["quick feed", "slow feed"])
async def test_a_pipeline_takes_effect_in_its_order(database: str, feed: FeedConfig | None) -> None:
    """Each read sees exactly the writes before it, also while the feed sleeps between them."""
    async with serving(database, feed) as (_, door), connected(door) as client:
        pipeline = client.pipeline(transaction=False)
        for n in range(30):
            pipeline.set("settings:a", n).get("settings:a").get("settings:b").set("settings:b", n)
            pipeline.mget("settings:a", "settings:b").delete("settings:a").get("settings:a")
        replies = await pipeline.execute()
    for n in range(30):
        a, before = b"%d" % n, b"%d" % (n - 1) if n else None
        assert replies[7 * n : 7 * n + 7] == [True, a, before, True, [a, a], 1, None]


async def test_what_memory_held_before_a_write_is_not_read_after_it(database: str) -> None:
    """The entry is FRESH for everyone else, while this connection already demands more."""
    async with serving(database, SLOW) as (node, door), connected(door) as client:
        await client.set("settings:a", "old")
        async with connected(door) as other:
            assert await other.get("settings:a") == b"old"
            hits = node.hits
            assert await other.get("settings:a") == b"old"
            assert node.hits > hits
        await client.set("settings:a", "new")
        assert await client.get("settings:a") == b"new"


async def test_a_version_read_is_the_one_to_demand(database: str) -> None:
    """Read, decide, write if nobody did meanwhile: as many increments as callers, none lost."""

    async def increment(door: RespDoor) -> None:
        async with connected(door, protocol=3) as client:
            while True:
                full = await client.execute_command("SNAP.GET", "settings:n")
                value = int(full[b"value"] or 0) + 1
                try:
                    await client.execute_command(
                        "SNAP.PUT", "settings:n", value, "IFVERSION", full[b"version"]
                    )
                except redis.ResponseError as refusal:
                    assert str(refusal).startswith("VERSION_MISMATCH")  # the loop goes on
                else:
                    return

    async with serving(database) as (_, door):
        await asyncio.gather(*(increment(door) for _ in range(12)))
        async with connected(door) as client:
            token = await client.execute_command("SNAP.TOKEN", "STRONG")
            assert await client.get(f"{{settings:n}}@{token.decode()}") == b"12"


async def test_a_ticket_lets_another_connection_read_the_write(database: str) -> None:
    """What SNAP.PUT, SNAP.DEL and SNAP.WRITE return."""
    async with (
        serving(database, SLOW) as (_, door),
        connected(door, protocol=3) as one,
        connected(door, protocol=3) as two,
    ):
        put = await one.execute_command("SNAP.PUT", "settings:a", "1", "settings:b", "1")
        assert await two.get(f"{{settings:b}}@{put[b'token'].decode()}") == b"1"
        both = await one.execute_command(
            "SNAP.WRITE", "PUT", "settings:a", "2", "IFVERSION", put[b"version"], "DEL", "settings:b"
        )
        at = ("ATLEAST", both[b"token"])
        full = await two.execute_command("SNAP.GET", "settings:a", *at)
        assert (full[b"value"], full[b"version"]) == (b"2", both[b"version"])
        gone = await two.execute_command("SNAP.GET", "settings:b", *at)
        assert (gone[b"value"], gone[b"version"]) == (None, 0)
        deleted = await one.execute_command("SNAP.DEL", "settings:a", "IFVERSION", both[b"version"])
        assert deleted[b"version"] == 0
        assert await two.get(f"{{settings:a}}@{deleted[b'token'].decode()}") is None


async def test_pages_of_a_listing_are_of_one_snapshot(database: str) -> None:
    """What is written between two pages is in neither."""
    async with serving(database) as (_, door), connected(door, protocol=3) as client:
        await client.mset({f"settings:{n:02}": "v" for n in range(10)})
        page = await client.execute_command("SNAP.KEYS", "settings:", "COUNT", 4)
        found = [key for key, _ in page[b"keys"]]
        await client.delete("settings:07")
        await client.set("settings:075", "new")
        rest = await client.execute_command(
            "SNAP.KEYS", "settings:", "AFTER", found[-1], "EXACT", page[b"as_of"]
        )
        found += [key for key, _ in rest[b"keys"]]
        assert found == [b"settings:%02d" % n for n in range(10)]


async def test_a_write_that_makes_no_sense_names_the_setting(database: str) -> None:
    """Too large, twice the same key, no argument: refused, and nothing is there."""
    async with serving(database) as (node, door), connected(door) as client:
        for words, code in (
            (
                ("SET", "settings:a", b"x" * (node.config.write.max_value_bytes + 1)),
                "VALUE_INVALID",
            ),
            (("SNAP.PUT", "settings:a", "1", "settings:a", "2"), "VALUE_INVALID"),
            (("DEL", *(f"settings:{n}" for n in range(node.config.write.max_keys + 1))), "VALUE_INVALID"),
            (("SET", "settings", "1"), "ARGUMENT_INVALID"),
        ):
            with pytest.raises(redis.ResponseError, match=code):
                await client.execute_command(*words)
        assert await client.get("settings:a") is None


async def test_a_lost_database_is_never_ok(database: str) -> None:
    """Every backend of the node is ended again and again: an OK is in the database, and in its order."""
    told: list[int] = []

    async def write(door: RespDoor) -> None:
        async with connected(door) as client, asyncio.timeout(WITHIN_S):
            for n in count():
                try:
                    await client.set("settings:a", n)
                except redis.ResponseError as failure:
                    assert str(failure).startswith(("WRITE_UNCERTAIN", "UNAVAILABLE"))
                else:
                    told.append(n)

    async with serving(database) as (_, door), await Database.connect(database, autocommit=True) as other:
        writing = asyncio.create_task(write(door))
        for enough in range(10, 100, 10):
            await until(lambda enough=enough: len(told) > enough or writing.done())
            await other.execute(END)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        cursor = await other.execute(VERSIONS)
        there = [n for (n,) in await cursor.fetchall()]
    assert len(told) > 90
    assert there == sorted(set(there))
    assert set(told) <= set(there)


async def test_after_a_crash_a_connection_is_told_once_and_reads_its_write() -> None:
    """The ticket is of an incarnation that has gone; the write, which was committed, has not."""
    with Server() as server:
        async with serving(server.dsn(), SLOW) as (_, door), connected(door) as client:
            await client.set("settings:a", "old")
            assert await client.get("settings:a") == b"old"
            await client.set("settings:a", "new")
            await asyncio.to_thread(server.crash)
            heard = []
            async with asyncio.timeout(WITHIN_S):
                while b"new" not in heard:
                    try:
                        heard.append(await client.get("settings:a"))
                    except redis.ResponseError as failure:
                        heard.append(str(failure).split()[0])
    assert set(heard) <= {"UNAVAILABLE", "TOKEN_FOREIGN", b"new"}
    assert heard.count("TOKEN_FOREIGN") == 1
