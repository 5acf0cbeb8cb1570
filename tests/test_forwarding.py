"""Reads of keys that another node owns: who answers, and what happens when the owner cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import monotonic

import psycopg
import pytest

from cluster.config import CacheConfig, PeersConfig
from cluster.doors.resp import RespDoor
from cluster.requests import BOUNDED, STRONG, AtLeast, Consistency, Exactly, Source, State
from cluster.tokens import Ticket
from cluster.writes import Deed
from doors import Client, resp_config
from node_process import NodeProcess
from nodes import CACHES, WITHIN_S, captured, caught_up, read, until, value_of
from peer_process import QUICK, STEADY
from places import FAR, Place, configs, members, named, owned
from servers import Server
from snapring.errors import ArgumentInvalid, CacheUnknown, QueryFailed, SnapringError, TokenAhead, TooManyRows
from snapring.keys import parse

SETTINGS = CacheConfig(name="settings", kind="store")
BAD = (
    CacheConfig(name="ratio", sql="SELECT 1 / (id - $1::int) AS n FROM users WHERE id = 7"),
    CacheConfig(name="many", sql="SELECT id FROM users WHERE id <> $1", max_rows=3),
)
SHORT = PeersConfig(hop_timeout_s=1.0)


@pytest.fixture
async def pair(database: str) -> AsyncIterator[list[Place]]:
    """Two nodes on one database."""
    async with captured(database), members(configs(database, 2)) as places:
        yield places


@pytest.fixture
async def three(database: str) -> AsyncIterator[list[Place]]:
    """Three nodes on one database."""
    async with captured(database), members(configs(database, 3)) as places:
        yield places


@asynccontextmanager
async def processes(
    url: str, peers: PeersConfig = FAR, clock: Callable[[], float] = monotonic, hasty: Collection[str] = ()
) -> AsyncIterator[tuple[Place, list[NodeProcess]]]:
    """A node here and two in processes of their own."""
    async with captured(url), AsyncExitStack() as stack:
        others = [stack.enter_context(NodeProcess(named(number), url)) for number in (1, 2)]
        there = {other.name: other.address for other in others}
        places = await stack.enter_async_context(
            members(configs(url, 1), others=there, peers=peers, clock=clock, hasty=hasty)
        )
        yield places[0], others


async def written(url: str, sql: str) -> int:
    """One statement in a transaction of its own; its xid."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(sql.encode())
        cursor = await connection.execute("SELECT pg_current_xact_id()::text")
        (xid,) = await cursor.fetchone() or ("0",)
    return int(xid)


async def test_a_key_of_another_node_is_loaded_there_and_only_there(pair: list[Place]) -> None:
    """The owner loads once, whoever is asked; the reply says where it came from."""
    here, there = pair
    key = owned(here, there.name)
    first, second, at_owner = await here.read(key), await here.read(key), await there.read(key)
    assert [first.source, second.source, at_owner.source] == [Source.PEER, Source.PEER, Source.LOCAL]
    assert value_of(first) == value_of(second) == value_of(at_owner) is not None
    assert (here.loads, there.loads) == (0, 1)


async def test_no_row_is_an_answer_like_any_other(pair: list[Place]) -> None:
    """It travels as such, and is kept by the owner."""
    here, there = pair
    key = owned(here, there.name, first=1000)
    first, second = await here.read(key), await here.read(key)
    assert first.value is second.value is None
    assert (first.source, here.loads, there.loads) == (Source.PEER, 0, 1)


async def test_a_key_of_its_own_goes_to_nobody(pair: list[Place]) -> None:
    """The owner loads by itself."""
    here, there = pair
    assert (await here.read(owned(here, here.name))).source is Source.LOAD
    assert (here.reads.forwarded, there.loads) == (0, 0)


async def test_memory_here_answers_before_the_owner(pair: list[Place]) -> None:
    """An entry is exact wherever it is."""
    here, there = pair
    key = owned(here, there.name)
    await read(here.node, key)
    assert (await here.read(key)).source is Source.LOCAL
    assert (here.reads.forwarded, there.loads) == (0, 0)


