"""Caches of kind ``store`` on a node: what was put is read, at any snapshot that history still holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import isinf
from time import monotonic

import psycopg
import pytest

from cluster.config import CacheConfig
from cluster.node import Node
from cluster.requests import BOUNDED, STRONG, Consistency, Exactly, Listing, Reply, Source
from cluster.snapshots import Snapshot
from cluster.writes import Deed, Written
from nodes import CACHES, WITHIN_S, captured, caught_up, config, loads, read, running, until
from snapring.errors import (
    ArgumentInvalid,
    ReadOnly,
    SnapshotExpired,
    TokenAhead,
    TokenForeign,
    ValueInvalid,
    VersionMismatch,
)
from snapring.keys import parse

SETTINGS = CacheConfig(name="settings", kind="store")


@asynccontextmanager
async def storing(url: str) -> AsyncIterator[tuple[Node, psycopg.AsyncConnection]]:
    """A node with a store cache beside the ordinary ones, and a superuser's connection."""
    async with captured(url) as writer, running(config(url, (*CACHES, SETTINGS))) as node:
        yield node, writer


async def put(node: Node, *pairs: tuple[str, bytes | None], if_version: int | None = None) -> Written:
    """One atomic write; a value of None deletes."""
    deeds = [Deed(key=parse(key.encode())[0], value=value, if_version=if_version) for key, value in pairs]
    return await node.write(deeds, monotonic() + WITHIN_S)


async def after(node: Node, written: Written, key: str) -> Reply:
    """A read that sees the write."""
    return await read(node, key, node.at_least(node.written_token(written)))


async def listing(node: Node, prefix: str, consistency: Consistency = BOUNDED, **how: object) -> Listing:
    """A listing, a hundred keys by default."""
    given = {"after": "", "most": 100, **how}
    key = parse(prefix.encode())[0]
    return await node.listing(key, given["after"], given["most"], consistency, monotonic() + WITHIN_S)  # type: ignore[arg-type]


async def test_what_was_put_is_read_and_what_was_deleted_is_not(database: str) -> None:
    """The value comes back as it was put, with the version that the write said it has."""
    async with storing(database) as (node, _):
        assert (await read(node, "settings:a")).value is None
        first = await put(node, ("settings:a", b"\x00\xff one"))
        reply = await after(node, first, "settings:a")
        assert (reply.value, reply.version) == (b"\x00\xff one", first.version)
        gone = await put(node, ("settings:a", None))
        reply = await after(node, gone, "settings:a")
        assert (reply.value, reply.version, gone.existed) == (None, 0, 1)


async def test_a_put_ends_what_memory_held_and_nothing_else(database: str) -> None:
    """Key grain: the entries of other keys stay."""
    async with storing(database) as (node, _):
        await put(node, ("settings:a", b"1"), ("settings:b", b"1"))
        await caught_up(node)
        for key in ("settings:a", "settings:b"):
            await read(node, key, STRONG)
        already = loads(node)
        written = await put(node, ("settings:a", b"2"))
        assert (await after(node, written, "settings:a")).value == b"2"
        assert (await after(node, written, "settings:b")).source is Source.LOCAL
        assert loads(node) == already + 1


async def test_an_atomic_write_is_seen_whole_or_not_at_all(database: str) -> None:
    """Two keys read at one snapshot are of the same write."""
    async with storing(database) as (node, _):
        for n in range(20):
            await put(node, ("settings:a", b"%d" % n), ("settings:b", b"%d" % n))
            one = await read(node, "settings:a")
            at = Exactly(one.as_of, one.incarnation)
            assert (await read(node, "settings:b", at)).value == one.value


async def test_a_demanded_version_is_kept_to(database: str) -> None:
    """Of those who follow the same version one wins; the others hear which version is there."""
    async with storing(database) as (node, _):
        first = await put(node, ("settings:a", b"1"), if_version=0)
        outcomes = await asyncio.gather(
            *(put(node, ("settings:a", b"%d" % n), if_version=first.version) for n in range(5)),
            return_exceptions=True,
        )
        (won,) = (each for each in outcomes if isinstance(each, Written))
        lost = [each for each in outcomes if isinstance(each, VersionMismatch)]
        assert (len(lost), {each.version for each in lost}) == (4, {won.version})
        with pytest.raises(VersionMismatch):
            await put(node, ("settings:b", b"new"), ("settings:a", b"old"), if_version=0)
        assert (await read(node, "settings:b", STRONG)).value is None


async def test_every_version_can_be_read_at_its_own_snapshot(database: str) -> None:
    """Long after memory has forgotten, history has not."""
    async with storing(database) as (node, _):
        told: list[tuple[Exactly, bytes | None, int | None]] = []
        for value in (b"1", b"2", None, b"3"):
            written = await put(node, ("settings:a", value))
            reply = await after(node, written, "settings:a")
            told.append((Exactly(reply.as_of, reply.incarnation), reply.value, reply.version))
        node.store.clear()
        for at, value, version in reversed(told):
            reply = await read(node, "settings:a", at)
            assert (reply.value, reply.version, reply.as_of) == (value, version, at.snapshot)


async def test_an_exact_read_waits_for_a_database_that_is_a_moment_behind(database: str) -> None:
    """As long as ``token_wait``, then TOKEN_AHEAD: the token may be of another database."""
    async with storing(database) as (node, _):
        seen = await after(node, await put(node, ("settings:a", b"1")), "settings:a")
        ahead = Exactly(Snapshot(seen.as_of.xmax + 1, seen.as_of.xmax + 1), seen.incarnation)
        failed = node.loader.failures
        reading = asyncio.create_task(read(node, "settings:a", ahead))
        await until(lambda: node.loader.failures > failed)
        await put(node, ("settings:b", b"2"))
        assert (await reading).value == b"1"
        with pytest.raises(TokenAhead):
            await read(node, "settings:a", Exactly(Snapshot(10**6, 10**6), seen.incarnation))


