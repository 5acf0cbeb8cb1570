"""Copies between nodes: a backup that is warm, an owner that need not load what it takes over, hot keys at hand."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic

import psycopg
import pytest

from cluster.config import NodeConfig, PeersConfig
from cluster.node import Node
from cluster.peering.copies import encode_copies
from cluster.peering.messages import definition
from cluster.peering.place import Among
from cluster.requests import BOUNDED, Reply, Source
from nodes import CACHES, WITHIN_S, captured, caught_up, config, running, value_of
from peer_process import QUICK, until
from peers.errors import MessageInvalid
from places import named
from snapring.keys import Key, parse

USER = next(cache for cache in CACHES if cache.name == "user")


@dataclass(slots=True)
class Here:
    """A node of a cluster in this process."""

    node: Node
    among: Among
    tasks: AsyncExitStack

    async def read(self, key: Key) -> Reply:
        """A read by a client of this node."""
        return await self.among.reads.read(key, BOUNDED, monotonic() + WITHIN_S)

    def has(self, key: Key) -> bool:
        """Whether the node has an open entry."""
        return self.node.peek(key) is not None


def configs(url: str, count: int, **changes: float) -> list[NodeConfig]:
    """Nodes that find each other on free ports."""
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        taken = (first, second, third)[:count]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in taken]
    form = "static:///" + ",".join(f"{named(n)}=127.0.0.1:{port}" for n, port in enumerate(ports))
    peers = [
        PeersConfig(discovery=form, port=port, hop_timeout_s=WITHIN_S, **changes)  # type: ignore[arg-type]
        for port in ports
    ]
    return [config(url, name=named(n), peers=each) for n, each in enumerate(peers)]


async def started(stack: AsyncExitStack, each: NodeConfig) -> Here:
    """A node that runs until the stack ends, or its own ``tasks`` do."""
    own = await stack.enter_async_context(AsyncExitStack())
    node = await own.enter_async_context(running(each))
    among = Among(node, instance=each.name, door=lambda: "", bounds=QUICK)
    await among.start()
    task = asyncio.create_task(among.run())

    async def end() -> None:
        await among.stop(0.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    own.push_async_callback(end)
    return Here(node, among, own)


def know(place: Here, names: set[str]) -> bool:
    """Whether the node is connected to all of ``names`` and has a ring of all."""
    channels = place.among.membership.generation.channels
    return all(channels[name].peer is not None for name in names if name in channels) and len(
        channels
    ) >= len(names)


@asynccontextmanager
async def cluster(url: str, count: int = 3) -> AsyncIterator[list[Here]]:
    """``count`` nodes that have met."""
    async with captured(url), AsyncExitStack() as stack:
        places = [await started(stack, each) for each in configs(url, count)]
        await met(places)
        yield places


async def met(places: Sequence[Here]) -> None:
    """Return once each is connected to each and all have one ring."""
    names = {place.node.config.name for place in places}
    for place in places:
        others = names - {place.node.config.name}
        await until(lambda place=place, others=others: know(place, others))
    await until(lambda: len({place.among.membership.epoch for place in places}) == 1)


def keys_of(place: Here, owner: str, count: int, backup: str | None = None) -> list[Key]:
    """Keys that ``owner`` owns and ``backup`` backs up."""
    ring, found = place.among.membership.ring, []
    for number in range(1, 5000):
        key = parse(b"user:%d" % number)[0]
        if ring.owner(key.slot) == owner and backup in (None, ring.backup(key.slot)):
            found.append(key)
        if len(found) == count:
            return found
    raise LookupError(owner)


async def test_the_loss_of_an_owner_finds_a_warm_backup(database: str) -> None:
    """What it had loaded is answered without a load."""
    async with cluster(database) as places:
        zero, one, two = places
        keys = keys_of(zero, named(1), 20, backup=named(2))
        before = [value_of(await zero.read(key)) for key in keys]
        await until(lambda: all(two.has(key) for key in keys))
        await one.tasks.aclose()
        replies = [await zero.read(key) for key in keys]
        assert {reply.source for reply in replies} == {Source.BACKUP}
        assert [value_of(reply) for reply in replies] == before
        assert (zero.node.loader.loads, two.node.loader.loads) == (0, 0)


async def test_a_copy_follows_the_database_like_any_entry(database: str) -> None:
    """A change ends it where it is, whoever loaded it."""
    async with cluster(database) as places:
        zero, _, two = places
        (key,) = keys_of(zero, named(1), 1, backup=named(2))
        await zero.read(key)
        await until(lambda: two.has(key))
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as db:
            number = key.args[0]
            await db.execute(
                "INSERT INTO users (id, name) VALUES (%s, 'new') ON CONFLICT (id) DO UPDATE SET name = 'new'",
                (number,),
            )
        await caught_up(two.node)
        assert not two.has(key)


async def test_a_copy_that_comes_late_is_not_taken(database: str) -> None:
    """What it says has changed since: the receiver's own log knows."""
    async with cluster(database, 2) as (zero, one):
        (key,) = keys_of(zero, named(1), 1)
        await one.read(key)
        await until(lambda: zero.has(key))
        late = encode_copies(
            [one.among.sharing._copy(one.node.store.index[key.canonical]) or pytest.fail("it has none")]
        )
        zero.node.store.clear()
        assert zero.among.sharing.keep(late) == b""
        assert zero.has(key), "in time"
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as db:
            await db.execute("DELETE FROM users WHERE id = %s", (key.args[0],))
            await db.execute("INSERT INTO users (id, name) VALUES (%s, 'new')", (key.args[0],))
        await caught_up(zero.node)
        zero.among.sharing.keep(late)
        assert not zero.has(key)