@pytest.mark.parametrize("asked", ["bounded", "strong", "at least", "at least a snapshot", "exactly"])
async def test_every_consistency_is_had_through_another_node(
    pair: list[Place], database: str, asked: str
) -> None:
    """After a write, each sees what it must."""
    here, there = pair
    key = owned(here, there.name)
    number = key.split(":")[1]
    before = await here.read(key)
    await written(database, f"UPDATE users SET name = 'first' WHERE id = {number}")
    xid = await written(database, f"UPDATE users SET name = 'new' WHERE id = {number}")
    at = AtLeast(Ticket(xid), before.incarnation)
    newer = await read(here.node, owned(here, here.name), at)
    consistency: Consistency = {
        "bounded": BOUNDED,
        "strong": STRONG,
        "at least": at,
        "at least a snapshot": AtLeast(newer.as_of, newer.incarnation),
        "exactly": Exactly(before.as_of, before.incarnation),
    }[asked]
    reply = await here.read(key, consistency)
    names = {"exactly": {f"user {number}"}, "bounded": {f"user {number}", "first", "new"}}
    assert value_of(reply)["name"] in names.get(asked, {"new"})  # type: ignore[index]
    assert (reply.source, reply.state, here.reads.unfit, here.reads.fallbacks) == (
        Source.PEER, State.FRESH, 0, 0,
    )  # fmt: skip


async def test_a_thousand_questions_about_one_cold_key_are_one_load(three: list[Place]) -> None:
    """Asked at once through all nodes."""
    key = owned(three[0], named(1))
    replies = await asyncio.gather(*(three[n % 3].read(key) for n in range(1000)))
    assert len({reply.value for reply in replies}) == 1
    assert [place.loads for place in three] == [0, 1, 0]


@pytest.mark.parametrize(
    ("key", "error"),
    [("ratio:7", QueryFailed), ("many:0", TooManyRows), ("user:1:2", ArgumentInvalid)],
)
async def test_an_error_about_the_request_is_the_answer(
    database: str, key: str, error: type[SnapringError]
) -> None:
    """The owner's verdict is raised as it is; nobody else is asked."""
    async with captured(database), members(configs(database, 3, caches=(*CACHES, *BAD))) as places:
        here = next(place for place in places if place.owner(key) != place.name)
        with pytest.raises(error):
            await here.read(key)
        owner = next(place for place in places if place.owner(key) == place.name)
        assert (here.reads.hops_failed, here.reads.fallbacks, here.loads) == (0, 0, 0)
        assert sum(place.loads + place.node.loader.failures for place in places if place is not owner) == 0


async def test_a_token_ahead_of_the_database_is_the_owners_to_refuse(pair: list[Place]) -> None:
    """No other node could know better: there is one database."""
    here, there = pair
    key = owned(here, there.name)
    future = AtLeast(Ticket(10**9), (await here.read(key)).incarnation)
    with pytest.raises(TokenAhead):
        await here.read(key, future)
    assert (here.reads.fallbacks, here.loads) == (0, 0)


async def test_an_unknown_cache_is_refused_here(pair: list[Place]) -> None:
    """Nobody is asked."""
    with pytest.raises(CacheUnknown):
        await pair[0].read("nothing:1")
    assert pair[0].reads.forwarded == 0


@pytest.mark.parametrize("their_sql", ["SELECT 'else' AS name FROM users WHERE id = $1", None])
async def test_a_cache_that_is_another_at_the_owner_is_read_here(
    database: str, their_sql: str | None
) -> None:
    """Between two configurations, each node answers by its own."""
    mine, theirs = configs(database, 2)
    user = replace(CACHES[0], sql=their_sql) if their_sql else replace(CACHES[0], name="person")
    theirs = replace(theirs, caches=_named(user))
    async with captured(database), members([mine, theirs]) as (here, there):
        reply = await here.read(owned(here, there.name))
        assert (reply.source, value_of(reply)["id"] is not None) == (Source.LOAD, True)  # type: ignore[index]
        assert (there.answers.differing, there.loads, here.reads.fallbacks) == (1, 0, 1)


async def test_a_question_that_came_from_a_peer_goes_to_no_other(pair: list[Place]) -> None:
    """Where two rings disagree, each naming the other node, whoever is asked answers."""
    here, there = pair
    mine, theirs = here.membership.generation, there.membership.generation
    here.membership.generation = replace(mine, ring=replace(mine.ring, owners=(there.name,) * 16384))
    wrong = replace(theirs.ring, owners=(here.name,) * 16384, hash=b"another")
    there.membership.generation = replace(theirs, ring=wrong)
    assert (await here.read("user:7")).source is Source.PEER
    assert (there.reads.forwarded, here.loads, there.loads) == (0, 0, 1)
    assert there.membership.mismatches == 1


async def test_a_killed_owner_is_replaced_by_its_backup_and_then_by_this_node(database: str) -> None:
    """The values are right all along."""
    async with processes(database) as (here, (first, second)):
        key = owned(here, first.name, second.name)
        known = value_of(await here.read(key))
        first.kill9()
        backed = await here.read(key)
        second.kill9()
        alone = await here.read(key)
        assert known == value_of(backed) == value_of(alone) is not None
        assert (backed.source, alone.source) == (Source.BACKUP, Source.LOAD)