async def test_history_that_was_deleted_is_refused_and_never_guessed(database: str) -> None:
    """A snapshot older than the history's floor answers SNAPSHOT_EXPIRED; a later one is still exact."""
    async with storing(database) as (node, writer):
        old = await after(node, await put(node, ("settings:a", b"1")), "settings:a")
        new = await after(node, await put(node, ("settings:a", b"2")), "settings:a")
        await put(node, ("settings:a", b"3"))
        await caught_up(node)
        await writer.execute(
            b"UPDATE snapring.history_floor SET floor = %s::text::xid8", (str(new.as_of.xmin),)
        )
        node.store.clear()
        with pytest.raises(SnapshotExpired):
            await read(node, "settings:a", Exactly(old.as_of, old.incarnation))
        assert (await read(node, "settings:a", Exactly(new.as_of, new.incarnation))).value == b"2"


async def test_a_snapshot_of_the_future_or_of_another_incarnation_is_refused(database: str) -> None:
    """What has not happened has no history here, and what happened elsewhere neither."""
    async with storing(database) as (node, _):
        now = await after(node, await put(node, ("settings:a", b"1")), "settings:a")
        ahead = Snapshot(now.as_of.xmax + 1000, now.as_of.xmax + 1000)
        with pytest.raises(TokenAhead):
            await read(node, "settings:a", Exactly(ahead, now.incarnation))
        with pytest.raises(TokenForeign):
            await read(node, "settings:a", Exactly(now.as_of, now.incarnation + 1))


async def test_an_age_that_nobody_knows_is_infinite(database: str) -> None:
    """An old snapshot was current some time ago, and nothing says less."""
    async with storing(database) as (node, _):
        old = await after(node, await put(node, ("settings:a", b"1")), "settings:a")
        await put(node, ("settings:a", b"2"))
        await caught_up(node)
        node.timeline.restart(old.incarnation, node.timeline.watermark or old.as_of, monotonic())
        assert isinf((await read(node, "settings:a", Exactly(old.as_of, old.incarnation))).age_s)


async def test_a_listing_is_of_one_snapshot_and_pages_follow_it(database: str) -> None:
    """Keys by prefix in order; the next page is of the same snapshot, whatever was put meanwhile."""
    async with storing(database) as (node, _):
        names = [f"settings:a:{n:02}" for n in range(10)]
        written = await put(node, *((name, b"x") for name in names), ("settings:b", b"x"))
        page = await listing(node, "settings:a", node.at_least(node.written_token(written)), most=4)
        assert page.keys == tuple((name, written.version) for name in names[:4])
        await put(node, ("settings:a:07", None), ("settings:a:075", b"x"))
        at = Exactly(page.as_of, page.incarnation)
        rest = await listing(node, "settings:a", at, after=page.keys[-1][0])
        assert [key for key, _ in rest.keys] == names[4:]
        now = await listing(node, "settings:a", STRONG, after="settings:a:06")
        assert [key for key, _ in now.keys] == ["settings:a:075", "settings:a:08", "settings:a:09"]


async def test_tenants_are_namespaces(database: str) -> None:
    """The same name under another tenant is another key, and no listing crosses over."""
    async with storing(database) as (node, _):
        written = await put(node, ("acme/settings:a", b"acme"), ("settings:a", b"default"))
        assert (await after(node, written, "acme/settings:a")).value == b"acme"
        assert (await after(node, written, "default/settings:a")).value == b"default"
        assert (await after(node, written, "other/settings:a")).value is None
        found = await listing(node, "acme/settings:", node.at_least(node.written_token(written)))
        assert [key for key, _ in found.keys] == ["acme/settings:a"]


@pytest.mark.parametrize(
    ("pairs", "refusal"),
    [
        ([("user:7", b"x")], ReadOnly),
        ([("settings", b"x")], ArgumentInvalid),
        ([("settings:a", b"x" * (2**20 + 1))], ValueInvalid),
        ([("settings:a", b"x"), ("default/settings:a", b"y")], ValueInvalid),
        ([(f"settings:{n}", b"x") for n in range(129)], ValueInvalid),
        ([], ValueInvalid),
    ],
    ids=["query cache", "no argument", "too large", "twice", "too many", "nothing"],
)
async def test_a_write_that_makes_no_sense_says_so_and_does_nothing(
    database: str, pairs: list[tuple[str, bytes]], refusal: type[Exception]
) -> None:
    """Before anything is sent."""
    async with storing(database) as (node, _):
        with pytest.raises(refusal):
            await put(node, *pairs)


async def test_an_application_writes_in_its_own_transaction(database: str) -> None:
    """The function that the node calls is there for anyone who may call it."""
    async with storing(database) as (node, writer):
        await read(node, "settings:a")
        async with writer.transaction():
            await writer.execute(b"UPDATE users SET name = 'new' WHERE id = 7")
            cursor = await writer.execute(
                b"SELECT xid::text, version FROM snapring.write(ARRAY['settings:a'], ARRAY['v'::bytea], ARRAY[NULL]::bigint[])"
            )
            ((xid, version),) = await cursor.fetchall()
        reply = await read(node, "settings:a", node.at_least(node.ticket(int(xid))))
        assert (reply.value, reply.version) == (b"v", version)
