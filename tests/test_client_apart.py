"""The Python client's reads of several keys: those that need not be of one snapshot go to their owners, at once."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from door_nodes import COLOURS, Colour
from resp_server import RespServer, Words, found, slots
from snapring import AsyncClient, Client, slot_of
from snapring.budget import SHARE
from snapring.errors import ArgumentInvalid

HALF = 8192
KEYS = [f"pages:{n}" for n in range(20)]
LOW = [key for key in KEYS if slot_of(key.encode()) < HALF]
HIGH = [key for key in KEYS if slot_of(key.encode()) >= HALF]
REFUSED = b"-ARGUMENT_INVALID not that\r\n"

Answer = Callable[[Words], bytes | None]


def echoed(words: Words) -> bytes:
    """Each key is the beginning of a token of its own."""
    return found(as_of=words[1])


def several(words: Words) -> bytes:
    """A reply to SNAP.MGET."""
    count = len(words) - 1
    values, versions = b"$1\r\n\xc0\r\n" * count, b"_\r\n" * count
    return (
        b"%%5\r\n$6\r\nvalues\r\n*%d\r\n%b$8\r\nversions\r\n*%d\r\n%b" % (count, values, count, versions)
        + b"$5\r\nas_of\r\n$1\r\nT\r\n$6\r\nage_ms\r\n:1\r\n$5\r\nstate\r\n$5\r\nFRESH\r\n"
    )


@pytest.fixture
def pair() -> Iterator[list[RespServer]]:
    """Two servers, each the owner of half of the slots and the other's backup; ``echoed`` answers."""
    with ExitStack() as stack:
        servers: list[RespServer] = []
        for _ in range(2):
            server = stack.enter_context(RespServer(echoed))
            servers.append(server)
        for server in servers:
            tell(servers, server, echoed)
        yield servers


def tell(servers: list[RespServer], server: RespServer, answer: Answer) -> None:
    """From now on ``server`` tells of the slots, and answers everything else so."""

    def answered(words: Words) -> bytes | None:
        if words[0] == b"CLUSTER":
            return slots((0, HALF - 1, servers), (HALF, 16_383, servers[::-1]))
        return answer(words)

    server.answer = answered


def asked(server: RespServer) -> list[str]:
    """The keys that it was asked for."""
    return [words[1].decode() for words in server.commands(b"SNAP.GET")]


@COLOURS
async def test_owners_are_asked_for_their_keys(pair: list[RespServer], colour: Colour) -> None:
    """What comes is in the order of the call, each key once and with its own answer."""
    async with colour(pair[0].address) as client:
        replies = await client.get_many([*KEYS, KEYS[0]], one_snapshot=False)
    assert [(key, reply.as_of) for key, reply in replies.items()] == [(key, key) for key in KEYS]
    assert [asked(server) for server in pair] == [LOW, HIGH]


@COLOURS
async def test_no_owner_is_waited_for_before_all_are_asked(pair: list[RespServer], colour: Colour) -> None:
    """Each answers only once the other has been asked, too."""
    both = threading.Barrier(2)

    def answer(words: Words) -> bytes | None:
        if words[1].decode() in (LOW[0], HIGH[0]):
            both.wait(10)
        return echoed(words)

    for server in pair:
        tell(pair, server, answer)
    async with colour(pair[0].address) as client:
        assert len(await client.get_many(KEYS, one_snapshot=False)) == len(KEYS)


@COLOURS
async def test_one_snapshot_is_asked_of_one_node(pair: list[RespServer], colour: Colour) -> None:
    """Of whom most of the keys are."""
    for server in pair:
        tell(pair, server, several)
    async with colour(pair[1].address) as client:
        for keys in ([HIGH[0], *LOW], [LOW[0], *HIGH]):
            assert {reply.as_of for reply in (await client.get_many(keys)).values()} == {"T"}
    assert [len(server.commands(b"SNAP.MGET")) for server in pair] == [1, 1]
    assert pair[0].commands(b"SNAP.MGET")[0][1].decode() == HIGH[0]


@COLOURS
async def test_what_an_owner_that_is_gone_has_is_asked_elsewhere(
    pair: list[RespServer], colour: Colour
) -> None:
    """The keys of the others are not asked for again."""
    async with colour(pair[1].address) as client:
        await client.get(LOW[0])
        tell(pair, pair[0], lambda words: None)
        replies = await client.get_many(KEYS, one_snapshot=False)
    assert [reply.as_of for reply in replies.values()] == KEYS
    assert sorted(asked(pair[1])) == sorted(KEYS)


@COLOURS
async def test_one_key_that_fails_fails_all(pair: list[RespServer], colour: Colour) -> None:
    """With its own error; no connection is left with answers that nobody has read, and none is lost."""
    bad = LOW[1].encode()
    for server in pair:
        tell(pair, server, lambda words: REFUSED if words[1] == bad else echoed(words))
    async with colour(pair[0].address, max_connections=1) as client:
        for _ in range(3):
            with pytest.raises(ArgumentInvalid, match="not that"):
                await client.get_many(KEYS, one_snapshot=False)
            assert [(await client.get(key)).as_of for key in (LOW[0], HIGH[0])] == [LOW[0], HIGH[0]]


@COLOURS
async def test_a_read_pays_in_for_retries_once(pair: list[RespServer], colour: Colour) -> None:
    """However many nodes it goes to."""
    async with colour(pair[0].address) as client:
        budget = getattr(client, "client", client)._operations._asking.budget
        budget.left = 0.0
        await client.get_many(KEYS, one_snapshot=False)
        assert budget.left == pytest.approx(SHARE)


async def test_the_first_failure_is_not_held_up_by_who_has_not_answered(pair: list[RespServer]) -> None:
    """The caller hears of it while another owner still thinks."""
    go, heard = threading.Event(), []

    def thinking(words: Words) -> bytes | None:
        heard.append(go.wait(10))
        return echoed(words)

    tell(pair, pair[0], lambda words: REFUSED)
    tell(pair, pair[1], thinking)
    async with AsyncClient(pair[0].address) as client:
        with pytest.raises(ArgumentInvalid):
            await client.get_many((LOW[0], HIGH[0]), one_snapshot=False, timeout_s=60.0)
    go.set()
    assert all(heard)


def test_threads_that_go_through_the_same_nodes_do_not_wait_in_a_circle(pair: list[RespServer]) -> None:
    """With one connection to each: whoever has one gets the other."""
    with Client(pair[0].address, max_connections=1) as client, ThreadPoolExecutor(4) as threads:

        def read(keys: list[str]) -> int:
            return sum(len(client.get_many(keys, one_snapshot=False)) for _ in range(25))

        ways = [[LOW[0], HIGH[0]], [HIGH[0], LOW[0]]] * 2
        assert list(threads.map(read, ways)) == [50] * 4


async def test_a_read_that_is_cancelled_leaves_nothing_behind(pair: list[RespServer]) -> None:
    """Neither tasks nor connections on which answers are to come."""
    here, go = threading.Barrier(3), threading.Event()

    def held(words: Words) -> bytes | None:
        here.wait(10)
        go.wait(10)
        return echoed(words)

    async with AsyncClient(pair[0].address, max_connections=1) as client:
        await client.get(LOW[0])
        for server in pair:
            tell(pair, server, held)
        reading = asyncio.create_task(client.get_many((LOW[0], HIGH[0]), one_snapshot=False))
        await asyncio.to_thread(here.wait, 10)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert asyncio.all_tasks() == {asyncio.current_task()}
        go.set()
        for server in pair:
            tell(pair, server, echoed)
        assert (await client.get(LOW[1])).as_of == LOW[1]
