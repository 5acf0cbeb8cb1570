"""A client that keeps values itself, told by Watch when to let go: over real gRPC, before real nodes on a database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import psycopg
import pytest

from cluster.config import CacheConfig, WatchConfig
from cluster.doors.grpc.calls import whole
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.node import Node
from cluster.requests import State
from cluster.tokens import TokenCodec
from doors import INCARNATION
from grpc_doors import QUICK, Calling, failure, in_memory, serving
from nodes import CACHES, SECRET, WITHIN_S, captured, caught_up, config, read, running
from snapring.keys import parse

CACHE = CACHES[0]


@asynccontextmanager
async def watched(
    url: str, watch: WatchConfig = QUICK, **changes: Any
) -> AsyncIterator[tuple[Node, Calling]]:
    """A node that follows the database at ``url``, and a client of its door."""
    async with (
        running(config(url, watch=watch, **changes)) as node,
        serving(node, node, node.watching) as calling,
    ):
        yield node, calling


@pytest.fixture
async def writer(database: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A writer to a database under capture."""
    async with captured(database) as connection:
        yield connection


async def event_with(stream: Any, holds: Callable[[v1.WatchEvent], object]) -> v1.WatchEvent:
    """The first event of which ``holds`` is true."""
    async with asyncio.timeout(WITHIN_S):
        while not holds(event := await stream.read()):
            pass
    assert isinstance(event, v1.WatchEvent)
    return event


async def update(writer: psycopg.AsyncConnection, number: int, name: str) -> int:
    """A user is renamed; the transaction's id."""
    cursor = await writer.execute(
        "UPDATE users SET name = %s WHERE id = %s RETURNING pg_current_xact_id()::text", (name, number)
    )
    (xid,) = await cursor.fetchone() or ("0",)
    return int(xid)


async def test_a_value_that_is_tracked_is_named_before_the_watermark_sees_its_change(
    writer: psycopg.AsyncConnection, database: str
) -> None:
    """Each of many times: no event's watermark sees a change that no event has named."""
    async with watched(database) as (node, calling):
        stream, codec = calling.Watch(prefixes=["user:"]), TokenCodec([SECRET])
        first = await stream.read()
        for number in range(20):
            reply = await calling.Get(key="user:7", track=True)
            assert reply.tracked.log == first.place.log
            xid = await update(writer, 7, f"name {number}")
            named = False
            while True:
                event = await stream.read()
                named = named or "user:7" in event.keys
                seen = codec.decode(event.watermark, node.timeline.incarnation or 0)
                if seen.sees(xid):  # type: ignore[union-attr]
                    break
            assert named


async def test_nothing_is_tracked_while_nobody_watches(
    writer: psycopg.AsyncConnection, database: str
) -> None:
    """The reply says so: whoever keeps the value would never be told."""
    async with watched(database) as (_, calling):
        assert not (await calling.Get(key="user:7", track=True)).HasField("tracked")
        await calling.Watch().read()
        assert (await calling.Get(key="user:7", track=True)).HasField("tracked")
        assert not (await calling.Get(key="user:7")).HasField("tracked")


@pytest.mark.parametrize("consistency", [None, v1.Consistency(strong=True)], ids=["plain", "strong"])
async def test_what_was_just_loaded_counts_once_the_watermark_has_reached_it(
    writer: psycopg.AsyncConnection, database: str, consistency: v1.Consistency | None
) -> None:
    """Its place is at most two moves ahead, and the watermark there sees what it was loaded at."""
    async with watched(database) as (node, calling):
        stream, codec = calling.Watch(), TokenCodec([SECRET])
        await stream.read()
        reply = await calling.Get(key="user:3", track=True, consistency=consistency)
        event = await event_with(stream, lambda event: event.place.tick >= reply.tracked.tick)
        as_of, there = (
            codec.decode(token, node.timeline.incarnation or 0) for token in (reply.as_of, event.watermark)
        )
        assert as_of.within(there)  # type: ignore[union-attr,arg-type]


