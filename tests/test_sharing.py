"""Copies between nodes: a backup that is warm, an owner that need not load what it takes over, hot keys at hand."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic

import psycopg
import pytest

from cluster.config import NodeConfig, PeersConfig
from cluster.node import Node
from cluster.peering.copies import encode_copies
from cluster.peering.messages import definition
from cluster.peering.place import Among
from cluster.peering.sharing import previous_owners
from cluster.requests import BOUNDED, Reply, Source
from gatherings import Views
from nodes import CACHES, WITHIN_S, captured, caught_up, config, running, value_of
from peer_process import STEADY, until
from peers.discovery.forms import parse_members
from peers.errors import MessageInvalid
from peers.members import Address, Member
from peers.ring import Ring
from places import named
from snapring.keys import SLOTS, Key, parse

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
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in taken]
    form = "static:///" + ",".join(f"{named(n)}=127.0.0.1:{port}" for n, port in enumerate(ports))
    peers = [
        PeersConfig(discovery=form, port=port, hop_timeout_s=WITHIN_S, **changes)  # type: ignore[arg-type]
        for port in ports
    ]
    return [config(url, name=named(n), peers=each) for n, each in enumerate(peers)]


async def started(stack: AsyncExitStack, each: NodeConfig, views: Views | None = None) -> Here:
    """A node that runs until the stack ends, or its own ``tasks`` do. Its membership is what ``views`` tells, if any."""
    own = await stack.enter_async_context(AsyncExitStack())
    node = await own.enter_async_context(running(each))
    among = Among(node, instance=each.name, door=lambda: "", bounds=STEADY)
    if views is not None:
        among.membership._discovery = views
    task = asyncio.create_task(among.run())
    await among.start()

    async def end() -> None:
        await among.stop(0.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    own.push_async_callback(end)
    return Here(node, among, own)


def listens(port: int) -> bool:
    """Whether there is somebody at this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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


async def test_what_is_to_be_held_here_is_copied_from_its_owner(database: str) -> None:
    """A read that is near leaves an entry behind, whoever owns the key; it is loaded only if nobody has it."""
    async with cluster(database) as places:
        zero, one, _ = places
        had, had_not = keys_of(zero, named(1), 2, backup=named(2))
        await one.read(had)
        near = [await zero.among.near.read(key, BOUNDED, monotonic() + WITHIN_S) for key in (had, had_not)]
        assert [reply.source for reply in near] == [Source.LOCAL, Source.LOAD]
        assert zero.has(had)
        assert zero.has(had_not)
        assert zero.node.loader.loads == 1


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
        await until(lambda: two.among.membership.previous)
        replies = await asyncio.gather(*(two.read(key) for key in keys * 50))
        assert two.node.loader.loads == 0
        assert len(replies) == 1000
        assert two.among.sharing.fetched == len(keys)


async def test_five_nodes_that_were_three_and_become_two_at_once_stay_warm(database: str) -> None:
    """What moved twice before anybody asked for it is had from who had it first, be there no backup: no load more."""
    async with captured(database), AsyncExitStack() as stack:
        all_five = configs(database, 5, handoff_s=600.0)
        views = [Views() for _ in all_five]
        places: list[Here] = []
        there = parse_members(all_five[0].peers.discovery.removeprefix("static:///").split(","))

        async def become(count: int, told: int) -> None:
            view = {member: where for member, where in there.items() if member.name < named(count)}
            for to in views[:told]:
                to.put(view)
            for each, to in list(zip(all_five, views, strict=True))[len(places) : told]:
                places.append(await started(stack, each, to))
                places[-1].node.on_admitted = lambda _: None
            names = {member.name for member in view}
            rings = [place.among.membership for place in places[:told]]
            await until(lambda: all({one.name for one in each.ring.members} == names for each in rings))
            await until(lambda: all(know(place, names - {place.node.config.name}) for place in places[:told]))

        await become(3, told=3)
        keys = [parse(b"user:%d" % number)[0] for number in range(200)]
        await asyncio.gather(*(places[0].read(key) for key in keys))
        await become(5, told=5)
        await become(2, told=2)
        loads = sum(place.node.loader.loads for place in places)
        await asyncio.gather(*(places[n % 2].read(key) for n, key in enumerate(keys)))
        assert sum(place.node.loader.loads for place in places) == loads == len(keys)


async def test_a_node_answers_nobody_before_it_knows_of_the_others(database: str) -> None:
    """It would load what they have: neither clients nor peers find it until the first view has come."""
    async with captured(database), AsyncExitStack() as stack:
        (mine,) = configs(database, 1)
        views = Views()
        starting = asyncio.create_task(started(stack, mine, views))
        await until(lambda: views._queue._getters)  # type: ignore[attr-defined]
        done, _ = await asyncio.wait((starting,), timeout=0.1)
        assert not done
        assert not listens(mine.peers.port)
        views.put({Member(name=named(0)): Address(host="127.0.0.1", port=mine.peers.port)})
        await starting
        assert listens(mine.peers.port)


async def test_a_node_that_never_learns_of_the_others_answers_after_a_while(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so: they may all be well, and it loads what they have."""
    async with captured(database), AsyncExitStack() as stack:
        (mine,) = configs(database, 1, discovery_wait_s=0.01)
        here = await started(stack, mine, Views())
        assert "node-0 knows of no other node after 0.01 s and answers by itself" in caplog.text
        assert (await here.read(parse(b"user:7")[0])).source is Source.LOAD


async def test_who_had_a_key_is_asked_once_and_the_last_first() -> None:
    """Of the rings in which it was another's: the owner before the backup, never this node itself."""
    rings = [Ring.of(Member(name=name) for name in names) for names in ("ab", "bc", "cd", "a")]
    for slot in range(0, SLOTS, 97):
        names = previous_owners(rings, slot, "a")
        assert len(set(names)) == len(names)
        assert "a" not in names
        mine = rings[0].owner(slot) == "a"
        assert names[0] == (rings[1].owner(slot) if mine else "b")
        assert set(names) == {"b", "c", "d"}


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


async def test_copies_for_a_backup_take_spare_room_and_those_for_an_owner_do_not(database: str) -> None:
    """INFO shows how much."""
    async with cluster(database, 2) as (zero, one):
        keys = keys_of(zero, named(1), 5)
        for key in keys:
            await one.read(key)
        await until(lambda: all(zero.has(key) for key in keys))
        shown = zero.among.reads.describe()["sharing"]
        assert shown["copies_spare"] == len(keys)
        assert shown["copies_spare_bytes"] == zero.node.store.bytes
        copies = [one.among.sharing._copy(one.node.store.index[key.canonical]) for key in keys]
        one.node.store.clear()
        one.among.sharing.keep(encode_copies([copy for copy in copies if copy]))
        assert (len(one.node.store), one.node.store.spare_usage()) == (5, (0, 0))


async def test_a_backup_that_is_away_costs_nobody_an_answer(database: str) -> None:
    """Fills for it are dropped and counted."""
    async with cluster(database, 2) as (zero, one):
        await one.tasks.aclose()
        replies = [await zero.read(key) for key in keys_of(zero, named(0), 5)]
        assert {reply.source for reply in replies} == {Source.LOAD}
        await until(lambda: zero.among.sharing.dropped > 0)
