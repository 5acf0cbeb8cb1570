"""GETs whose values come by themselves: in order with everything else, to nobody who has gone, within the bounds."""

import gc
import weakref
from collections.abc import Iterator
from time import monotonic

import pytest

from cluster.doors.reads import Come
from doors import Client, Elsewhere, MemoryNode, Running, command, commands, failed, resp_config

FAR = ("users:1", "users:2", "users:3")


@pytest.fixture
def running() -> Iterator[Running]:
    """A door before a node of which three keys are elsewhere, and one is in memory."""
    with Running() as door:
        door.do(lambda: prepare(door.node))
        yield door


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """One connection."""
    with running.client() as connected:
        yield connected


def prepare(node: MemoryNode, keys: tuple[str, ...] = FAR) -> None:
    """Have ``keys`` elsewhere."""
    node.elsewhere.update({key: Elsewhere() for key in keys})
    node.keep("users:hit", b"hit")


def asked(running: Running, *keys: str) -> None:
    """Return once all of ``keys`` have been asked for."""
    running.until(lambda: all(running.node.elsewhere[key].done for key in keys))


def come(running: Running, key: str, what: Come) -> None:
    """``what`` comes for ``key``."""
    done = running.node.elsewhere[key].done
    assert done is not None
    running.do(lambda: done(what))


def pile(node: MemoryNode, keys: tuple[str, ...], other: str) -> bool:
    """A value comes for each of ``keys``; whether ``other`` is then no longer waited for."""
    for key in keys:
        done = node.elsewhere[key].done
        assert done is not None
        done(bytes(1024))
    return node.elsewhere[other].cancelled


def test_what_has_come_is_not_left_to_the_garbage_collector(running: Running, client: Client) -> None:
    """Who forwards many reads would have it walk through all of them again and again."""
    client.send(command("GET", FAR[0]))
    asked(running, FAR[0])
    left = weakref.ref(running.node.elsewhere[FAR[0]])
    gc.disable()
    try:
        come(running, FAR[0], b"one")
        assert client.reply() == b"one"
        running.do(running.node.elsewhere.clear)
        assert left() is None
    finally:
        gc.enable()


def test_the_hit_path_is_open_again_once_the_value_has_come(running: Running, client: Client) -> None:
    """Unless something came in between, and then as soon as that is answered."""
    client.send(command("GET", FAR[0]))
    asked(running, FAR[0])
    client.send(command("GET", "users:hit"))
    running.until(lambda: running.node.hits == 1)
    come(running, FAR[0], b"one")
    assert client.replies(2) == [b"one", b"hit"]
    client.send(command("GET", FAR[1]))
    asked(running, FAR[1])
    come(running, FAR[1], b"two")
    assert client.reply() == b"two"
    assert client.ask("GET", "users:hit") == b"hit"
    assert running.node.tried == []


async def found(value: bytes | None) -> bytes | None:
    """Another way to a value."""
    return value


async def broken(code: str) -> bytes | None:
    """Another way to an error."""
    raise failed(code)


def test_replies_keep_the_order_of_the_commands(running: Running, client: Client) -> None:
    """Among hits, errors and each other, whichever comes first."""
    client.send(commands([["GET", FAR[0]], ["GET", "users:hit"], ["GET", "%"], ["GET", FAR[1]], ["PING"]]))
    asked(running, FAR[0], FAR[1])
    come(running, FAR[1], b"two")
    come(running, FAR[0], b"one")
    first, hit, bad, second, ping = client.replies(5)
    assert [first, hit, second, ping] == [b"one", b"hit", b"two", b"PONG"]
    assert str(bad).startswith("KEY_INVALID")


@pytest.mark.parametrize("ahead", [[], [["PING"]]], ids=["alone", "in a pipeline"])
@pytest.mark.parametrize(
    ("what", "shown"),
    [
        (lambda: b"one", b"one"),
        (lambda: None, None),
        (lambda: failed("QUERY_FAILED"), "QUERY_FAILED"),
        (lambda: found(b"two"), b"two"),
        (lambda: found(None), None),
        (lambda: broken("QUERY_FAILED"), "QUERY_FAILED"),
    ],
    ids=["a value", "no value", "an error", "a way to a value", "a way to no value", "a way to an error"],
)
def test_whatever_comes_is_the_reply(
    running: Running, client: Client, ahead: list[list[str]], what: object, shown: object
) -> None:
    """And the connection goes on as ever; errors are counted."""
    client.send(commands([*ahead, ["GET", FAR[0]]]))
    asked(running, FAR[0])
    come(running, FAR[0], what())  # type: ignore[operator]
    *_, reply = client.replies(len(ahead) + 1)
    assert (str(reply).split()[0] if isinstance(shown, str) else reply) == shown
    assert running.door.counts.errors == isinstance(shown, str)
    assert client.ask("GET", "users:hit") == b"hit"
    assert running.node.hits == 1


