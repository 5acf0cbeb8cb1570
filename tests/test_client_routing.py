"""Whom the Python client asks: owners where nodes tell of slots, any seed otherwise, others when one is gone.

No node answers CLUSTER SLOTS yet, so that here a RESP server of the tests' own does.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from random import Random

import pytest

from resp_server import STOPPING, RespServer, Words, answering, found, slots
from snapring import AsyncClient, Client, slot_of
from snapring.budget import RESERVE
from snapring.directory import LOOK_PERIOD_S, LOOK_SOON_S, Directory
from snapring.errors import CallInvalid, ConnectionFailed, NodeStopping, Overloaded, WriteUncertain
from snapring.routes import Address, address, routes

HALF = 8192
LOW, HIGH = "pages:a", "pages:b"


@pytest.fixture
def pair() -> Iterator[list[RespServer]]:
    """Two servers; the first owns the lower half of the slots, the second the upper."""
    with ExitStack() as stack:
        servers: list[RespServer] = []

        def answer(words: Words) -> bytes | None:
            if words[0] == b"CLUSTER":
                return slots((0, HALF - 1, servers), (HALF, 16_383, servers[::-1]))
            return found()

        servers += [stack.enter_context(RespServer(answer)) for _ in range(2)]
        yield servers


def test_the_keys_are_of_both_halves() -> None:
    """What the tests below rely on."""
    assert slot_of(LOW.encode()) < HALF <= slot_of(HIGH.encode())


def test_owners_are_asked_directly(pair: list[RespServer]) -> None:
    """One seed is enough to find all of them."""
    with Client(pair[1].address) as client:
        for _ in range(5):
            client.get(LOW)
            client.get(HIGH)
    assert [words[1] for words in pair[0].commands(b"SNAP.GET")] == [LOW.encode()] * 5
    assert [words[1] for words in pair[1].commands(b"SNAP.GET")] == [HIGH.encode()] * 5
    assert len(pair[0].commands(b"CLUSTER")) + len(pair[1].commands(b"CLUSTER")) == 1


async def test_owners_are_asked_directly_by_tasks(pair: list[RespServer]) -> None:
    """The other colour."""
    async with AsyncClient([server.address for server in pair]) as client:
        for _ in range(5):
            await client.get(LOW)
    assert len(pair[0].commands(b"SNAP.GET")) == 5


def test_who_stands_in_is_asked_when_the_owner_is_gone(pair: list[RespServer]) -> None:
    """The next node of the slot, and the owner is left alone for a while."""
    with Client(pair[1].address) as client:
        client.get(LOW)
        pair[0].answer = lambda _: None
        for _ in range(3):
            client.get(LOW)
    assert len(pair[1].commands(b"SNAP.GET")) == 3


def test_seeds_share_the_load_where_no_slots_are_told() -> None:
    """Each call goes to the next one."""
    with RespServer(answering) as one, RespServer(answering) as two:
        with Client([one.address, two.address]) as client:
            for _ in range(10):
                client.get(LOW)
        assert len(one.commands(b"SNAP.GET")) == len(two.commands(b"SNAP.GET")) == 5


def test_a_seed_that_is_not_there_costs_nothing() -> None:
    """Reads and writes go elsewhere, and no budget is spent."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    with RespServer(answering) as server, Client([nobody, server.address]) as client:
        for _ in range(20):
            client.get(LOW)
        with pytest.raises(ConnectionFailed, match="is a node listening there"):
            Client(nobody).get(LOW)


def test_a_read_that_broke_off_is_sent_again() -> None:
    """To the same node where there is no other."""
    replies = iter([None, found()])
    with RespServer(lambda words: next(replies)) as server, Client(server.address, routed=False) as client:
        assert client.get(LOW).state == "FRESH"
    assert len(server.asked) == 2


@pytest.mark.parametrize("command", ["put", "delete"])
def test_a_write_that_broke_off_is_not(command: str) -> None:
    """It may have happened: the caller is told, and nothing is sent twice, however many nodes there are."""
    with RespServer(lambda _: None) as one, RespServer(lambda _: None) as two:
        with Client([one.address, two.address], routed=False) as client:
            write = {"put": lambda: client.put(LOW, b"1"), "delete": lambda: client.delete(LOW)}[command]
            with pytest.raises(WriteUncertain, match="it may have happened"):
                write()
        assert len(one.asked + two.asked) == 1


async def test_a_write_of_tasks_that_broke_off_is_not_sent_again() -> None:
    """The other colour."""
    with RespServer(lambda _: None) as one:
        async with AsyncClient(one.address, routed=False) as client:
            with pytest.raises(WriteUncertain):
                await client.put(LOW, b"1")
        assert len(one.asked) == 1


WRITTEN = b"%2\r\n$5\r\ntoken\r\n$1\r\nT\r\n$7\r\nversion\r\n:5\r\n"