async def test_an_entry_that_leaves_memory_is_named(writer: psycopg.AsyncConnection, database: str) -> None:
    """Nobody follows it any more."""
    async with watched(database) as (node, calling):
        stream = calling.Watch()
        await stream.read()
        await calling.Get(key="user:7", track=True)
        node.store.remove(b"user:7")
        assert list((await event_with(stream, lambda event: event.keys)).keys) == ["user:7"]


async def test_what_cannot_be_held_is_not_tracked(writer: psycopg.AsyncConnection, database: str) -> None:
    """A value larger than its cache's share is answered, and that is all."""
    small = replace(CACHE, name="small", max_bytes=64)
    async with watched(database, caches=(small,)) as (_, calling):
        await calling.Watch().read()
        reply = await calling.Get(key="small:7", track=True)
        assert reply.value
        assert not reply.HasField("tracked")


async def test_who_comes_back_goes_on_from_his_place(writer: psycopg.AsyncConnection, database: str) -> None:
    """He hears what left meanwhile, and has skipped nothing."""
    async with watched(database) as (node, calling):
        stream = calling.Watch()
        place = (await stream.read()).place
        await calling.Get(key="user:7", track=True)
        stream.cancel()
        await update(writer, 7, "while away")
        await caught_up(node)
        event = await calling.Watch(after=place).read()
        assert (list(event.keys), event.skipped, event.place.log) == (["user:7"], False, place.log)


async def test_who_was_away_for_too_long_is_told(writer: psycopg.AsyncConnection, database: str) -> None:
    """So is who comes from another node, or from another life of this one."""
    few = replace(QUICK, log_keys=2)
    async with watched(database, few) as (node, calling):
        await calling.Watch().read()
        stream = calling.Watch()
        place = (await stream.read()).place
        stream.cancel()
        for number in range(3):
            await calling.Get(key=f"user:{number}")
            node.store.remove(b"user:%d" % number)
        assert (await calling.Watch(after=place).read()).skipped
        other = v1.Place(log=place.log ^ 1, tick=place.tick)
        first = await calling.Watch(after=other).read()
        assert (first.skipped, first.place.log) == (True, place.log)


async def test_a_new_incarnation_of_the_database_skips_everything(
    writer: psycopg.AsyncConnection, database: str
) -> None:
    """Every watcher hears it, and what he held is not read on from."""
    async with watched(database) as (node, calling):
        stream = calling.Watch()
        place = (await stream.read()).place
        await calling.Get(key="user:7", track=True)
        await writer.execute("DELETE FROM snapring.marker")
        event = await event_with(stream, lambda event: event.skipped)
        assert event.place.tick > place.tick
        assert (await calling.Watch(after=place).read()).skipped
        assert node.feed.voided == 2


async def test_an_old_truth_is_not_tracked() -> None:
    """While Postgres is out of reach, memory proves nothing of the present."""
    async with in_memory() as (node, calling):
        await calling.Watch().read()
        node.watching.incarnation, node.watching.watermark = INCARNATION, node.timeline.watermark
        entry = node.keep("users:1", b"old")
        assert (await calling.Get(key="users:1", track=True)).HasField("tracked")
        del node.store.index[entry.key]
        found = await node.read(parse(b"users:1")[0], None, 0.0)  # type: ignore[arg-type]

        async def stale(*_: object) -> Any:
            node.store.index[entry.key] = entry
            return replace(found, state=State.STALE)

        node.read = stale  # type: ignore[method-assign]
        reply = await calling.Get(key="users:1", track=True)
        assert (reply.state, reply.HasField("tracked")) == (v1.STATE_STALE, False)


