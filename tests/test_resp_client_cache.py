"""redis-py's own cache before a real node, while a writer changes what it keeps: it never answers what has passed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import redis
from redis.cache import CacheConfig

from cluster.config import CacheConfig as NodeCache
from cluster.config import NodeConfig, WatchConfig
from cluster.doors.resp import RespDoor
from cluster.node import Node
from doors import Client, command, resp_config
from nodes import captured, caught_up, config, running, until

USER = NodeCache(
    name="user",
    sql="SELECT id, name FROM users WHERE id = $1",
    single=True,
    encoding="json",
    max_staleness_s=60.0,
)
PAGES = NodeCache(name="pages", kind="store", max_staleness_s=60.0)
KEYS = [f"user:{number}" for number in range(1, 11)]


@dataclass(frozen=True, slots=True)
class Kept:
    """A node, a client that keeps what it reads, and a writer to the database."""

    node: Node
    door: RespDoor
    client: Any
    writer: psycopg.AsyncConnection

    async def get(self, key: str) -> Any:
        """A value by the client."""
        value = await asyncio.to_thread(self.client.get, key)
        return value if value is None else json.loads(value)["name"]

    async def rename(self, number: int, name: str) -> None:
        """A committed change that the node has seen, and of which every push has left the door."""
        await self.writer.execute("UPDATE users SET name = %s WHERE id = %s", (name, number))
        await caught_up(self.node)
        await until(lambda: not self.door.counts.tracked_keys)

    @property
    def asked(self) -> int:
        """How many commands have reached the door, hits besides."""
        return self.door.counts.commands + self.node.hits


@asynccontextmanager
async def keeping(url: str, **changes: Any) -> AsyncIterator[Kept]:
    """The client before a node on the database at ``url``."""
    async with captured(url) as writer, running(settings(url, **changes)) as node:
        door = RespDoor(node, resp_config(), near=node, watching=node.watching)
        await door.start()
        client = redis.Redis(port=door.port, protocol=3, cache_config=CacheConfig())
        try:
            yield Kept(node, door, client, writer)
        finally:
            client.close()
            await door.drain(0.0)


def settings(url: str, **changes: Any) -> NodeConfig:
    """The node's."""
    return config(url, (USER, PAGES), **changes)


async def test_a_value_is_kept_until_it_changes(database: str) -> None:
    """Between changes nothing is asked of the node; after each the client knows the new value."""
    async with keeping(database) as kept:
        for round_ in range(20):
            assert await kept.get("user:7") == ("user 7" if not round_ else f"name {round_ - 1}")
            asked = kept.asked
            await kept.get("user:7")
            assert kept.asked == asked
            await kept.rename(7, f"name {round_}")


async def test_the_cache_is_exact_under_a_writer(database: str) -> None:
    """Once a change has been pushed nothing from before it is read, however reads and changes cross."""
    async with keeping(database) as kept:
        told = dict.fromkeys(KEYS, 0)
        wrong: list[tuple[str, str, int]] = []
        enough = asyncio.Event()
        reader = asyncio.create_task(read_until(enough, kept, told, wrong))
        with Client(kept.door.port) as probe:
            for words in (("HELLO", "3"), ("CLIENT", "TRACKING", "ON")):
                await asyncio.to_thread(probe.ask, *words)
            for version in range(1, 60):
                key = KEYS[version * 7 % 10]
                await asyncio.to_thread(keeps, probe, key)
                await kept.writer.execute(
                    "UPDATE users SET name = %s WHERE id = %s", (f"v {version}", int(key.partition(":")[2]))
                )
                assert await asyncio.to_thread(probe.reply) == [b"invalidate", [key.encode()]]
                told[key] = version
        enough.set()
        await reader
        assert not wrong
        assert kept.door.counts.invalidations > 60


async def read_until(
    enough: asyncio.Event, kept: Kept, told: dict[str, int], wrong: list[tuple[str, str, int]]
) -> None:
    """Read all keys again and again; what is older than ``told`` when it was asked for is ``wrong``."""
    while not enough.is_set():
        for key in KEYS:
            least = told[key]
            kind, _, version = (await kept.get(key)).partition(" ")
            if (int(version) if kind == "v" else 0) < least:
                wrong.append((key, version, least))


def keeps(probe: Client, key: str) -> None:
    """A tracked client reads ``key``, and need not let go of it at once."""
    while True:
        probe.ask("GET", key)
        probe.send(command("PING"))
        if probe.reply() == b"PONG":
            return
        probe.reply()


async def test_a_client_finds_its_own_writes(database: str) -> None:
    """Whichever of its connections it reads and writes through."""
    async with keeping(database) as kept:
        for version in range(10):
            await asyncio.to_thread(kept.client.set, "pages:home", str(version))
            assert await asyncio.to_thread(kept.client.get, "pages:home") == str(version).encode()
            assert await asyncio.to_thread(kept.client.get, "pages:home") == str(version).encode()
        await asyncio.to_thread(kept.client.delete, "pages:home")
        assert await asyncio.to_thread(kept.client.get, "pages:home") is None


async def test_a_lost_connection_lets_go_of_everything(database: str) -> None:
    """Nothing could be told over it."""
    async with keeping(database) as kept:
        assert await kept.get("user:7") == "user 7"
        for connection in tuple(kept.door._connections):
            connection.abort()
        await kept.rename(7, "another")
        assert await kept.get("user:7") == "another"


@pytest.mark.parametrize("gap", ["skipped", "cleared"])
async def test_a_gap_lets_go_of_everything(database: str, gap: str) -> None:
    """More left than is remembered, or all of it: what is kept may be any of that."""
    async with keeping(database, watch=WatchConfig(log_keys=100)) as kept:
        await kept.get("user:7")
        if gap == "cleared":
            kept.node.store.clear()
        else:
            kept.node.store.remove(b"user:7")
            for number in range(200):
                kept.node.watching.left(b"user:%d" % (100 + number))
        await until(lambda: kept.door.counts.flushes)
        asked = kept.asked
        await kept.get("user:7")
        assert kept.asked > asked


async def test_values_too_old_to_be_answered_are_not_kept(database: str) -> None:
    """Postgres is silent: the node answers nothing from memory, and neither do its clients."""
    async with keeping(database, watch=WatchConfig(heartbeat_s=0.02)) as kept:
        await kept.get("user:7")
        kept.node._shortest_staleness_s = -60.0
        await until(lambda: kept.door.counts.flushes)
        asked = kept.asked
        await kept.get("user:7")
        assert kept.asked > asked