async def test_many_reads_under_way_survive_the_owners_death(database: str) -> None:
    """Each gets its answer from somewhere else."""
    async with processes(database) as (here, (first, _)):
        keys = [f"user:{n}" for n in range(1, 31) if here.owner(f"user:{n}") == first.name]
        first.pause()
        reads = [asyncio.create_task(here.read(key)) for key in keys]
        await until(lambda: here.membership.channel(first.name)._outbox.under_way == len(keys))  # type: ignore[union-attr]
        first.kill9()
        replies = await asyncio.gather(*reads)
        assert [f"user:{value_of(reply)['id']}" for reply in replies] == keys  # type: ignore[index]


async def test_a_paused_owner_costs_one_hop_and_no_answer(database: str) -> None:
    """The backup answers, and again the owner once it goes on."""
    async with processes(database, SHORT, hasty={named(1)}) as (here, (first, second)):
        key = owned(here, first.name, second.name)
        first.pause()
        assert (await here.read(key)).source is Source.BACKUP
        first.resume()
        async with asyncio.timeout(WITHIN_S):
            while (await here.read(key)).source is not Source.PEER:
                await asyncio.sleep(0.01)


async def test_a_paused_owner_is_asked_no_more_until_it_goes_on(database: str) -> None:
    """Its breaker opens: requests do not wait for it; a probe finds it when it is back."""
    now_s = [monotonic()]
    async with processes(database, SHORT, lambda: now_s[0], {named(1)}) as (here, (first, _)):
        breakers = here.reads.breakers
        keys = [key for key in map("user:{}".format, range(1, 400)) if here.owner(key) == first.name]
        first.pause()
        for key in keys[:10]:
            assert (await here.read(key)).source is not Source.PEER
        assert (breakers.states(), breakers.skipped > 0) == ({first.name: "open"}, True)
        failed = here.reads.hops_failed
        for key in keys[10:20]:
            await here.read(key)
        assert here.reads.hops_failed == failed
        first.resume()
        async with asyncio.timeout(WITHIN_S):
            while (await here.read(keys[20])).source is not Source.PEER:
                now_s[0] += SHORT.hop_timeout_s
                await asyncio.sleep(0.01)
        assert breakers.states() == {first.name: "closed"}


async def test_an_owner_that_alone_lost_postgres_is_replaced_by_its_backup(three: list[Place]) -> None:
    """Which loads once for all; the owner has no share of its keys to fail."""
    here, owner, backup = three
    key = owned(here, owner.name, backup.name)
    owner.node.breaker._open(monotonic() + WITHIN_S)
    replies = await asyncio.gather(*(here.read(key) for _ in range(20)))
    assert {reply.source for reply in replies} == {Source.BACKUP}
    assert [place.loads for place in three] == [0, 0, 1]


async def test_a_query_that_takes_longer_than_a_hop_is_run_once(database: str) -> None:
    """By its owner: neither the backup nor this node runs it as well."""
    async with captured(database) as writer, members(configs(database, 3), bounds=QUICK) as places:
        here, owner, backup = places
        key = owned(here, owner.name, backup.name)
        channel = here.membership.channel(owner.name)
        assert channel is not None
        async with writer.transaction():
            await writer.execute("LOCK TABLE users")
            before = channel.traffic.batches
            reading = asyncio.create_task(here.read(key))
            await until(lambda: channel.traffic.batches > before + 2)
            assert not reading.done()
        assert (await reading).source is Source.PEER
        assert [place.loads for place in places] == [0, 1, 0]


async def test_an_owner_that_stops_is_replaced_by_its_backup(three: list[Place]) -> None:
    """It refuses to answer; that is no answer."""
    here, owner, backup = three
    key = owned(here, owner.name, backup.name)
    owner.node._stopping = True
    reply = await here.read(key)
    assert (reply.source, here.reads.hops_failed) == (Source.BACKUP, 1)
    assert [place.loads for place in three] == [0, 0, 1]


async def test_an_owner_that_is_overloaded_is_replaced_by_its_backup(three: list[Place]) -> None:
    """Its queue is full; the backup's is not."""
    here, owner, backup = three
    key = owned(here, owner.name, backup.name)
    owner.node.loader._config = replace(owner.node.loader._config, queue=0)
    assert (await here.read(key)).source is Source.BACKUP


async def test_a_node_asks_nobody_behind_itself(three: list[Place]) -> None:
    """The backup of a silent owner loads by itself."""
    backup, owner, third = three
    key = owned(backup, owner.name, backup.name)
    await owner.service.stop(0.0)
    assert (await backup.read(key)).source is Source.LOAD
    assert third.loads == 0