@pytest.mark.parametrize("rubbish", [b"", b"\x90", encode_copies([])[:-1] + b"\xff"])
async def test_rubbish_from_a_peer_is_a_typed_error(database: str, rubbish: bytes) -> None:
    """And changes nothing."""
    async with cluster(database, 1) as (zero,):
        with pytest.raises(MessageInvalid):
            zero.among.sharing.keep(rubbish)
        assert len(zero.node.store) == 0


async def test_who_leaves_hands_over_what_it_has(database: str) -> None:
    """The others load nothing of it."""
    async with cluster(database) as places:
        zero, one, two = places
        keys = keys_of(zero, named(1), 50)
        for key in keys:
            await one.read(key)
        await one.among.leave(monotonic() + WITHIN_S)
        await one.tasks.aclose()
        for key in keys:
            await zero.read(key)
        assert (zero.node.loader.loads, two.node.loader.loads) == (0, 0)
        assert one.among.sharing.handed_over > 0


async def test_who_joins_asks_for_what_the_others_have(database: str) -> None:
    """Before it loads: what moves to it is not loaded again, if asked for a thousand times at once."""
    async with captured(database), AsyncExitStack() as stack:
        all_three = configs(database, 3)
        zero, one = [await started(stack, each) for each in all_three[:2]]
        await met([zero, one])
        keys = keys_of(zero, named(2), 20)
        for key in keys:
            await zero.read(key)
        two = await started(stack, all_three[2])
        await met([zero, one, two])
        await until(lambda: two.among.membership.previous is not None)
        replies = await asyncio.gather(*(two.read(key) for key in keys * 50))
        assert two.node.loader.loads == 0
        assert len(replies) == 1000
        assert two.among.sharing.fetched == len(keys)


async def test_what_is_forwarded_often_is_soon_at_hand(database: str) -> None:
    """And exact: it is told of changes like the owner's."""
    async with cluster(database, 2) as (zero, _):
        (key,) = keys_of(zero, named(1), 1)
        while not zero.has(key):
            assert (await zero.read(key)).source in (Source.PEER, Source.LOCAL)
        assert (await zero.read(key)).source is Source.LOCAL
        assert zero.node.loader.loads == 0
        assert zero.among.reads.forwarded < 100


async def test_a_cache_that_means_something_else_is_not_shared(database: str) -> None:
    """While a new configuration is rolled out, neither side takes the other's entries."""
    async with captured(database), AsyncExitStack() as stack:
        first, second = configs(database, 2)
        other = replace(USER, max_rows=USER.max_rows + 1)
        assert definition(other) != definition(USER)
        caches = {**second.caches, "user": other}
        zero, one = await started(stack, first), await started(stack, replace(second, caches=caches))
        await met([zero, one])
        key = keys_of(zero, named(0), 1)[0]
        await zero.read(key)
        await until(lambda: zero.among.sharing.filled > 0)
        assert not one.has(key)
        assert one.among.sharing.kept == 0


@pytest.mark.parametrize("count", [1, 3])
async def test_a_cold_key_asked_everywhere_at_once_is_loaded_once(database: str, count: int) -> None:
    """A thousand times, through all nodes."""
    async with cluster(database, count) as places:
        key = parse(b"user:7")[0]
        await asyncio.gather(*(places[n % count].read(key) for n in range(1000)))
        assert sum(place.node.loader.loads for place in places) == 1


async def test_a_backup_that_is_away_costs_nobody_an_answer(database: str) -> None:
    """Fills for it are dropped and counted."""
    async with cluster(database, 2) as (zero, one):
        await one.tasks.aclose()
        replies = [await zero.read(key) for key in keys_of(zero, named(0), 5)]
        assert {reply.source for reply in replies} == {Source.LOAD}
        await until(lambda: zero.among.sharing.dropped > 0)