async def test_an_entry_that_has_ended_answers_but_is_not_tracked(
    writer: psycopg.AsyncConnection, database: str
) -> None:
    """At least an old snapshot it is still true at: but nothing will be told of it."""
    async with watched(database) as (node, calling):
        await calling.Watch().read()
        old = await read(node, "user:7")
        await update(writer, 7, "new")
        await caught_up(node)
        assert node.peek(parse(b"user:7")[0]) is None
        token = node.token(old.as_of, old.incarnation)
        reply = await calling.Get(key="user:7", track=True, consistency=v1.Consistency(at_least=token))
        assert b"new" in reply.value
        assert reply.HasField("tracked")


async def test_an_answer_from_before_the_database_was_replaced_is_not_tracked() -> None:
    """What memory has now is of another incarnation: it is not asked for what came of the old one."""
    async with in_memory() as (node, calling):
        await calling.Watch().read()
        node.rows["users:9"] = b"old"
        node.timeline.incarnation = INCARNATION ^ 1
        reply = await calling.Get(key="users:9", track=True)
        assert (reply.value, reply.HasField("tracked")) == (b"old", False)
        assert node.tried == ["users:9"]


async def test_a_watch_that_makes_no_sense_is_refused(writer: psycopg.AsyncConnection, database: str) -> None:
    """Too many prefixes, an empty one, one longer than any key."""
    async with in_memory(max_keys=2) as (_, calling):
        for prefixes in (["a", "b", "c"], [""], ["a" * 1025]):
            code, reason, _ = await failure(calling.Watch(prefixes=prefixes).read())
            assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERR")


async def test_a_watch_that_ends_leaves_nothing_behind() -> None:
    """Neither a subscription nor a place among the watches."""
    async with in_memory() as (node, calling):
        stream = calling.Watch()
        await stream.read()
        assert (node.watching.subscriptions, calling.door.calls.watches) == (1, 1)
        stream.cancel()
        async with asyncio.timeout(WITHIN_S):
            while node.watching.subscriptions or calling.door.calls.watches:
                await asyncio.sleep(0.001)


async def test_a_store_key_is_tracked_like_any_other(writer: psycopg.AsyncConnection, database: str) -> None:
    """One's own write names it."""
    settings = CacheConfig(name="settings", kind="store")
    async with watched(database, caches=(settings,)) as (_, calling):
        stream = calling.Watch()
        await stream.read()
        written = await calling.Write(deeds=[v1.Deed(key="settings:a", put=b"1")])
        asked = v1.Consistency(at_least=written.token)
        reply = await calling.Get(key="settings:a", track=True, consistency=asked)
        assert (reply.value, reply.version, reply.HasField("tracked")) == (b"1", written.version, True)
        await calling.Write(deeds=[v1.Deed(key="settings:a", put=b"2", if_version=reply.version)])
        assert "settings:a" in (await event_with(stream, lambda event: event.keys)).keys


@pytest.mark.parametrize("told", [True, False])
async def test_a_write_to_who_has_gone_is_no_defect(*, told: bool) -> None:
    """Whether gRPC says that he has gone before the write fails or after: the watch is cancelled."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        begun.set()
        await gone.wait()
        raise grpc.aio.InternalError

    watch = asyncio.create_task(whole(write()))
    await begun.wait()
    if told:
        watch.cancel()
        await asyncio.sleep(0)
    gone.set()
    with pytest.raises(asyncio.CancelledError):
        await watch


async def test_an_event_that_is_being_written_is_written_whole() -> None:
    """The watch ends then: gRPC could not take its status before."""
    begun, read = asyncio.Event(), asyncio.Event()
    written: list[bytes] = []

    async def write() -> None:
        begun.set()
        await read.wait()
        written.append(b"event")

    watch = asyncio.create_task(whole(write()))
    await begun.wait()
    watch.cancel()
    await asyncio.sleep(0)
    assert not watch.done()
    read.set()
    with pytest.raises(asyncio.CancelledError):
        await watch
    assert written == [b"event"]
