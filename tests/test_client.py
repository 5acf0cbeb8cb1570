"""The Python client, in both colours, on a real node: what it reads, writes, lists and refuses."""

import json
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from cluster.doors.resp.frames import failure
from door_nodes import BEHIND, COLOURS, Colour, served
from doors import Running, failed
from snapring import Client, Delete, Key, Put, Reply, errors
from snapring.errors import (
    CacheUnknown,
    CallInvalid,
    CommandInvalid,
    KeyInvalid,
    Overloaded,
    ReadOnly,
    SnapringError,
    SnapshotUnavailable,
    TokenAhead,
    TokenInvalid,
    VersionMismatch,
)
from snapring.refusals import refusal


@pytest.fixture(scope="module")
def door() -> Iterator[Running]:
    """A door before a node that fails as it is told."""
    with Running() as running:
        yield running


@COLOURS
async def test_values_are_what_they_are(database: str, colour: Colour) -> None:
    """Rows in msgpack or JSON become lists and dicts, no row None, and what was put bytes."""
    async with served(database) as (node,), colour(node.address) as client:
        user = await client.get("user:1")
        assert user.value == {"id": 1, "name": "user 1", "team_id": 2}
        assert (user.state, user.source, user.version) == ("FRESH", "load", None)
        assert user.age_s is not None
        assert (await client.get("user:1")).source == "local"
        assert (await client.get(Key(tenant="default", cache="user_json", args=("1",)))).value == {
            "id": 1,
            "name": "user 1",
        }
        assert (await client.get("user:99")).value is None
        assert len((await client.get("members:1")).value) == 10
        put = await client.put("pages:a", b"[]")
        page = await client.get("pages:a", at_least=put.token)
        assert (page.value, page.version) == (b"[]", put.version)
        assert (await client.get("pages:b")).version == 0


@COLOURS
async def test_a_value_comes_as_it_was_sent_where_that_is_asked(database: str, colour: Colour) -> None:
    """To be handed on as it is, on every way a read can go."""
    async with served(database) as (node,), colour(node.address) as client:
        as_of = (await client.get("user_json:1")).as_of
        for options in ({}, {"at_least": as_of}):
            assert (await client.get("user_json:1", raw=True, **options)).value == b'{"id":1,"name":"user 1"}'
        with client.session():
            assert (await client.get("user:2", raw=True)).value.startswith(b"\x83\xa2id\x02")
        assert (await client.get("user:99", raw=True)).value is None


@COLOURS
async def test_many_keys_at_one_snapshot(database: str, colour: Colour) -> None:
    """Of any kind, by their texts, in their order; or each as of a snapshot of its own."""
    async with served(database) as (node,), colour(node.address) as client:
        put = await client.put("pages:a", "text")
        keys = ["user:2", "user:99", "pages:a", "user_json:1", "user:2"]
        found = await client.get_many(keys, at_least=put.token)
        assert list(found) == ["user:2", "user:99", "pages:a", "user_json:1"]
        assert found["pages:a"].value == b"text"
        assert found["pages:a"].version == put.version
        assert found["user_json:1"].value["name"] == "user 1"
        assert len({reply.as_of for reply in found.values()}) == 1
        for options in ({"one_snapshot": False}, {"strong": True}, {"exactly": found["user:2"].as_of}):
            again = await client.get_many(keys, **options)
            assert [reply.value for reply in again.values()] == [reply.value for reply in found.values()]
        assert again["user:2"].as_of == found["user:2"].as_of
        assert await client.get_many([]) == {}


@COLOURS
async def test_consistency_is_what_was_asked_for(database: str, colour: Colour) -> None:
    """On a node that does not follow by itself: old, at least a ticket, now, and exactly what was."""
    async with served(database, BEHIND) as (node,), colour(node.address) as client:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
            await client.get("user:1")
            old = await client.get("user:1")
            cursor = await writer.execute(
                "WITH ticket AS (SELECT pg_current_xact_id()::text AS xid)"
                " UPDATE users SET name = 'new' FROM ticket WHERE id = 1 RETURNING ticket.xid"
            )
            (xid,) = await cursor.fetchone() or ("0",)
        assert (await client.get("user:1")).value["name"] == "user 1"
        assert (await client.get("user:1", exactly=old.as_of)).as_of == old.as_of
        ticket = await client.token(ticket=int(xid))
        new = await client.get("user:1", at_least=ticket)
        assert new.value["name"] == "new"
        assert (await client.get("user:1", strong=True)).value["name"] == "new"
        with pytest.raises(SnapshotUnavailable):
            await client.get("user:1", exactly=old.as_of)
        assert (await client.get("user:2", at_least=await client.token(strong=True))).value is not None


