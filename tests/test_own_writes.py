"""A connection reads its own writes, also once the node has followed them: nothing older is shown any more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from cluster.config import CacheConfig, FeedConfig
from cluster.doors.resp import RespDoor
from cluster.node import Node
from cluster.pipeline import Segment
from cluster.postgres import Connection
from doors import resp_config
from nodes import CACHES, captured, caught_up, config, running, until
from servers import Server

SETTINGS = CacheConfig(name="settings", kind="store", max_staleness_s=10.0)
LENIENT = CacheConfig(name="lenient", kind="store", max_staleness_s=0.002, stale_if_error_s=300.0)


@asynccontextmanager
async def opened(
    url: str, poll_period_s: float = 0.01
) -> AsyncIterator[tuple[Node, redis.asyncio.Redis, redis.asyncio.Redis]]:
    """A node and two clients, each of one connection."""
    feed = FeedConfig(poll_period_s=poll_period_s)
    async with captured(url), running(config(url, (*CACHES, SETTINGS, LENIENT), feed=feed)) as node:
        door = RespDoor(node, resp_config())
        await door.start()
        clients = [redis.asyncio.Redis(port=door.port, single_connection_client=True) for _ in range(2)]
        async with clients[0] as one, clients[1] as other:
            yield node, one, other
        await door.drain(0.0)


async def test_a_flight_from_before_the_write_does_not_answer_the_writer(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's load was under way when the connection wrote: its own read waits for a later one."""
    arrived, release, slow = asyncio.Event(), asyncio.Event(), [True]
    round_trip = Connection.round_trip

    async def late(self: Connection, segments: Sequence[Segment]) -> object:
        mine, slow[0] = slow[0], False
        brought = await round_trip(self, segments)
        if mine:
            arrived.set()
            await release.wait()
        return brought

    async with opened(database) as (node, one, other):
        monkeypatch.setattr(Connection, "round_trip", late)
        first = asyncio.create_task(other.get("settings:a"))
        await arrived.wait()
        assert await one.set("settings:a", "mine")
        await caught_up(node)
        await one.get("headcount")
        joined = node.flights.joined
        own = asyncio.create_task(one.get("settings:a"))
        await until(lambda: node.flights.joined > joined)
        release.set()
        await first
        assert await own == b"mine"


async def test_a_connection_sees_what_its_write_was_refused_for(database: str) -> None:
    """The node has not followed the other's write when the refusal comes."""
    async with opened(database, poll_period_s=60.0) as (_, one, other):
        assert await one.get("settings:lock") is None
        assert await other.setnx("settings:lock", "theirs")
        assert not await one.setnx("settings:lock", "mine")
        assert await one.get("settings:lock") == b"theirs"
        assert await other.delete("settings:lock")
        with pytest.raises(redis.ResponseError, match="VERSION_MISMATCH settings:lock is not there"):
            await one.execute_command("SNAP.PUT", "settings:lock", "mine", "IFVERSION", 7)
        assert await one.get("settings:lock") is None


@pytest.mark.parametrize("cache", ["settings", "lenient"])
async def test_an_outage_does_not_bring_back_what_was_overwritten(cache: str) -> None:
    """What memory still has of before the connection's own write is no answer to it, not even a stale one."""
    with Server() as server:
        async with opened(server.dsn()) as (node, one, _):
            await one.set(f"{cache}:a", "old")
            assert await one.get(f"{cache}:a") == b"old"
            assert await one.set(f"{cache}:a", "mine")
            await caught_up(node)
            await one.get("headcount")
            await asyncio.to_thread(server.kill9)
            await until(lambda: not node.breaker.closed)
            with pytest.raises(redis.ResponseError, match="UNAVAILABLE"):
                await one.get(f"{cache}:a")
