"""Sessions across nodes that know nothing of one another: they read their writes, and never go back in time.

Both nodes hold entries that are fresh for a minute, and only one, if any, follows the database by itself. The
client asks them in turn.
"""

import asyncio

import psycopg
import pytest

from door_nodes import BEHIND, COLOURS, Colour, Served, in_front_of, served
from nodes import caught_up
from servers import Server
from snapring.errors import CallInvalid, TokenForeign, VersionMismatch

TURNS = 4


async def hold_old(colour: Colour, nodes: list[Served], key: str) -> None:
    """Have each node remember what ``key`` is now."""
    for node in nodes:
        async with colour(node.address) as client:
            await client.get(key, strong=True)


@COLOURS
async def test_a_session_reads_its_writes(database: str, colour: Colour) -> None:
    """On every node; outside of it the other node's memory is good enough."""
    async with in_front_of(database, colour, BEHIND, BEHIND) as (nodes, client):
        await hold_old(colour, nodes, "pages:a")
        with client.session():
            for n in range(TURNS):
                await client.put("pages:a", str(n))
                assert [(await client.get("pages:a")).value for _ in range(TURNS)] == [b"%d" % n] * TURNS
        await client.put("pages:a", "new")
        assert {(await client.get("pages:a")).value for _ in range(TURNS)} != {b"new"}


@COLOURS
async def test_a_session_never_goes_back(database: str, colour: Colour) -> None:
    """What one node has shown the other shows too, of any key and cache, singly, together and in lists."""
    async with in_front_of(database, colour, None, BEHIND) as (nodes, client):
        await hold_old(colour, nodes, "user:1")
        await hold_old(colour, nodes, "pages:a")
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
            await writer.execute("UPDATE users SET name = 'new' WHERE id = 1")
        async with colour(nodes[0].address) as other:
            await other.put("pages:a", "new")
        await caught_up(nodes[0].node)
        assert len({(await client.get("user:1")).value["name"] for _ in range(TURNS)}) == 2
        with client.session():
            while (await client.get("user:1")).value["name"] != "new":
                pass
            for _ in range(TURNS):
                assert (await client.get("user:1")).value["name"] == "new"
                assert (await client.get("pages:a")).value == b"new"
                assert [key for key, _ in (await client.keys("pages:")).keys] == ["pages:a"]
                found = await client.get_many(["pages:a", "user:1"])
                assert found["pages:a"].value == b"new"


@COLOURS
async def test_a_session_goes_on_elsewhere(database: str, colour: Colour) -> None:
    """Its token is text, which another client takes, before another node."""
    async with served(database, BEHIND, BEHIND) as nodes:
        await hold_old(colour, nodes, "pages:a")
        async with colour(nodes[0].address) as one, colour(nodes[1].address) as two:
            with one.session() as session:
                assert session.token == ""
                await one.put("pages:a", "new")
            assert (await two.get("pages:a")).value is None
            assert (await two.get("pages:a", at_least=session.token)).value == b"new"
            await two.get("pages:b")
            with two.session(token=session.token):
                assert (await two.get("pages:a")).value == b"new"
            with pytest.raises(CallInvalid, match="expected a token"):
                two.session(token="a..b")


@COLOURS
async def test_a_session_that_does_several_things_at_once_sees_them_all(
    database: str, colour: Colour
) -> None:
    """Each write leaves a ticket; the next read sees every one of them, and one token is left."""
    async with in_front_of(database, colour, BEHIND, BEHIND) as (nodes, client):
        for n in range(5):
            await hold_old(colour, nodes, f"pages:{n}")
        for read in (client.get, lambda key: client.get_many([key]), client.keys):
            with client.session() as session:
                await asyncio.gather(*(client.put(f"pages:{n}", "new") for n in range(5)))
                assert len(session.floors.tokens) > 1
                await read("pages:0")
                assert len(session.floors.tokens) == 1
                for n in range(5):
                    assert (await client.get(f"pages:{n}")).value == b"new"


@COLOURS
async def test_a_session_told_of_a_version_does_not_read_an_older_one(database: str, colour: Colour) -> None:
    """A write that was refused has told of another's write."""
    async with in_front_of(database, colour, BEHIND, BEHIND) as (nodes, client):
        await hold_old(colour, nodes, "pages:a")
        async with colour(nodes[0].address) as other:
            await other.put("pages:a", "theirs")
        with client.session() as session:
            with pytest.raises(VersionMismatch):
                await client.put("pages:a", "ours", if_version=0)
            with pytest.raises(CallInvalid, match="read something first"):
                _ = session.token
            for _ in range(TURNS):
                assert (await client.get("pages:a")).value == b"theirs"


@COLOURS
async def test_a_session_sees_a_ticket_that_it_is_given(database: str, colour: Colour) -> None:
    """Of a transaction of one's own; what the session writes meanwhile does not stand for it."""
    async with in_front_of(database, colour, BEHIND, BEHIND) as (nodes, client):
        await hold_old(colour, nodes, "user:1")
        with client.session() as session:
            async with await psycopg.AsyncConnection.connect(database) as writer:
                await writer.execute("UPDATE users SET name = 'new' WHERE id = 1")
                cursor = await writer.execute("SELECT pg_current_xact_id()::text")
                (xid,) = await cursor.fetchone() or ("0",)
                session.see(await client.token(ticket=int(xid)))
                await client.put("pages:a", "before the commit")
                for node in nodes:
                    await caught_up(node.node)
            for _ in range(TURNS):
                assert (await client.get("user:1")).value["name"] == "new"


@COLOURS
async def test_sessions_end_and_nest(database: str, colour: Colour) -> None:
    """The inner one is in force, then the outer one again; a token of now belongs to it."""
    async with served(database, BEHIND) as (node,), colour(node.address) as client:
        with client.session() as outer:
            await client.get("user:1")
            before = outer.token
            with client.session() as inner:
                await client.put("pages:a", "x")
            assert (outer.token, inner.token != before) == (before, True)
            now = await client.token()
            await client.get("user:1", exactly=before)
            assert now in outer.token
        await client.put("pages:a", "y")
        assert now in outer.token


@COLOURS
async def test_after_a_crash_a_session_is_told_once(colour: Colour) -> None:
    """Its tokens are of what may be lost; then it begins afresh."""
    with Server() as server:
        async with served(server.dsn()) as (node,), colour(node.address) as client:
            with client.session():
                await client.put("pages:a", "old")
                await client.get("pages:a")
                incarnation = node.node.timeline.incarnation
                await asyncio.to_thread(server.crash)
                async with asyncio.timeout(20):
                    while node.node.timeline.incarnation in (incarnation, None):
                        await asyncio.sleep(0.01)
                with pytest.raises(TokenForeign):
                    await client.get("pages:a")
                assert (await client.get("pages:a")).value == b"old"