def test_no_value_is_shown_as_the_protocol_shows_it(running: Running, client: Client) -> None:
    """The one that was spoken when it was asked for."""
    client.send(commands([["GET", FAR[0]], ["HELLO", "3"], ["GET", FAR[1]]]))
    asked(running, FAR[0], FAR[1])
    come(running, FAR[1], None)
    come(running, FAR[0], None)
    assert client.raw(b"", 5) == b"$-1\r\n"


@pytest.mark.parametrize("ahead", [b"", command("GET", FAR[1])], ids=["alone", "in a pipeline"])
def test_nothing_comes_for_a_client_that_has_gone(running: Running, ahead: bytes) -> None:
    """Its place elsewhere is free again."""
    with running.client() as client:
        client.send(ahead + command("GET", FAR[0]))
        asked(running, FAR[0])
    running.until(lambda: running.node.elsewhere[FAR[0]].cancelled)
    assert running.door.connections == 0


def test_a_door_that_stops_waits_for_it_and_then_no_more(running: Running, client: Client) -> None:
    """By its deadline the client hears that the node is stopping, and nothing comes after that."""
    client.send(command("GET", FAR[0]))
    asked(running, FAR[0])
    running.wait(running.door.drain(monotonic() + 0.05))
    assert str(client.reply()).startswith("NODE_STOPPING")
    assert client.closed()
    assert running.node.elsewhere[FAR[0]].cancelled


def test_what_comes_in_time_is_answered_by_a_door_that_stops(running: Running, client: Client) -> None:
    """Then the connection ends."""
    client.send(command("GET", FAR[0]))
    asked(running, FAR[0])
    running.do(lambda: [connection.drain() for connection in running.door._connections])
    come(running, FAR[0], b"one")
    assert client.rest() == b"$3\r\none\r\n"


def test_a_write_waits_for_what_was_asked_before_it(running: Running, client: Client) -> None:
    """And what is asked behind it must see it, so that it goes another way."""
    client.send(commands([["GET", FAR[0]], ["SET", "settings:a", "x"], ["GET", FAR[1]]]))
    asked(running, FAR[0])
    assert running.node.writes == []
    come(running, FAR[0], b"one")
    assert client.replies(3) == [b"one", b"OK", None]
    assert [key for key, *_ in running.node.asked] == [FAR[1]]
    assert running.node.elsewhere[FAR[1]].done is None


def test_a_connection_that_has_written_asks_another_way(running: Running, client: Client) -> None:
    """Also once the node has followed its write: an answer from elsewhere might be older."""
    assert client.ask("SET", "settings:a", "x") == b"OK"
    running.do(
        lambda: setattr(running.node.timeline, "watermark", type(running.node.timeline.watermark)(600, 600))
    )
    assert client.ask("GET", FAR[0]) is None
    assert client.ask("GET", FAR[0]) is None
    assert running.node.elsewhere[FAR[0]].done is None


def test_what_is_elsewhere_counts_as_work() -> None:
    """Beyond ``max_pipeline`` nothing is begun."""
    with Running(resp_config(max_pipeline=2)) as running:
        running.do(lambda: prepare(running.node))
        with running.client() as client:
            client.send(b"".join(command("GET", key) for key in FAR))
            asked(running, *FAR[:2])
            assert running.do(lambda: running.node.elsewhere[FAR[2]].done) is None
            for key in FAR:
                asked(running, key)
                come(running, key, key.encode())
            assert client.replies(3) == [key.encode() for key in FAR]


def test_a_client_for_whom_too_much_piles_up_is_waited_for_no_more() -> None:
    """What is still elsewhere when it is disconnected is cancelled."""
    keys = tuple(f"users:{n}" for n in range(12))
    with Running(resp_config(write_buffer_bytes=1024)) as running:
        running.do(lambda: prepare(running.node, keys))
        with running.client() as client:
            client.send(commands(["GET", key] for key in keys))
            asked(running, *keys)
            assert running.do(lambda: pile(running.node, keys[1:10], keys[0]))
            assert running.node.elsewhere[keys[-1]].cancelled
        assert running.door.counts.slow_readers == 1