def test_a_write_that_was_refused_for_certain_is_sent_again() -> None:
    """The node said that it stops: nothing was written."""
    replies = iter([STOPPING, WRITTEN])
    with RespServer(lambda _: next(replies)) as server, Client(server.address, routed=False) as client:
        assert client.put(LOW, b"1").version == 5


def test_a_write_does_not_go_out_on_a_connection_that_the_node_has_closed() -> None:
    """A pool that outlived a restart makes no write uncertain."""
    with RespServer(lambda _: WRITTEN) as server, Client(server.address, routed=False) as client:
        for _ in range(3):
            client.put(LOW, b"1")
            server.hang_up()
        assert (len(server.asked), server.connections) == (3, 3)


async def test_nor_does_one_of_tasks() -> None:
    """The other colour: the loop hears of the end before it writes."""
    with RespServer(lambda _: WRITTEN) as server:
        async with AsyncClient(server.address, routed=False) as client:
            await client.put(LOW, b"1")
            server.hang_up()
            await _heard(client)
            await client.put(LOW, b"1")
        assert (len(server.asked), server.connections) == (2, 2)


async def _heard(client: AsyncClient) -> None:
    """Wait until the loop knows that the idle connection has ended."""
    (node,) = client._connections._nodes.values()
    stream = node.idle[0]._reader
    assert stream is not None
    async with asyncio.timeout(10):
        while not stream.at_eof():
            await asyncio.sleep(0)


def test_retries_are_few_when_everything_fails() -> None:
    """The budget: what is sent is hardly more than what is asked, and the error is what the nodes say."""
    with RespServer(lambda _: STOPPING) as server, Client(server.address, routed=False) as client:
        for _ in range(200):
            with pytest.raises(NodeStopping):
                client.get(LOW)
    assert 200 < len(server.asked) <= 200 * 1.1 + RESERVE


def test_connections_to_a_node_are_bounded() -> None:
    """Who finds none free in time is told what to do."""
    with RespServer(answering) as server, Client(server.address, max_connections=1, routed=False) as client:
        node = client._connections._node(address(server.address))
        node.permits.get()
        with pytest.raises(Overloaded, match="raise max_connections"):
            client.get(LOW, timeout_s=0.01)
        node.permits.put(None)
        client.get(LOW)


def test_a_closed_client_says_so() -> None:
    """It does not connect anew."""
    client = Client("127.0.0.1:1")
    client.close()
    with pytest.raises(CallInvalid, match="closed"):
        client.get(LOW)


NODES = [Address("a", 1), Address("b", 1)]


def test_a_node_that_failed_rests_longer_each_time() -> None:
    """Until it answers; and where all rest, one is asked all the same."""
    now = [0.0]
    directory = Directory(NODES, routed=False, clock=lambda: now[0], random=Random(1))
    directory.failed(NODES[0])
    assert {directory.pick(None) for _ in range(4)} == {NODES[1]}
    directory.failed(NODES[1])
    directory.failed(NODES[1])
    assert {directory.pick(None) for _ in range(4)} == {NODES[0]}
    now[0] = 1.0
    assert {directory.pick(None) for _ in range(4)} == set(NODES)


def test_slots_are_looked_at_now_and_then() -> None:
    """Once at first, then every period, sooner after a failure; one caller at a time."""
    clock = count(0.0, LOOK_SOON_S * 1.01)
    directory = Directory(NODES, routed=True, clock=lambda: next(clock), random=Random(1))
    assert [directory.due() for _ in range(3)] == [True, False, False]
    directory.failed(NODES[0])
    assert directory.due()
    assert sum(directory.due() for _ in range(20)) == int(20 // (LOOK_PERIOD_S / LOOK_SOON_S))


@pytest.mark.parametrize(
    "reply",
    [
        None, b"OK", [], [[0, 5]], [[5, 4, [b"a", 1]]], [[0, 16_384, [b"a", 1]]], [[0, 5, [b"a", 0]]],
        [[0, 5, [b"a", True]]], [[0, 5, [b"a"]]], [[b"0", 5, [b"a", 1]]], {},
    ],
)  # fmt: skip
def test_a_map_of_slots_that_makes_no_sense_is_none(reply: object) -> None:
    """Then any seed is asked, as before."""
    assert routes(reply, NODES[0]) is None


def test_an_owner_without_a_host_is_who_was_asked() -> None:
    """As in Redis; and a slot that nobody owns has nobody."""
    found = routes([[0, 5, [b"", 7], [b"b", 1]]], NODES[0])
    assert found is not None
    assert found.of(5) == (Address("a", 7), NODES[1])
    assert found.of(6) == ()


@pytest.mark.parametrize("text", ["", ":1", "a:b", "a:70000", "redis://a", "u@a:1", "a/b"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(CallInvalid, match="write host:port"):
        address(text)


def test_addresses() -> None:
    """The port may be left out; IPv6 goes in brackets."""
    assert [address(text) for text in ("a", "a:1", "[::1]:2")] == [("a", 7379), ("a", 1), ("::1", 2)]
    assert str(address("[::1]:2")) == "[::1]:2"