async def test_a_value_too_large_to_travel_is_loaded_here(database: str) -> None:
    """The backup could not send it either, and is not asked."""
    small = replace(STEADY, max_body_bytes=512)
    big = "UPDATE users SET name = repeat('x', 1000)"
    async with captured(database) as writer, members(configs(database, 3), bounds=small) as places:
        await writer.execute(big)
        here = places[0]
        reply = await here.read(owned(here, named(1), named(2)))
        assert (reply.source, here.reads.fallbacks) == (Source.LOAD, 1)
        assert [place.loads for place in places] == [1, 1, 0]


async def test_an_old_entry_of_the_owners_is_passed_on_as_stale(server: Server) -> None:
    """While Postgres is away, with the age it has."""
    caches = (replace(CACHES[0], max_staleness_s=0.05, stale_if_error_s=WITHIN_S),)
    with Server() as own:
        own.execute("CREATE DATABASE mine")
        url = own.dsn("mine")
        async with captured(url), members(configs(url, 2, caches=caches)) as (here, there):
            key = owned(here, there.name)
            known = await here.read(key)
            tallies = here.node.store.tallies
            before = tallies.total("owner_stale")
            own.kill9()
            since_s = monotonic()
            await until(lambda: monotonic() > since_s + 0.1)
            reply = await here.read(key)
            assert (reply.state, reply.source, reply.value) == (State.STALE, Source.PEER, known.value)
            assert reply.age_s > 0.05
            assert (tallies.total("owner_stale"), tallies.total("backup_stale")) == (before + 1, 0)


async def test_a_connection_reads_its_own_write_whoever_owns_the_key(database: str) -> None:
    """Through the door of a node that owns none of it."""
    caches = (*CACHES, SETTINGS)
    async with captured(database), members(configs(database, 2, caches=caches)) as (here, there):
        key = owned(here, there.name, cache="settings")
        async with door(here) as port:
            for value in (b"one", b"two"):
                asked = await asyncio.to_thread(ask, port, ("SET", key, value), ("GET", key))
                assert asked == [b"OK", value]
        assert (here.reads.fallbacks, here.loads, there.loads > 0) == (0, 0, True)


async def test_a_store_key_at_an_old_snapshot_comes_from_the_database(database: str) -> None:
    """Which is as near from here as from the owner."""
    caches = (*CACHES, SETTINGS)
    async with captured(database), members(configs(database, 2, caches=caches)) as (here, there):
        key = parse(owned(here, there.name, cache="settings").encode())[0]
        first = await here.reads.write([Deed(key=key, value=b"one")], monotonic() + WITHIN_S)
        old = await here.read(str(key), AtLeast(Ticket(first.xid), first.incarnation))
        await here.reads.write([Deed(key=key, value=b"two")], monotonic() + WITHIN_S)
        asked = here.reads.forwarded
        reply = await here.read(str(key), Exactly(old.as_of, old.incarnation))
        assert (reply.value, here.reads.forwarded) == (b"one", asked)


async def test_the_door_shows_who_answered(pair: list[Place]) -> None:
    """SNAP.GET names a peer, and INFO counts it."""
    here, there = pair
    key = owned(here, there.name)
    async with door(here) as port:
        full, info = await asyncio.to_thread(ask, port, ("SNAP.GET", key), ("INFO", "forwarding"))
    assert b"peer" in full  # type: ignore[operator]
    assert b"owner_answers:1\r\n" in info  # type: ignore[operator]


async def test_hits_at_the_door_are_counted_by_the_node(pair: list[Place]) -> None:
    """The door's hit path goes by the node's own memory and its freshness."""
    here, _ = pair
    key = owned(here, here.name)
    await here.read(key)
    await caught_up(here.node)
    async with door(here) as port:
        before = here.node.hits
        await asyncio.to_thread(ask, port, ("GET", key), ("GET", key))
    assert here.node.hits == before + 2


@asynccontextmanager
async def door(place: Place) -> AsyncIterator[int]:
    """The RESP door of a node; its port."""
    made = RespDoor(place.reads, resp_config())
    await made.start()
    try:
        yield made.port
    finally:
        await made.drain(monotonic())


def ask(port: int, *commands: tuple[bytes | str, ...]) -> list[object]:
    """The replies to commands sent one by one on one connection."""
    with Client(port) as client:
        return [client.ask(*words) for words in commands]


def _named(*caches: CacheConfig) -> dict[str, CacheConfig]:
    return {cache.name: cache for cache in caches}
