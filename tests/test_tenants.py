"""Tenants on one node and one database: what is bound to them, and what one of them leaves the others."""

import asyncio
from time import monotonic

import pytest

from cluster.config import AccessConfig, CacheConfig, LoadConfig, TenantConfig, WriteConfig
from cluster.node import Node
from cluster.requests import BOUNDED
from cluster.writes import Deed
from nodes import WITHIN_S, captured, caught_up, config, read, running, until, value_of
from snapring.errors import ArgumentInvalid, CacheUnknown, Overloaded
from snapring.keys import Key, parse

APART = AccessConfig(keys_file="read by doors, not by the node")
MINE = CacheConfig(
    name="mine",
    sql="SELECT $1::text AS tenant, name FROM users WHERE id = $2",
    single=True,
    tenant_argument=True,
)
USER = CacheConfig(name="user", sql="SELECT name FROM users WHERE id = $1", single=True)
PAGES = CacheConfig(name="pages", kind="store")


async def test_the_tenant_is_the_first_argument_and_no_key_says_otherwise(database: str) -> None:
    """The key's arguments begin with the second; an entry of it ends with its row."""
    async with captured(database) as writer, running(config(database, (MINE,))) as node:
        assert value_of(await read(node, "acme/mine:1")) == {"tenant": "acme", "name": "user 1"}
        assert value_of(await read(node, "mine:1")) == {"tenant": "default", "name": "user 1"}
        with pytest.raises(ArgumentInvalid, match=r"takes 1 argument\(s\), the key has 2"):
            await read(node, "acme/mine:zeta:1")
        await writer.execute("UPDATE users SET name = 'new' WHERE id = 1")
        await caught_up(node)
        assert value_of(await read(node, "acme/mine:1")) == {"tenant": "acme", "name": "new"}


async def test_an_unknown_cache_is_told_without_those_of_others(database: str) -> None:
    """Who asks for none that there is, is told of those that his tenant may use."""
    closed = CacheConfig(name="plans", kind="store", tenants=("zeta",))
    async with captured(database), running(config(database, (USER, closed), access=APART)) as node:
        for tenant, known in (("acme", "user"), ("zeta", "plans, user")):
            with pytest.raises(CacheUnknown, match=f"configured: {known}$"):
                await read(node, f"{tenant}/nonsuch:1")


async def test_one_tenants_misses_leave_room_for_anothers(database: str) -> None:
    """Behind a lock one fills its part of the queue and is refused; the other is queued, and answered afterwards."""
    settings = {"access": APART, "load": LoadConfig(queue=8, batch=1, timeout_s=WITHIN_S)}
    async with captured(database) as writer, running(config(database, (USER,), **settings)) as node:
        await read(node, "user:30")
        async with writer.transaction():
            await writer.execute("LOCK TABLE users")
            flood = [asyncio.create_task(read(node, f"flood/user:{number}")) for number in range(1, 21)]
            await until(lambda: any(task.done() for task in flood))
            refused = [task for task in flood if task.done()]
            assert len(refused) >= 10
            with pytest.raises(Overloaded, match="loads of the tenant are waiting"):
                await refused[0]
            calm = [asyncio.create_task(read(node, f"calm/user:{number}")) for number in range(1, 4)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in calm)
        assert [value_of(await task) for task in calm] == [
            {"name": f"user {number}"} for number in range(1, 4)
        ]
        await asyncio.gather(*flood, return_exceptions=True)
        assert set(node.store.tenant_usage()) == {"default", "flood", "calm"}


async def test_one_tenants_writes_leave_room_for_anothers(database: str) -> None:
    """The same of the queue for writes."""
    settings = {"access": APART, "write": WriteConfig(queue=4, connections=1, timeout_s=WITHIN_S)}
    settings |= {"tenants": {"flood": TenantConfig(queue_share=0.25)}}
    async with captured(database) as writer, running(config(database, (PAGES,), **settings)) as node:
        async with writer.transaction():
            await writer.execute("LOCK TABLE snapring.heads")
            first = asyncio.create_task(put(node, "flood/pages:1"))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="1 writes of the tenant are waiting"):
                await put(node, "flood/pages:2")
            calm = asyncio.create_task(put(node, "calm/pages:1"))
            await asyncio.sleep(0)
            assert not calm.done()
        await asyncio.gather(first, calm)
        await put(node, "flood/pages:2")
        assert (await read(node, "calm/pages:1")).value == b"calm/pages:1"


async def put(node: Node, text: str) -> None:
    """Write a key's own text under it."""
    key: Key = parse(text.encode())[0]
    await node.write([Deed(key=key, value=text.encode())], monotonic() + WITHIN_S)


async def test_without_credentials_tenants_share_everything(database: str) -> None:
    """A client that names its tenant itself could name any: nothing is set aside for it."""
    async with captured(database), running(config(database, (USER,))) as node:
        await node.read(parse(b"acme/user:1")[0], BOUNDED, monotonic() + WITHIN_S)
        assert node.store.tenant_usage() == {}
