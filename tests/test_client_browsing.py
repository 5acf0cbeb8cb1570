"""The Python client looks into the memories of all nodes."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from door_nodes import COLOURS, Colour, served
from resp_server import STOPPING, RespServer, Words, slots
from snapring import Held, Kept
from snapring.errors import ArgumentInvalid, CallInvalid, ConnectionFailed, NodeStopping, Overloaded

Rows = dict[str, tuple[int, str]]


def kept(node: str, rows: Rows) -> bytes:
    """A reply to SNAP.KEYS of a cache of rows."""
    frames = [
        b"*4\r\n$%d\r\n%b\r\n:%d\r\n$%d\r\n%b\r\n:100\r\n"
        % (len(key), key.encode(), age_ms, len(state), state.encode())
        for key, (age_ms, state) in rows.items()
    ]
    name = b"$%d\r\n%b\r\n" % (len(node), node.encode())
    return b"%%2\r\n$4\r\nkeys\r\n*%d\r\n%b$4\r\nnode\r\n%b" % (len(frames), b"".join(frames), name)


@pytest.fixture
def pair() -> Iterator[list[RespServer]]:
    """Two servers that tell of each other, with some keys in common."""
    memories: list[Rows] = [
        {"user:1": (5, "open"), "user:3": (7000, "open")},
        {"user:1": (9, "ended"), "user:2": (6, "open"), "user:4": (1, "open")},
    ]
    with ExitStack() as stack:
        servers: list[RespServer] = []
        for name, memory in zip("ab", memories, strict=True):

            def answer(words: Words, name: str = name, memory: Rows = memory) -> bytes:
                if words[0] == b"CLUSTER":
                    return slots((0, 16_383, servers))
                return kept(name, memory)

            servers.append(stack.enter_context(RespServer(answer)))
        yield servers


@COLOURS
async def test_what_all_nodes_have_is_one_listing(pair: list[RespServer], colour: Colour) -> None:
    """In the order of the keys, each with who has it; no further than every node has told."""
    async with colour(pair[0].address) as client:
        assert await client.browse("user:", count=3, after="user:0") == (
            Kept("user:1", (Held("a", 0.005, True, 100), Held("b", 0.009, False, 100))),
            Kept("user:2", (Held("b", 0.006, True, 100),)),
            Kept("user:3", (Held("a", 7.0, True, 100),)),
        )
    words = (b"SNAP.KEYS", b"user:", b"AFTER", b"user:0", b"COUNT", b"3")
    assert [server.commands(b"SNAP.KEYS") for server in pair] == [[words], [words]]


@COLOURS
@pytest.mark.parametrize(("answer", "kind"), [(None, ConnectionFailed), (STOPPING, NodeStopping)])
async def test_a_node_that_does_not_answer_is_no_empty_one(
    pair: list[RespServer], colour: Colour, answer: bytes | None, kind: type[Exception]
) -> None:
    """No other is asked in its place, and half a listing is none."""
    async with colour(pair[0].address, timeout_s=30.0) as client:
        assert len(await client.browse("user:")) == 4
        pair[1].answer = lambda words: answer
        with pytest.raises(kind):
            await client.browse("user:")
    assert len(pair[0].commands(b"SNAP.KEYS")) == 2


@COLOURS
async def test_a_node_that_asks_for_time_gets_it(pair: list[RespServer], colour: Colour) -> None:
    """As no other can be asked instead: here more of it than the call has."""
    pair[1].answer = lambda words: b"-OVERLOADED not now; retry after 100 s\r\n"
    async with colour([server.address for server in pair], routed=False) as client:
        with pytest.raises(Overloaded):
            await client.browse("user:")
    assert len(pair[1].commands(b"SNAP.KEYS")) == 1


@COLOURS
async def test_a_real_node_tells_what_it_has(database: str, colour: Colour) -> None:
    """Of a cache of rows; a store cache has `keys`, and each says so of the other."""
    async with served(database) as (node,), colour(node.address) as client:
        await client.get_many(["user:1", "user:2", "members:1"])
        found = await client.browse("user:")
        assert [(each.key, each.held[0].open) for each in found] == [("user:1", True), ("user:2", True)]
        assert found[0].held[0].bytes > 100
        assert await client.browse("user:", after="user:2") == ()
        with pytest.raises(CallInvalid, match="`browse` lists"):
            await client.keys("user:")
        with pytest.raises(CallInvalid, match="`keys` lists"):
            await client.browse("pages:")
        with pytest.raises(ArgumentInvalid, match="of no one snapshot"):
            await client.keys("user:", strong=True)