@COLOURS
async def test_writes_are_atomic_and_conditional(database: str, colour: Colour) -> None:
    """All or none; at the version that was read, or not at all."""
    async with served(database) as (node,), colour(node.address) as client:
        first = await client.put("pages:a", b"1", if_version=0)
        with pytest.raises(VersionMismatch) as refused:
            await client.write([Put("pages:b", b"1"), Put("pages:a", b"2", if_version=0)])
        assert (refused.value.key, refused.value.version) == ("pages:a", first.version)
        both = await client.write([Put("pages:b", b"2"), Delete("pages:a", if_version=first.version)])
        found = await client.get_many(["pages:a", "pages:b"], at_least=both.token)
        assert [reply.value for reply in found.values()] == [None, b"2"]
        gone = await client.delete("pages:b")
        assert (gone.version, (await client.get("pages:b", at_least=gone.token)).value) == (0, None)


@COLOURS
async def test_keys_are_listed_page_by_page(database: str, colour: Colour) -> None:
    """At one snapshot, whatever is written meanwhile."""
    async with served(database) as (node,), colour(node.address) as client:
        written = await client.write([Put(f"pages:{n}", b"") for n in range(5)])
        page = await client.keys("pages:", count=3, at_least=written.token)
        await client.delete("pages:4")
        rest = await client.keys("pages:", after=page.keys[-1][0], exactly=page.as_of)
        assert page.keys + rest.keys == tuple((f"pages:{n}", written.version) for n in range(5))
        assert rest.as_of == page.as_of


@COLOURS
async def test_refusals_are_typed(database: str, colour: Colour) -> None:
    """Each says what to do, as the node does."""
    async with served(database) as (node,), colour(node.address) as client:
        for call, kind in (
            (client.get("nobody:1"), CacheUnknown),
            (client.get("user:{"), KeyInvalid),
            (client.put("user:1", b""), ReadOnly),
            (client.get("user:1", at_least="nonsense"), TokenInvalid),
            (client.get("user:1", at_least=await client.token(ticket=2**40)), TokenAhead),
            (client.get("user:1", strong=True, exactly="x"), CallInvalid),
            (client.get("user:1", exactly="x.y"), CallInvalid),
            (client.get("user:1", timeout_s=0), CallInvalid),
            (client.get("{user:1}@x"), CallInvalid),
            (client.get_many(map(str, range(1001))), CallInvalid),
            (client.put("pages:a", 1), CallInvalid),
            (client.write([]), CallInvalid),
            (client.token(strong=True, ticket=1), CallInvalid),
        ):
            with pytest.raises(kind):
                await call


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SnapringError)]
CODES = sorted({kind.code for kind in KINDS} - {"CONFIG_INVALID", "INTERNAL"})


@pytest.mark.parametrize("code", CODES)
def test_every_code_becomes_its_error_again(door: Running, code: str) -> None:
    """Through a door, whole: the class, and the message as the node wrote it."""
    door.do(lambda: door.node.rows.update({"users:1": failed(code)}))
    with (
        Client(f"127.0.0.1:{door.port}", routed=False) as client,
        pytest.raises(SnapringError, match=f"made to fail with {code}") as raised,
    ):
        client.get("users:1")
    assert raised.value.code == code


@pytest.mark.parametrize(
    "error",
    [
        KeyInvalid("bad", position=7),
        Overloaded("full", retry_after_s=0.25),
        VersionMismatch("pages:a is there", version=0),
        VersionMismatch("pages:a", version=2**49),
        CommandInvalid("no"),
    ],
)
def test_what_an_error_knows_comes_along(error: SnapringError) -> None:
    """Position, hint, key and version."""
    code, _, message = failure(error)[1:-2].decode().partition(" ")
    again = refusal(code, message)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_code_of_a_newer_node_is_an_error_all_the_same() -> None:
    """Its message begins with the code."""
    assert str(refusal("BRAND_NEW", "thing")) == "BRAND_NEW thing"


def test_nodes_do_not_import_the_client() -> None:
    """Keys and errors alone, until a client is asked for."""
    script = (
        "import snapring, sys; a = 'redis' in sys.modules; snapring.Client; print(a, 'redis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = __import__("snapring").nothing


def test_a_reply_cannot_be_changed() -> None:
    """It is what a node said."""
    reply = Reply(json.loads("1"), "token", None, "FRESH", "local", None)
    with pytest.raises(AttributeError):
        reply.value = 2  # type: ignore[misc]
    assert errors.SnapringError.__doc__
